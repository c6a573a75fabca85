// Dropout as a layer: active in training mode only, drawn from a stream that the caller hands in.
#pragma once

#include <optional>
#include <string_view>

#include "core/rng.h"
#include "nn/module.h"

namespace tessera {

/// The random stream of one training step; absent in evaluation and where all rates are zero. A
/// model forks it for each block, a block for each place.
using DropoutStream = std::optional<Rng>;

/// The stream of one place or block; absent stays absent.
DropoutStream fork(const DropoutStream& stream, std::string_view place);
DropoutStream fork(const DropoutStream& stream, std::uint64_t index);

/// Zeroes a share `rate` of the elements in training mode; the rest grow by 1 / (1 - rate).
struct Dropout : Module {
  float rate;
  explicit Dropout(float rate);
  /// The rate in the present mode: 0 in evaluation.
  [[nodiscard]] float active_rate() const { return training() ? rate : 0.0F; }
  /// Key of the stream. Throws Error(usage) where elements would be dropped without a stream.
  [[nodiscard]] RngKey key(const DropoutStream& stream) const;
  Tensor operator()(const Tensor& x, const DropoutStream& stream) const;
};

}  // namespace tessera
