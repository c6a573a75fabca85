// By which distance a vector gets its code.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel.h"

namespace tessera {

enum class VqDistance : std::uint8_t {
  f32,  ///< the nearest code
  /// As published code compares on GPUs (minyoungg/vqtorch on PyTorch's cdist): rows and codes
  /// rounded to half, then squares, norms, |z|^2 + |e|^2 - 2 z.e and its root each rounded to half
  /// from sums in f32. Near codes tie by the dozen; some percent of the rows get another one. Only
  /// to reproduce published ids, and only on the cpu.
  f16,
};
/// "f32", "f16"
const char* name(VqDistance distance);
/// Throws Error(usage) with what is known.
VqDistance parse_vq_distance(const std::string& text);
/// Throws Error(usage) where codes cannot be chosen by it: f16 on any device but the cpu.
void check_vq_distance(VqDistance distance, Device device);

namespace cpu {
/// codes (T): for each row of z (T, D) the first of those rows of e (K, D) whose distance by halfs
/// is least. Infinite and NaN distances are never least; without any other the code is 0. The same
/// bits at every SIMD level: products of halfs are exact in f32, and sums run over d in order.
void vq_nearest_half(View<const float, 2> z, View<const float, 2> e, View<std::int32_t, 1> codes);
}  // namespace cpu

}  // namespace tessera
