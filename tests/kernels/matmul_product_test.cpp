// Products by a library: what it is asked for, interpreted on the host in double; the way there and
// back on every device; what cuBLASLt is told; and cuBLASLt itself where there is a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/autograd.h"
#include "core/memory.h"
#include "core/rng.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/product.h"
#ifdef TESSERA_CUBLASLT
#include "kernels/matmul/matmul_cublaslt.h"
#endif

namespace tessera {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_numbers(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) {
    x = static_cast<float>(rng.normal());
  }
  return v;
}

Tensor random(const Shape& shape, std::uint64_t seed) {
  return Tensor::from(random_numbers(shape.size(), seed), shape);
}

// ---- the interpreter: column-major, exactly what the request says ----

double element(const ProductMatrix& m, Precision type, std::int64_t i, std::int64_t j) {
  EXPECT_TRUE(i >= 0 && i < m.rows && j >= 0 && j < m.columns) << i << " " << j;
  const std::int64_t at = i + j * m.leading;
  return type == Precision::bf16
             ? static_cast<double>(static_cast<float>(static_cast<const bf16*>(m.data)[at]))
             : static_cast<double>(static_cast<const float*>(m.data)[at]);
}

void interpret(const ProductRequest& r) {
  ASSERT_GE(r.a.leading, r.a.rows);
  ASSERT_GE(r.b.leading, r.b.rows);
  ASSERT_GE(r.leading, r.rows);
  for (std::int64_t j = 0; j < r.columns; ++j) {
    for (std::int64_t i = 0; i < r.rows; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < r.depth; ++k) {
        sum += (r.a.transposed ? element(r.a, r.operands, k, i) : element(r.a, r.operands, i, k)) *
               (r.b.transposed ? element(r.b, r.operands, j, k) : element(r.b, r.operands, k, j));
      }
      float& d = r.d[i + j * r.leading];
      sum += r.beta == 0 ? 0.0 : static_cast<double>(r.beta) * static_cast<double>(d);
      d = static_cast<float>(sum + (r.bias == nullptr ? 0.0 : static_cast<double>(r.bias[i])));
    }
  }
}

// ---- requests on the host ----

/// A matrix with element (i, j) at data[i * row + j * col]; NaN lies between.
struct Laid {
  std::vector<float> memory;
  Operand operand{};
};

Laid laid(const std::vector<float>& values, std::int64_t rows, std::int64_t columns,
          std::int64_t row, std::int64_t col) {
  Laid m;
  m.memory.assign(static_cast<std::size_t>(rows * row + columns * col + 1), kNan);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      m.memory[static_cast<std::size_t>(i * row + j * col)] =
          values[static_cast<std::size_t>(i * columns + j)];
    }
  }
  m.operand = {m.memory.data(), row, col};
  return m;
}

struct Sizes {
  std::int64_t m, k, n;
};
constexpr Sizes kSizes[] = {{1, 1, 1},   {1, 33, 31},  {33, 1, 5},   {31, 33, 1}, {7, 7, 7},
                            {17, 64, 9}, {33, 31, 65}, {257, 16, 8}, {5, 257, 3}};

/// What is around the sums: where they begin, and the floats from a row of c to the next.
struct Around {
  bool bias, accumulate;
  std::int64_t gap;
};

// c [+]= a b [+ bias] in double, straight from the operands as the op has them.
std::vector<double> expected_product(const Operand& a, const Operand& b, const Sizes& s,
                                     const std::vector<float>& c, std::int64_t row,
                                     const float* bias, bool accumulate) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < s.m; ++i) {
    for (std::int64_t j = 0; j < s.n; ++j) {
      double sum = accumulate ? static_cast<double>(c[static_cast<std::size_t>(i * row + j)]) : 0;
      sum += bias == nullptr ? 0 : static_cast<double>(bias[j]);
      for (std::int64_t k = 0; k < s.k; ++k) {
        sum += static_cast<double>(a.data[i * a.row + k * a.col]) *
               static_cast<double>(b.data[k * b.row + j * b.col]);
      }
      out.push_back(sum);
    }
  }
  return out;
}

void check_request(const Operand& a, const Operand& b, const Sizes& s, const Around& around) {
  const std::int64_t row = s.n + around.gap;
  std::vector<float> c = random_numbers(s.m * row, 3);
  const std::vector<float> bias = random_numbers(s.n, 4), before = c;
  const float* start = around.bias ? bias.data() : nullptr;
  const auto expected = expected_product(a, b, s, c, row, start, around.accumulate);
  const auto [fits, request] = requested_product(a, b, {c.data(), {s.m, s.n}, {row, 1}}, s.k,
                                                 {.bias = start, .accumulate = around.accumulate});
  ASSERT_TRUE(fits);
  interpret(request);
  for (std::int64_t at = 0; at < s.m * row; ++at) {
    const auto i = static_cast<std::size_t>(at);
    if (at % row >= s.n) {
      EXPECT_EQ(c[i], before[i]) << "between the rows of c";
    } else {
      const double wanted = expected[static_cast<std::size_t>(at / row * s.n + at % row)];
      EXPECT_NEAR(c[i], wanted, 1e-5 * (1 + std::abs(wanted)));
    }
  }
}

// Both operands along k and across it, with and without room between their lines.
TEST(ProductRequest, SaysTheProductForEveryLayoutTransposeAndEpilogue) {
  for (const Sizes& s : kSizes) {
    SCOPED_TRACE(testing::Message() << s.m << " " << s.k << " " << s.n);
    const auto a = random_numbers(s.m * s.k, 1), b = random_numbers(s.k * s.n, 2);
    for (const std::int64_t gap : {0, 3}) {
      for (const Laid& left : {laid(a, s.m, s.k, s.k + gap, 1), laid(a, s.m, s.k, 1, s.m + gap)}) {
        for (const Laid& right :
             {laid(b, s.k, s.n, s.n + gap, 1), laid(b, s.k, s.n, 1, s.k + gap)}) {
          for (const Around& around :
               {Around{false, false, 0}, {true, false, 5}, {false, true, 0}, {false, true, 2}}) {
            check_request(left.operand, right.operand, s, around);
          }
        }
      }
    }
  }
}

TEST(ProductRequest, KeepsTheSumsWhereTheActivationReadsThem) {
  std::vector<float> c(12), kept(12), x(64);
  const View<float, 2> out{c.data(), {3, 4}, {4, 1}}, apart{c.data(), {3, 2}, {4, 1}};
  const Operand a{x.data(), 5, 1}, b{x.data(), 4, 1};
  const GemmEpilogue keep{.activation = Activation::gelu, .keep = kept.data()};
  EXPECT_EQ(requested_product(a, b, out, 5, keep).request.d, kept.data());
  EXPECT_EQ(requested_product(a, b, out, 5, {.activation = Activation::relu}).request.d, c.data());
  EXPECT_TRUE(requested_product(a, b, out, 5, keep).fits);
  EXPECT_FALSE(requested_product(a, b, apart, 5, {.activation = Activation::relu}).fits);
  EXPECT_FALSE(requested_product(a, b, out, 5, {.keep = kept.data()}).fits);
  EXPECT_FALSE(requested_product(a, b, out, 5, {.slope = kept.data()}).fits);
}

TEST(ProductRequest, DoesNotFitWithoutAUnitStrideOrWithOverlappingLines) {
  std::vector<float> c(12), x(200);
  const View<float, 2> out{c.data(), {3, 4}, {4, 1}};
  const Operand fine{x.data(), 5, 1}, sparse{x.data(), 10, 2}, overlapping{x.data(), 2, 1};
  const Operand right{x.data(), 4, 1}, sparse_right{x.data(), 2, 16};
  EXPECT_TRUE(requested_product(fine, right, out, 5, {}).fits);
  EXPECT_FALSE(requested_product(sparse, right, out, 5, {}).fits);
  EXPECT_FALSE(requested_product(overlapping, right, out, 5, {}).fits);
  EXPECT_FALSE(requested_product(fine, sparse_right, out, 5, {}).fits);
}

// ---- what an algorithm is chosen for ----

ProductRequest request_of(Operand a, Operand b, std::int64_t m, std::int64_t k, std::int64_t n,
                          float* c) {
  return requested_product(a, b, {c, {m, n}, {n, 1}}, k, {}).request;
}

TEST(ProductPlan, OfAForwardProductIsTheSameForAnyNumberOfTokens) {
  alignas(16) float x[4] = {}, c[4] = {};
  const auto forward = [&](std::int64_t t) {
    return planned_request(request_of({x, 64, 1}, {x, 1, 64}, t, 64, 96, c));
  };
  EXPECT_TRUE(forward(1).one_sequence);
  for (const std::int64_t t : {1, 2, 33, 8192, 51200}) {
    EXPECT_TRUE(forward(t) == forward(31)) << t;
  }
  EXPECT_FALSE(forward(31) == planned_request(request_of({x, 64, 1}, {x, 1, 64}, 31, 64, 97, c)));
  EXPECT_FALSE(forward(31) ==
               planned_request(request_of({x + 1, 64, 1}, {x, 1, 64}, 31, 64, 96, c)));
}

TEST(ProductPlan, OfAGradientOfWeightsChangesByPowersOfTwoOfTheTokens) {
  alignas(16) float x[4] = {}, c[4] = {};
  const auto gradient = [&](std::int64_t t) {  // dW = dy^T x
    return planned_request(request_of({x, 1, 96}, {x, 64, 1}, 96, t, 64, c));
  };
  EXPECT_FALSE(gradient(5000).one_sequence);
  EXPECT_EQ(gradient(5000).depth, 8192);
  EXPECT_EQ(gradient(5000).a.columns, 8192);
  EXPECT_EQ(gradient(5000).b.columns, 8192);
  EXPECT_TRUE(gradient(5000) == gradient(8192));
  EXPECT_TRUE(gradient(1) == gradient(1024));
  EXPECT_FALSE(gradient(1024) == gradient(1025));
}

// ---- the whole way ----

struct Results {
  std::vector<float> y, dx, dw, db;
};

Results run_linear(std::int64_t t, std::int64_t i, std::int64_t o, Activation activation,
                   Device device) {
  Tensor x = random({t, i}, 1).to(device), w = random({o, i}, 2).to(device),
         b = random({o}, 3).to(device);
  for (Tensor* p : {&x, &w, &b}) {
    p->set_requires_grad(true);
  }
  const Tensor y = linear(x, w, b, activation), up = random({t, o}, 4).to(device);
  backward(differentiable(Tensor::scalar(0), {y},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
  return {y.to_vector<float>(), x.grad().to_vector<float>(), w.grad().to_vector<float>(),
          b.grad().to_vector<float>()};
}

double error(const std::vector<float>& got, const std::vector<float>& expected) {
  double off = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    off += std::pow(static_cast<double>(got[i]) - static_cast<double>(expected[i]), 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return got.size() == expected.size() ? std::sqrt(off / std::max(size, 1e-30)) : 1;
}

void expect_same(const Results& got, const Results& expected, double bound) {
  EXPECT_LE(error(got.y, expected.y), bound);
  EXPECT_LE(error(got.dx, expected.dx), bound);
  EXPECT_LE(error(got.dw, expected.dw), bound);
  EXPECT_LE(error(got.db, expected.db), bound);
}

#ifdef TESSERA_BUILD_SIMT
// The interpreter as the library of simt.
int interpreted = 0;  // products since it was set

// Reads what the request names from device memory, works on the host, and writes d back.
bool interpret_on_simt(const ProductRequest& request, Stream stream) {
  const Device simt{DeviceType::simt, 0};
  EXPECT_EQ(request.workspace_bytes, kProductWorkspace);
  EXPECT_NE(request.workspace, nullptr);
  wait_for(simt, stream);
  std::vector<std::vector<std::byte>> copies;
  const auto fetch = [&](const void* from, std::int64_t elements, std::size_t width) -> void* {
    copies.emplace_back(static_cast<std::size_t>(elements) * width);
    copy_bytes(copies.back().data(), kCpu, from, simt, copies.back().size());
    return copies.back().data();
  };
  const auto extent = [](std::int64_t rows, std::int64_t columns, std::int64_t leading) {
    return (columns - 1) * leading + rows;
  };
  const std::size_t width = request.operands == Precision::bf16 ? 2 : 4;
  ProductRequest r = request;
  for (ProductMatrix* m : {&r.a, &r.b}) {
    m->data = fetch(m->data, extent(m->rows, m->columns, m->leading), width);
  }
  const std::int64_t floats = extent(r.rows, r.columns, r.leading);
  r.d = static_cast<float*>(fetch(r.d, floats, 4));
  r.bias = r.bias == nullptr ? nullptr : static_cast<float*>(fetch(r.bias, r.rows, 4));
  interpret(r);
  copy_bytes(request.d, simt, r.d, kCpu, static_cast<std::size_t>(floats) * 4);
  ++interpreted;
  return true;
}

bool decline(const ProductRequest& /*request*/, Stream /*stream*/) { return false; }

constexpr Device kSimt{DeviceType::simt, 0};

/// Tokens, widths, and how many of the three products are not thin.
struct Layer {
  std::int64_t t, i, o;
  int products;
};
constexpr Layer kLayers[] = {{33, 31, 65, 3}, {1, 17, 8, 1}, {129, 16, 9, 2}};

// A fifth of what a GPU is held to below: there the library's own rounding adds up with ours.
constexpr double kF32Bound = 2e-6;

TEST(ProductLibrary, MakesALinearLayerAndItsGradientsOnSimt) {
  for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
    for (const auto& [t, i, o, products] : kLayers) {
      const Results own = run_linear(t, i, o, activation, kSimt);
      const ProductLibraryScope scope(kSimt, interpret_on_simt);
      interpreted = 0;
      expect_same(run_linear(t, i, o, activation, kSimt), own, kF32Bound);
      EXPECT_EQ(interpreted, products);
    }
  }
}

TEST(ProductLibrary, IsGivenOperandsRoundedToBf16) {
  const PrecisionScope bf16_scope(Precision::bf16);
  for (const auto& [t, i, o, products] : kLayers) {
    const Results own = run_linear(t, i, o, Activation::gelu, kSimt);
    const ProductLibraryScope scope(kSimt, interpret_on_simt);
    interpreted = 0;
    // The same rounded operands; only gradients through a slope of z see the order of its sums.
    expect_same(run_linear(t, i, o, Activation::gelu, kSimt), own, 1e-4);
    EXPECT_EQ(interpreted, products);
  }
}

TEST(ProductLibrary, ThatDeclinesLeavesTheBitsOfOurKernels) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const PrecisionScope at(precision);
    const Results own = run_linear(33, 40, 24, Activation::gelu, kSimt);
    const ProductLibraryScope scope(kSimt, decline);
    const Results got = run_linear(33, 40, 24, Activation::gelu, kSimt);
    EXPECT_EQ(got.y, own.y);
    EXPECT_EQ(got.dx, own.dx);
    EXPECT_EQ(got.dw, own.dw);
    EXPECT_EQ(got.db, own.db);
  }
}

TEST(ProductLibrary, MakesTheProductsOfTheFusedLoss) {
  // In bf16 rows of up to 256 columns never have their logits stored: no product is asked for.
  const auto run = [](Precision precision) {
    const PrecisionScope at(precision);
    const std::int64_t width = precision == Precision::f32 ? 24 : 272;
    Tensor h = random({40, width}, 1).to(kSimt), w = random({33, width}, 2).to(kSimt),
           b = random({33}, 3).to(kSimt);
    for (Tensor* p : {&h, &w, &b}) {
      p->set_requires_grad(true);
    }
    std::vector<std::int32_t> targets(40);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      targets[i] = static_cast<std::int32_t>(7 * i % 33);
    }
    const Tensor loss = linear_cross_entropy(h, w, b, Tensor::from(targets, {40}).to(kSimt));
    backward(loss);
    return Results{loss.to_vector<float>(), h.grad().to_vector<float>(),
                   w.grad().to_vector<float>(), b.grad().to_vector<float>()};
  };
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Results own = run(precision);
    const ProductLibraryScope scope(kSimt, interpret_on_simt);
    interpreted = 0;
    // bf16: slopes on the edge between two rounded values may fall to either side.
    expect_same(run(precision), own, precision == Precision::f32 ? kF32Bound : 1e-3);
    EXPECT_EQ(interpreted, 3);
  }
}

TEST(ProductLibrary, IsNotAskedForThinProducts) {
  const ProductLibraryScope scope(kSimt, interpret_on_simt);
  interpreted = 0;
  matmul(random({20, 15}, 1).to(kSimt), random({15, 20}, 2).to(kSimt));
  matmul(random({20, 40}, 1).to(kSimt), random({40, 7}, 2).to(kSimt));
  EXPECT_EQ(interpreted, 0);
  matmul(random({20, 16}, 1).to(kSimt), random({16, 8}, 2).to(kSimt));
  EXPECT_EQ(interpreted, 1);
}
#endif

// ---- cuBLASLt ----

#ifdef TESSERA_CUBLASLT
/// cuBLASLt's own readers of its descriptors, which only this test needs.
template <class T>
T told(const cublaslt::Description& d, cublasLtMatmulDescAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  EXPECT_EQ(
      cublasLtMatmulDescGetAttribute(d.operation.get(), attribute, &value, sizeof(T), &written),
      CUBLAS_STATUS_SUCCESS);
  return value;
}

ProductMatrix told(cublasLtMatrixLayout_t layout, cudaDataType type) {
  const auto read = [&](cublasLtMatrixLayoutAttribute_t attribute, auto value) {
    std::size_t written = 0;
    EXPECT_EQ(cublasLtMatrixLayoutGetAttribute(layout, attribute, &value, sizeof(value), &written),
              CUBLAS_STATUS_SUCCESS);
    return value;
  };
  EXPECT_EQ(read(CUBLASLT_MATRIX_LAYOUT_TYPE, std::uint32_t{}), static_cast<std::uint32_t>(type));
  EXPECT_EQ(read(CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{}), CUBLASLT_ORDER_COL);
  EXPECT_EQ(read(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{}), 1);
  return {.rows = static_cast<std::int64_t>(read(CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{})),
          .columns = static_cast<std::int64_t>(read(CUBLASLT_MATRIX_LAYOUT_COLS, std::uint64_t{})),
          .leading = read(CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{})};
}

/// The request that the descriptors amount to, with the addresses of `r`, which go beside them.
ProductRequest read_back(const ProductRequest& r) {
  const cublaslt::Description d(r);
  const auto type = r.operands == Precision::bf16 ? CUDA_R_16BF : CUDA_R_32F;
  EXPECT_EQ(told<std::int32_t>(d, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE), CUBLAS_COMPUTE_32F);
  EXPECT_EQ(told<std::int32_t>(d, CUBLASLT_MATMUL_DESC_SCALE_TYPE), CUDA_R_32F);
  EXPECT_EQ(told<std::int32_t>(d, CUBLASLT_MATMUL_DESC_POINTER_MODE), CUBLASLT_POINTER_MODE_HOST);
  ProductRequest out = r;
  out.a = told(d.a.get(), type);
  out.a.data = r.a.data;
  out.a.transposed = told<std::int32_t>(d, CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_T;
  out.b = told(d.b.get(), type);
  out.b.data = r.b.data;
  out.b.transposed = told<std::int32_t>(d, CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T;
  const ProductMatrix result = told(d.d.get(), CUDA_R_32F);
  out.rows = result.rows;
  out.columns = result.columns;
  out.leading = result.leading;
  out.depth = out.a.transposed ? out.a.rows : out.a.columns;
  EXPECT_EQ(out.depth, out.b.transposed ? out.b.columns : out.b.rows);
  const auto epilogue = told<std::uint32_t>(d, CUBLASLT_MATMUL_DESC_EPILOGUE);
  out.bias = epilogue == CUBLASLT_EPILOGUE_BIAS
                 ? told<const float*>(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER)
                 : nullptr;
  EXPECT_TRUE(epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_DEFAULT);
  return out;
}

TEST(CublasLt, IsFoundAndHasWhatWeCall) { EXPECT_TRUE(cublaslt::available()); }

TEST(CublasLt, DescriptorsSayWhatTheRequestSays) {
  for (const Sizes& s : kSizes) {
    const auto a = random_numbers(s.m * s.k, 1), b = random_numbers(s.k * s.n, 2);
    std::vector<float> c(static_cast<std::size_t>(s.m * (s.n + 4))), bias(c.size());
    for (const Operand left : {Operand{a.data(), s.k, 1}, Operand{a.data(), 1, s.m}}) {
      for (const Operand right : {Operand{b.data(), s.n, 1}, Operand{b.data(), 1, s.k}}) {
        const float* starts[] = {nullptr, bias.data() + 1};
        for (const float* start : starts) {
          ProductRequest r = requested_product(left, right, {c.data(), {s.m, s.n}, {s.n + 4, 1}},
                                               s.k, {.bias = start})
                                 .request;
          EXPECT_TRUE(read_back(r) == r);
          r.operands = Precision::bf16;
          EXPECT_TRUE(read_back(r) == r);
        }
      }
    }
  }
}
#endif

/// The GPU with a library; a test that needs it skips, visibly, without one.
class OnCuda : public testing::Test {
 protected:
  void SetUp() override {
    const auto all = devices();
    if (std::ranges::count(all, DeviceType::cuda, &Device::type) == 0) {
      const char* asked = std::getenv("TESSERA_TEST_DEVICES");
      ASSERT_TRUE(asked == nullptr || std::string(asked).find("cuda") == std::string::npos)
          << "TESSERA_TEST_DEVICES asks for cuda, which this build or machine has not";
      GTEST_SKIP() << "no CUDA device at hand";
    }
    if (product_library(cuda) == nullptr) {
      GTEST_SKIP() << "no library of products in this build or on this machine";
    }
  }
  Device cuda{DeviceType::cuda, 0};
};

// The second oracle: each is one for the other, and the cpu for both.
TEST_F(OnCuda, TheLibraryAndOurKernelsAgree) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const PrecisionScope at(precision);
    for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
      for (const auto& [t, i, o] :
           {Sizes{33, 31, 65}, {1, 17, 8}, {129, 16, 9}, {3000, 256, 768}, {257, 1024, 256}}) {
        const Results library = run_linear(t, i, o, activation, cuda);
        const ProductLibraryScope own(cuda, nullptr);
        // bf16: dz = dy act'(z) is rounded again, on either side of an edge.
        expect_same(library, run_linear(t, i, o, activation, cuda),
                    precision == Precision::f32 ? 1e-5 : 2e-3);
      }
    }
  }
}

TEST_F(OnCuda, LibraryProductsAreTheSameBitsAgainAndForAnyOtherRows) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const PrecisionScope at(precision);
    const Tensor a = random({5000, 256}, 1), b = random({256, 768}, 2).to(cuda);
    const auto all = matmul(a.to(cuda), b).to_vector<float>();
    EXPECT_EQ(matmul(a.to(cuda), b).to_vector<float>(), all);
    for (const std::int64_t rows : {1, 7, 64, 129, 2048}) {
      const auto part = matmul(a.slice(0, 0, rows).clone().to(cuda), b).to_vector<float>();
      EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin())) << rows << " rows";
    }
  }
}

TEST_F(OnCuda, NanPassesReluAndReachesItsRowAlone) {
  Tensor x = random({40, 32}, 1);
  x.span<float>()[3 * 32 + 7] = kNan;
  const Tensor w = random({24, 32}, 2), b = random({24}, 3);
  const auto y = linear(x.to(cuda), w.to(cuda), b.to(cuda), Activation::relu).to_vector<float>();
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isnan(y[i]), i / 24 == 3) << i;
  }
}

}  // namespace
}  // namespace tessera
