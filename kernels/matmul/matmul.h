// Dense products: linear layers with bias and activation in one call, and plain matmul.
#pragma once

#include <vector>

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/matmul/matmul_types.h"
#include "kernels/matmul/precision.h"

namespace tessera {

/// y = act(x W^T + b). x: (T, I) f32 or bf16; weight: (O, I); bias: (O) or undefined; both f32.
/// gelu is the erf form. Returns (T, O), dtype of x. Products of f32 have the precision() of the
/// call; on devices those of bf16 rows are of bf16, and the gradients of weight and bias f32.
/// Throws Error(usage) on shapes that do not fit. Differentiable in x, weight, bias. Keeps x and,
/// with an activation, its slope or its argument (T O elements).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              Activation activation = Activation::none);

/// While alive, linear() calls of this thread that need no gradient pack each of these weights once
/// and not at each call: for many calls of few rows, where packing takes as long as the product
/// itself. A weight that was written to since is packed again. Results are the same bits. Memory:
/// 4 O I bytes for each weight in use. Scopes nest; the innermost counts.
class PackedWeights {
 public:
  explicit PackedWeights(std::vector<Tensor> weights);
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  /// One weight and its panels, undefined until the first use.
  struct Entry {
    Tensor weight, panels;
    std::uint64_t version = 0;             ///< of the weight when packed
    Precision precision = Precision::f32;  ///< of the panels
  };
  /// The entry of this very tensor in the innermost scope of this thread, or null.
  static Entry* find(const Tensor& weight);

 private:
  std::vector<Entry> entries_;
  PackedWeights* previous_;
};

/// a b. a: (M, K); b: (K, N). Returns (M, N), at the precision() of the call. Differentiable in
/// both.
Tensor matmul(const Tensor& a, const Tensor& b);

/// c (M, N) = a (M, K) b (K, N), with the epilogue. `panels`: scratch of gemm_workspace floats,
/// on devices of GemmPlan's, of product_scratch where a library is to make it, or none.
/// K is summed in ascending order in one accumulator per element: bits depend on the SIMD level
/// only. A device's library (kernels/matmul/product.h) has an order of its own: there bits depend
/// on the library's version, the GPU, shape and alignment of the operands; those of a row of a
/// plain a should depend neither on the other rows nor on their number (to be seen on a GPU).
TESSERA_DECLARE_KERNEL(gemm, void(Operand a, Operand b, View<float, 2> c, std::int64_t k,
                                  GemmEpilogue epilogue, View<float, 1> panels, Stream));
/// The same with a and b rounded to bf16 (nearest even; denormal numbers may become zero) and sums
/// in f32. On the cpu only where bf16_unit() is not none; bits depend on the unit.
TESSERA_DECLARE_KERNEL(gemm_bf16, void(Operand a, Operand b, View<float, 2> c, std::int64_t k,
                                       GemmEpilogue epilogue, View<float, 1> panels, Stream));
/// c (M, N) = a (M, K) b (K, N) with a, c and the kept sums in memory as bf16: rows of a layer. b
/// is rounded on its way; one rounding of f32 sums at the end.
TESSERA_DECLARE_DEVICE_KERNEL(gemm_rows_bf16,
                              void(OperandOf<bf16> a, Operand b, View<bf16, 2> c, std::int64_t k,
                                   EpilogueOf<bf16> epilogue, Stream));
/// c (M, N) f32 of a and b in memory as bf16: gradients of weights.
TESSERA_DECLARE_DEVICE_KERNEL(gemm_sums_bf16,
                              void(OperandOf<bf16> a, OperandOf<bf16> b, View<float, 2> c,
                                   std::int64_t k, GemmEpilogue epilogue, View<float, 1> panels,
                                   Stream));
/// gemm or gemm_bf16, for a precision; check_precision() comes before.
const Kernel<gemm_signature>& gemm_at(Precision precision);
/// Up to here a right operand is packed as a whole; longer ones are, block by block, where used.
inline constexpr std::int64_t kGemmWideK = 1024;
/// Floats of scratch for a (K, N) right operand on any SIMD level.
std::int64_t gemm_workspace(std::int64_t k, std::int64_t n, Precision precision = Precision::f32);

/// y = act(z), elementwise.
TESSERA_DECLARE_KERNEL(activation_forward, void(View<const float, 1> z, View<float, 1> y,
                                                Activation activation, Stream));
/// dz = dy * act'(z), elementwise.
TESSERA_DECLARE_KERNEL(activation_backward, void(View<const float, 1> dy, View<const float, 1> z,
                                                 View<float, 1> dz, Activation activation, Stream));
/// Sums over rows in fixed blocks of 256, merged in block order: out (N).
TESSERA_DECLARE_KERNEL(column_sums, void(View<const float, 2> x, View<float, 1> out, Stream));
/// The same of bf16, in f32 between; sums stay f32.
TESSERA_DECLARE_DEVICE_KERNEL(activation_forward_bf16, void(View<const bf16, 1> z, View<bf16, 1> y,
                                                            Activation activation, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(activation_backward_bf16,
                              void(View<const bf16, 1> dy, View<const bf16, 1> z, View<bf16, 1> dz,
                                   Activation activation, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(column_sums_bf16,
                              void(View<const bf16, 2> x, View<float, 1> out, Stream));

}  // namespace tessera
