// The precision of products: what linear(), matmul() and linear_cross_entropy() multiply.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"

namespace tessera {

enum class Precision : std::uint8_t {
  f32,
  bf16,  ///< both operands rounded to bf16 (nearest even), products added in f32
};
/// "f32", "bf16"
const char* name(Precision precision);
/// Throws Error(usage) with what is known.
Precision parse_precision(const std::string& text);

/// That of the innermost PrecisionScope of this thread; f32 without one.
Precision precision();

/// While alive, products of this thread have this precision. An op takes it when it is called and
/// its backward keeps it, wherever that runs. Everything else is f32 in either case: tensors in
/// memory, norms, attention's products and softmax, losses, weights, gradients, optimizer, code
/// search. Scopes nest.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  Precision previous_;
};

/// Throws Error(usage) where a device cannot multiply at a precision: bf16 on a CPU without
/// AVX512-BF16, where it would have to be emulated, slower than f32.
void check_precision(Precision precision, Device device);

/// What multiplies bf16 on the CPU. Bits differ between the two, as between SIMD levels.
enum class Bf16Unit : std::uint8_t {
  none,
  dots,   ///< AVX512-BF16: vdpbf16ps
  tiles,  ///< AMX tile registers
};
/// "none", "AVX512-BF16", "AMX"
const char* name(Bf16Unit unit);
/// The best that this CPU and its system admit, by CPUID; TESSERA_SIMD=avx3_bf16 leaves AMX out and
/// lower levels leave both out.
Bf16Unit bf16_unit();
/// Replaces it, for tests. Throws Error(usage) on one that this CPU has not.
void set_bf16_unit(Bf16Unit unit);

}  // namespace tessera
