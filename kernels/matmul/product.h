// Products made by a library instead of our kernels: what it is asked for, as plain numbers and
// pointers that a test can interpret, and which library a device has. No library header is needed
// to read it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.h"
#include "core/view.h"
#include "kernels/matmul/matmul_types.h"
#include "kernels/matmul/precision.h"

namespace tessera {

/// A matrix in the order of BLAS: element (i, j) stands at data[i + j * leading].
struct ProductMatrix {
  const void* data = nullptr;
  std::int64_t rows = 0, columns = 0, leading = 0;
  bool transposed = false;  ///< the product takes its transpose
};

/// Bytes of scratch that a library may use; the same for every product, so that its choice of an
/// algorithm is.
inline constexpr std::size_t kProductWorkspace = std::size_t{32} << 20;

/// d = op(a) op(b) + beta d, then plus bias[i] in row i; d in the order of BLAS too, f32, as are
/// sums and bias. op transposes what is marked; it has `depth` columns of a and rows of b.
struct ProductRequest {
  ProductMatrix a, b;
  Precision operands = Precision::f32;  ///< element type of a and b
  float* d = nullptr;
  std::int64_t rows = 0, columns = 0, leading = 0, depth = 0;
  float beta = 0;
  const float* bias = nullptr;  ///< (rows) or null
  /// Each sum is made in one sequence, by an algorithm that does not depend on `columns`: the bits
  /// of a column depend neither on the others nor on their number.
  bool one_sequence = true;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

/// c (M, N) = a b with sums over k, asked of a library: row-major c is d = c^T of shape (N, M), so
/// the request's a is b^T and its b is a^T. Activations stay with our kernels: ours is the erf form
/// of gelu where libraries have the tanh form, and lets NaN pass where relu is a maximum. `fits` is
/// false where this form cannot say it: operands without a unit stride, parts of c between which
/// other numbers stand and that are activated, results kept without an activation, slopes.
struct RequestedProduct {
  bool fits = false;
  ProductRequest request;
};
RequestedProduct requested_product(Operand a, Operand b, View<float, 2> c, std::int64_t k,
                                   const GemmEpilogue& epilogue);

/// The request that an algorithm is chosen for, in place of this one and of all that differ from it
/// only in what changes from batch to batch: the number of tokens, which is `columns` of forward
/// products, whatever it is, and `depth` of gradients of weights, by powers of two; and the
/// addresses, which become their alignment, 16 bytes or 4.
ProductRequest planned_request(const ProductRequest& request);
/// By all that they ask for but the place of the workspace; an order without meaning, for maps.
bool operator==(const ProductRequest& x, const ProductRequest& y);
bool operator<(const ProductRequest& x, const ProductRequest& y);

/// Queues the product; false where it cannot be made so, and then nothing was queued.
using ProductLibrary = bool (*)(const ProductRequest&, Stream);
/// That of a device; null: none, our kernels make every product. On cuda cuBLASLt, where the build
/// and the machine have it and TESSERA_GEMM is not "own".
ProductLibrary product_library(Device device);
/// While alive, another one, on every thread: to compare, and for tests.
class ProductLibraryScope {
 public:
  ProductLibraryScope(Device device, ProductLibrary library);
  ~ProductLibraryScope();
  ProductLibraryScope(const ProductLibraryScope&) = delete;
  ProductLibraryScope& operator=(const ProductLibraryScope&) = delete;

 private:
  Device device_;
  ProductLibrary previous_;
};

/// Where the pieces of a library product's scratch begin, in floats: the library's own, then the
/// operands rounded to bf16, whose lines are padded to 16 bytes.
struct ProductScratch {
  static constexpr std::int64_t kAlign = 64;  // floats: 256 bytes
  std::int64_t a = kProductWorkspace / sizeof(float), b = a, floats = a;

  constexpr ProductScratch(std::int64_t m, std::int64_t k, std::int64_t n, Precision precision) {
    if (precision == Precision::bf16) {
      b = a + rounded_floats(m, k);
      floats = b + rounded_floats(n, k);
    }
  }
  /// bf16 from one line of `length` to the next.
  static constexpr std::int64_t padded(std::int64_t length) { return (length + 7) / 8 * 8; }

 private:
  // Lines along either axis.
  static constexpr std::int64_t rounded_floats(std::int64_t lines, std::int64_t k) {
    const std::int64_t one = lines * padded(k), other = k * padded(lines);
    return ((one > other ? one : other) / 2 + kAlign - 1) / kAlign * kAlign;
  }
};
/// Floats of scratch for c (m, n) on a device that has a library; 0 where it has none.
std::int64_t product_scratch(std::int64_t m, std::int64_t k, std::int64_t n, Device device,
                             Precision precision);

}  // namespace tessera
