#include "kernels/matmul/product.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <string_view>
#include <tuple>

#ifdef TESSERA_CUBLASLT
#include "kernels/matmul/matmul_cublaslt.h"
#endif

namespace tessera {
namespace {

// Algorithms are chosen for this many tokens, whatever the number is: a large batch of jets.
constexpr std::int64_t kPlannedColumns = 8192;
// Sums over tokens are planned for as if they were no shorter.
constexpr std::int64_t kShortestDepth = 1024;

/// Whether k or the lines run along the columns of a matrix in the order of BLAS.
enum class Stored : std::uint8_t { no, k_first, lines_first };

// Lines of k elements, element (line, k) at data[line * outer + k * inner].
Stored as_matrix(const float* data, std::int64_t outer, std::int64_t inner, std::int64_t lines,
                 std::int64_t k, ProductMatrix& m) {
  if (inner == 1 && (lines == 1 || outer >= k)) {
    m = {data, k, lines, lines == 1 ? k : outer};
    return Stored::k_first;
  }
  if (outer == 1 && (k == 1 || inner >= lines)) {
    m = {data, lines, k, k == 1 ? lines : inner};
    return Stored::lines_first;
  }
  return Stored::no;
}

// Whether a library writes what the epilogue wants: the sums, to where the activation takes them.
bool can_write(const View<float, 2>& c, const GemmEpilogue& epilogue) {
  const bool activated = epilogue.activation != Activation::none;
  const bool contiguous = c.shape[0] == 1 || c.stride[0] == c.shape[1];
  return epilogue.slope == nullptr && (activated ? contiguous : epilogue.keep == nullptr);
}

const void* alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return reinterpret_cast<const void*>(address % 16 == 0 ? std::uintptr_t{16} : std::uintptr_t{4});
}

auto numbers(const ProductMatrix& m) {
  return std::tuple(reinterpret_cast<std::uintptr_t>(m.data), m.rows, m.columns, m.leading,
                    m.transposed);
}
auto numbers(const ProductRequest& r) {
  return std::tuple(numbers(r.a), numbers(r.b), r.operands, reinterpret_cast<std::uintptr_t>(r.d),
                    r.rows, r.columns, r.leading, r.depth, r.beta,
                    reinterpret_cast<std::uintptr_t>(r.bias), r.one_sequence, r.workspace_bytes);
}

using Libraries = std::array<std::atomic<ProductLibrary>, 3>;  // by device type

ProductLibrary found_on_cuda() {
#ifdef TESSERA_CUBLASLT
  const char* asked = std::getenv("TESSERA_GEMM");
  if ((asked == nullptr || std::string_view(asked) != "own") && cublaslt::available()) {
    return cublaslt::multiply;
  }
#endif
  return nullptr;
}

std::atomic<ProductLibrary>& library_of(Device device) {
  static Libraries all{nullptr, found_on_cuda(), nullptr};
  return all[static_cast<std::size_t>(device.type)];
}

}  // namespace

RequestedProduct requested_product(Operand a, Operand b, View<float, 2> c, std::int64_t k,
                                   const GemmEpilogue& epilogue) {
  RequestedProduct product;
  ProductRequest& r = product.request;
  const std::int64_t m = c.shape[0], n = c.shape[1];
  const Stored left = as_matrix(b.data, b.col, b.row, n, k, r.a);   // op is (N, K)
  const Stored right = as_matrix(a.data, a.row, a.col, m, k, r.b);  // op is (K, M)
  product.fits = left != Stored::no && right != Stored::no && can_write(c, epilogue);
  r.a.transposed = left == Stored::k_first;
  r.b.transposed = right == Stored::lines_first;
  r.one_sequence = right == Stored::k_first;
  r.d = epilogue.keep != nullptr ? epilogue.keep : c.data;
  r.rows = n;
  r.columns = m;
  r.leading = epilogue.keep != nullptr || m == 1 ? n : c.stride[0];
  r.depth = k;
  r.beta = epilogue.accumulate ? 1.0F : 0.0F;
  r.bias = epilogue.bias;
  return product;
}

ProductRequest planned_request(const ProductRequest& request) {
  ProductRequest p = request;
  p.a.data = alignment_of(p.a.data);
  p.b.data = alignment_of(p.b.data);
  p.d = const_cast<float*>(static_cast<const float*>(alignment_of(p.d)));
  p.bias = p.bias == nullptr ? nullptr : static_cast<const float*>(alignment_of(p.bias));
  p.workspace = nullptr;
  if (p.one_sequence) {
    p.columns = p.b.columns = kPlannedColumns;
  } else if (!p.a.transposed) {  // k is no leading dimension
    const auto depth = static_cast<std::uint64_t>(std::max(p.depth, kShortestDepth));
    p.depth = p.a.columns = p.b.columns = static_cast<std::int64_t>(std::bit_ceil(depth));
  }
  return p;
}

bool operator==(const ProductRequest& x, const ProductRequest& y) {
  return numbers(x) == numbers(y);
}
bool operator<(const ProductRequest& x, const ProductRequest& y) { return numbers(x) < numbers(y); }

ProductLibrary product_library(Device device) { return library_of(device).load(); }

ProductLibraryScope::ProductLibraryScope(Device device, ProductLibrary library)
    : device_(device), previous_(library_of(device).exchange(library)) {}
ProductLibraryScope::~ProductLibraryScope() { library_of(device_).store(previous_); }

std::int64_t product_scratch(std::int64_t m, std::int64_t k, std::int64_t n, Device device,
                             Precision precision) {
  return product_library(device) == nullptr ? 0 : ProductScratch(m, k, n, precision).floats;
}

}  // namespace tessera
