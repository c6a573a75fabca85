#include "kernels/elementwise/elementwise.h"

#include <numbers>

#include "support/bf16_op.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT
using In = const std::vector<std::vector<double>>&;

std::vector<double> zip(In x, const std::function<double(double, double)>& f) {
  std::vector<double> y;
  for (std::size_t i = 0; i < x[0].size(); ++i) y.push_back(f(x[0][i], x[1][i % x[1].size()]));
  return y;
}

TEST(Elementwise, BinaryOpsMatchTheDoubleReference) {
  for (const std::int64_t n : {0, 1, 31, 33, 257}) {
    const std::vector<Tensor> in{random({n}, 1),
                                 random({std::max<std::int64_t>(n, 1)}, 2).slice(0, 0, n).clone()};
    if (n == 0) continue;
    check_op([](const auto& x) { return add(x[0], x[1]); },
             [](In x) { return zip(x, [](double a, double b) { return a + b; }); }, in);
    check_op([](const auto& x) { return mul(x[0], x[1]); },
             [](In x) { return zip(x, [](double a, double b) { return a * b; }); }, in);
  }
}

TEST(Elementwise, RowOpsBroadcastOverRows) {
  const std::vector<Tensor> in{random({7, 33}, 3), random({33}, 4)};
  check_op([](const auto& x) { return mul_rows(x[0], x[1]); },
           [](In x) { return zip(x, [](double a, double b) { return a * b; }); }, in);
  check_op([](const auto& x) { return add_rows(x[0], x[1]); },
           [](In x) { return zip(x, [](double a, double b) { return a + b; }); }, in);
}

TEST(Elementwise, ActivationsMatchTheirDefinitions) {
  const auto map = [](const std::function<double(double)>& f) {
    return [f](In x) {
      std::vector<double> y;
      for (const double v : x[0]) y.push_back(f(v));
      return y;
    };
  };
  const std::vector<Tensor> in{random({257}, 5, 3.0)};
  check_op([](const auto& x) { return gelu(x[0]); },
           map([](double v) { return 0.5 * v * std::erfc(-v / std::numbers::sqrt2); }), in);
  check_op([](const auto& x) { return silu(x[0]); },
           map([](double v) { return v / (1 + std::exp(-v)); }), in);
  check_op([](const auto& x) { return relu(x[0]); }, map([](double v) { return v > 0 ? v : 0; }),
           in);
}

TEST(Elementwise, ActivationsPassNanOn) {
  on_every_simd_level([](const char* level) {
    const Tensor x = Tensor::full({9}, std::nanf(""));
    for (const Tensor& y : {relu(x), gelu(x), silu(x)}) {
      for (const float v : y.to_vector<float>()) {
        EXPECT_TRUE(std::isnan(v)) << level;
      }
    }
  });
}

Tensor one_later(const Tensor& x) { return x.slice(0, 1, x.shape(0)); }

// Whole quads, a tail, and a start that no quad may have; scales six decades apart.
TEST(ElementwiseBf16, BinaryOpsMatchTheDoubleReferenceOnRoundedInputs) {
  const auto sums = [](In x) { return zip(x, [](double a, double b) { return a + b; }); };
  const auto products = [](In x) { return zip(x, [](double a, double b) { return a * b; }); };
  for (const std::int64_t n : {0, 1, 31, 33, 257}) {
    const std::vector<Tensor> in{random({n}, 1, 1e-3), random({n}, 2, 1e3)};
    check_bf16_op([](const auto& x) { return mul(x[0], x[1]); }, products, in, 2);
    check_bf16_op([](const auto& x) { return add(x[0], x[1]); }, sums,
                  {random({n}, 1), random({n}, 2)}, 2);
  }
  check_bf16_op([](const auto& x) { return add(one_later(x[0]), one_later(x[1])); },
                [](In x) {
                  std::vector<double> y;
                  for (std::size_t i = 1; i < x[0].size(); ++i) y.push_back(x[0][i] + x[1][i]);
                  return y;
                },
                {random({70}, 1), random({70}, 2)}, 2);
  check_bf16_op([](const auto& x) { return scale(x[0], -0.3F); },
                [](In x) {
                  std::vector<double> y;
                  for (const double v : x[0]) y.push_back(double{-0.3F} * v);
                  return y;
                },
                {random({33}, 3)}, 1);
}

TEST(ElementwiseBf16, RowOpsTakeAnF32RowAndGiveItAnF32Gradient) {
  for (const std::int64_t d : {4, 33}) {
    const std::vector<Tensor> in{random({7, d}, 3), random({d}, 4)};
    check_bf16_op([](const auto& x) { return mul_rows(x[0], x[1]); },
                  [](In x) { return zip(x, [](double a, double b) { return a * b; }); }, in, 1);
    check_bf16_op([](const auto& x) { return add_rows(x[0], x[1]); },
                  [](In x) { return zip(x, [](double a, double b) { return a + b; }); }, in, 1);
  }
}

TEST(ElementwiseBf16, ActivationsMatchTheirDefinitionsOnRoundedInputs) {
  const auto map = [](const std::function<double(double)>& f) {
    return [f](In x) {
      std::vector<double> y;
      for (const double v : x[0]) y.push_back(f(v));
      return y;
    };
  };
  const std::vector<Tensor> in{random({257}, 5, 3.0)};
  check_bf16_op([](const auto& x) { return gelu(x[0]); },
                map([](double v) { return 0.5 * v * std::erfc(-v / std::numbers::sqrt2); }), in, 1);
  check_bf16_op([](const auto& x) { return silu(x[0]); },
                map([](double v) { return v / (1 + std::exp(-v)); }), in, 1);
  check_bf16_op([](const auto& x) { return relu(x[0]); },
                map([](double v) { return v > 0 ? v : 0; }), in, 1);
}

TEST(ElementwiseBf16, ANanStaysWhereItIs) {
  on_every_device([](Device device, const std::string& level) {
    const Tensor x = random({37}, 1);
    x.span<float>()[9] = std::nanf("");
    const Tensor bent = gelu(x.to(DType::bf16).to(device));
    const auto got = values_of(add(bent, bent));
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(std::isnan(got[i]), i == 9) << level << " " << i;
    }
  });
}

#ifdef TESSERA_BUILD_SIMT
TEST(Elementwise, TheKernelScalesBothTerms) {
  constexpr Device kSimt{DeviceType::simt, 0};
  const Tensor a = Tensor::full({5}, 3, DType::f32, kSimt);
  const Tensor b = Tensor::full({5}, 8, DType::f32, kSimt);
  const Tensor y = Tensor::empty({5}, DType::f32, kSimt);
  simt::pointwise(Pointwise::sum, 2, a.view<const float, 1>(), -0.5F, b.view<const float, 1>(),
                  y.view<float, 1>(), Stream{});
  EXPECT_EQ(y.to_vector<float>(), std::vector<float>(5, 2.0F));
}
#endif

TEST(Elementwise, RejectsUnequalTypes) {
  EXPECT_THROW(add(random({2}, 1), random({2}, 1).to(DType::bf16)), Error);
}

TEST(Elementwise, RejectsUnequalShapes) {
  EXPECT_THROW(add(random({2}, 1), random({3}, 1)), Error);
}

}  // namespace
}  // namespace tessera
