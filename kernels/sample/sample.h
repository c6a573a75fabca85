// Drawing one class a row from logits.
#pragma once

#include <span>
#include <vector>

#include "core/kernel.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/sample/sample_types.h"

namespace tessera {

struct SampleOptions {
  float temperature = 1;        ///< logits are divided by it; 0 takes the largest
  int top_k = 0;                ///< only the k largest, ties to the smaller index; 0 = all
  float top_p = 1;              ///< the fewest largest whose probabilities reach p, in (0, 1]
  std::vector<int> excluded{};  ///< classes that are never drawn
};

/// Inverse-CDF sampling of softmax(logits / temperature) over the allowed classes in index order:
/// the first class whose cumulated probability exceeds the row's uniform. top_k acts first, then
/// top_p on what it left. logits (B, V) f32, uniforms (B) f32 in [0, 1). Returns (B) i32. Throws
/// Error(usage) on sizes or options that do not fit, Error(numeric) on a row with a NaN or +inf
/// logit or with no allowed class above -inf; devices take up to 16,384 classes. No gradient.
/// Nucleus: Holtzman et al. 2020.
Tensor sample(const Tensor& logits, const SampleOptions& options, const Tensor& uniforms);

/// The same with element 0 of each row's key as its uniform: a row's draw does not depend on its
/// batch.
Tensor sample(const Tensor& logits, const SampleOptions& options, std::span<const RngKey> keys);

/// out (B): the class drawn, or -1 where a row cannot be drawn from.
TESSERA_DECLARE_KERNEL(sample_rows, void(View<const float, 2> logits, View<const float, 1> uniforms,
                                         SampleRule rule, View<std::int32_t, 1> out, Stream));

}  // namespace tessera
