// The precision of products: what linear(), matmul() and linear_cross_entropy() multiply, and with
// it what the rows of a model are in memory.
//
// bf16 in memory, in five rules:
//  1. The type of a tensor decides, not the scope. An op on bf16 rows gives bf16 rows: it reads
//     each element once, works in f32 and rounds once, when it writes. Gradients have the type of
//     their tensor.
//  2. Parameters, their gradients, the optimizer, statistics (mean, 1 / sigma, log-sum-exp), biases
//     of scores, losses and codes are f32. A product rounds the weight on its way to the tensor
//     cores: there is no second copy of it.
//  3. Only a stack of blocks holds bf16 rows. It rounds what it is given,
//  rows.to(row_type(device)),
//     and gives back f32: embeddings, latents, heads and losses know f32 alone.
//  4. The cpu holds f32: its kernels read nothing else, and what it would save in bytes it would
//     pay in conversions. Ops there take bf16 tensors all the same, by way of f32, so that both
//     devices answer to one reference.
//  5. An op has a second kernel, x_bf16, in a table of its own (TESSERA_DEVICE_KERNEL); both are
//     one template on the element. There is no place where types meet but the op itself.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/dtype.h"

namespace tessera {

enum class Precision : std::uint8_t {
  f32,   ///< products and sums as exact as fma makes them, on every device
  bf16,  ///< both operands rounded to bf16 (nearest even), products added in f32
};
/// "f32", "bf16"
const char* name(Precision precision);
/// Throws Error(usage) with what is known.
Precision parse_precision(const std::string& text);

/// That of the innermost PrecisionScope of this thread; f32 without one.
Precision precision();

/// While alive, products of this thread have this precision. An op takes it when it is called and
/// its backward keeps it, wherever that runs. Between the layers of a stack rows are row_type() in
/// memory. Everything else is f32 in either case: sums, statistics, softmax, losses, weights and
/// their gradients, optimizer, code search. Scopes nest.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  Precision previous_;
};

/// What rows between the layers of a stack of blocks are in memory, at the precision() of the call:
/// bf16 at bf16 on devices beyond the cpu, else f32.
DType row_type(Device device);

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
