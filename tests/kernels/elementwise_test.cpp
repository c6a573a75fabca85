#include "kernels/elementwise/elementwise.h"

#include <numbers>

#include "support/gradcheck.h"

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

TEST(Elementwise, RejectsUnequalShapes) {
  EXPECT_THROW(add(random({2}, 1), random({3}, 1)), Error);
}

}  // namespace
}  // namespace tessera
