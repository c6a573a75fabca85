// Linear layers of rows that are bf16 in memory: against double loops on rounded rows, against the
// cpu, and what must not change a bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/matmul/matmul.h"
#include "support/bf16_op.h"

namespace tessera {
namespace {

using testing_support::DoubleFunction, testing_support::random;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Sizes {
  std::int64_t m, k, n;
};

// act(x W^T + b); what W is, the kernel rounds.
DoubleFunction layer_of(std::int64_t k, const std::function<double(double)>& act) {
  return [=](const std::vector<std::vector<double>>& in) {
    std::vector<double> y;
    const auto width = static_cast<std::size_t>(k), out = in[2].size();
    for (std::size_t i = 0; i * width < in[0].size(); ++i) {
      for (std::size_t j = 0; j < out; ++j) {
        double z = in[2][j];
        for (std::size_t l = 0; l < width; ++l) {
          z += in[0][i * width + l] * in[1][j * width + l];
        }
        y.push_back(act(z));
      }
    }
    return y;
  };
}

Tensor exact_in_bf16(const Tensor& t) { return testing_support::rounded(t); }

TEST(Bf16Rows, ALayerAndItsGradientsMatchTheDoubleReferenceOnRoundedRows) {
  const std::pair<Activation, std::function<double(double)>> kinds[] = {
      {Activation::none, [](double z) { return z; }},
      {Activation::gelu, [](double z) { return 0.5 * z * std::erfc(-z / std::sqrt(2.0)); }},
      {Activation::silu, [](double z) { return z / (1 + std::exp(-z)); }}};
  for (const auto& [activation, act] : kinds) {
    for (const auto& [m, k, n] : {Sizes{0, 3, 2}, {1, 1, 1}, {5, 33, 7}, {9, 16, 12}}) {
      testing_support::check_bf16_op(
          [kind = activation](const auto& x) { return linear(x[0], x[1], x[2], kind); },
          layer_of(k, act), {random({m, k}, 1), exact_in_bf16(random({n, k}, 2)), random({n}, 3)},
          1);
    }
  }
}

// Tiles, their edges, sums in parts: against the cpu, whose rounding points are the same.
TEST(Bf16Rows, ManyRowsAgreeWithTheCpu) {
  for (const auto& [m, k, n] : {Sizes{31, 65, 257}, {257, 64, 33}, {2100, 33, 40}}) {
    const std::vector<Tensor> in{exact_in_bf16(random({m, k}, 1)),
                                 exact_in_bf16(random({n, k}, 2, 0.2F)), random({n}, 3)};
    const Tensor up = exact_in_bf16(random({m * n}, 4));
    const auto op = [](const auto& x) { return linear(x[0], x[1], x[2], Activation::gelu); };
    const auto expected = testing_support::bf16_answers_on(op, in, 1, up, kCpu);
    for (const Device device : devices()) {
      const auto got = testing_support::bf16_answers_on(op, in, 1, up, device);
      EXPECT_LE(testing_support::relative_error(testing_support::values_of(got.y),
                                                testing_support::values_of(expected.y)),
                1e-3);
      for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_LE(
            testing_support::relative_error(testing_support::values_of(got.gradients[i]),
                                            testing_support::values_of(expected.gradients[i])),
            1e-2)
            << "gradient " << i << " of " << m << " rows";
      }
    }
  }
}

TEST(Bf16Rows, ANanStaysInItsRowAndARowDoesNotDependOnTheOthers) {
  const Tensor x = random({140, 40}, 1), w = random({20, 40}, 2), bias = random({20}, 3);
  x.span<float>()[33 * 40 + 5] = kNan;
  for (const Device device : devices()) {
    const auto layer = [&](const Tensor& rows) {
      return testing_support::values_of(
          linear(rows.contiguous().to(DType::bf16).to(device), w.to(device), bias.to(device)));
    };
    const auto all = layer(x);
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(std::isnan(all[i]), i / 20 == 33) << name(device.type);
    }
    for (const std::int64_t row : {0, 15, 130, 139}) {
      const auto one = layer(x.slice(0, row, row + 1));
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + row * 20)) << row;
    }
  }
}

TEST(Bf16Rows, AreBf16InAScopeOnDevicesAndF32OnTheCpu) {
  constexpr Device kSimt{DeviceType::simt, 0};
  EXPECT_EQ(row_type(kSimt), DType::f32);
  const PrecisionScope scope(Precision::bf16);
  EXPECT_EQ(row_type(kSimt), DType::bf16);
  EXPECT_EQ(row_type(kCpu), DType::f32);
}

}  // namespace
}  // namespace tessera
