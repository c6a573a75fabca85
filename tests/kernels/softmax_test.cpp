#include "kernels/softmax/softmax.h"

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

// Naive, in double, rows of c.
DoubleFunction reference(std::size_t c, bool logarithm) {
  return [=](const std::vector<std::vector<double>>& in) {
    const std::vector<double>& x = in[0];
    std::vector<double> y(x.size());
    for (std::size_t row = 0; row < x.size(); row += c) {
      double total = 0;
      for (std::size_t j = row; j < row + c; ++j) {
        total += std::exp(x[j]);
      }
      for (std::size_t j = row; j < row + c; ++j) {
        y[j] = logarithm ? x[j] - std::log(total) : std::exp(x[j]) / total;
      }
    }
    return y;
  };
}

TEST(Softmax, MatchesTheDoubleReferenceOnRaggedWidths) {
  for (const std::int64_t c : {2, 31, 32, 33, 257}) {
    const std::vector<Tensor> in{random({3, c}, 1, 2.0)};
    const auto width = static_cast<std::size_t>(c);
    check_op([](const auto& x) { return softmax(x[0]); }, reference(width, false), in);
    check_op([](const auto& x) { return log_softmax(x[0]); }, reference(width, true), in);
  }
}

TEST(Softmax, TakesEmptyBatchesAndEmptyRows) {
  EXPECT_EQ(softmax(Tensor::zeros({0, 5})).shape(), (Shape{0, 5}));
  EXPECT_EQ(log_softmax(Tensor::zeros({5, 0})).shape(), (Shape{5, 0}));
}

TEST(Softmax, OfOneClassIsOneWithoutGradient) {
  Tensor x = random({4, 1}, 2);
  x.set_requires_grad(true);
  const Tensor y = softmax(x);
  EXPECT_EQ(y.to_vector<float>(), std::vector<float>(4, 1.0F));
  backward(differentiable(Tensor::scalar(0), {y}, [](std::span<const Tensor>) {
    return std::vector<Tensor>{Tensor::full({4, 1}, 3.0F)};
  }));
  EXPECT_EQ(x.grad().to_vector<float>(), std::vector<float>(4, 0.0F));
}

TEST(Softmax, NeitherOverflowsNorLosesMaskedEntries) {
  on_every_device([](Device device, const std::string& level) {
    const float inf = std::numeric_limits<float>::infinity();
    const Tensor x = Tensor::from(std::vector<float>{-3e38F, 3e38F, 3e38F, -inf}, {1, 4}, device);
    EXPECT_EQ(softmax(x).to_vector<float>(), (std::vector<float>{0, 0.5F, 0.5F, 0})) << level;
    EXPECT_NEAR(log_softmax(x).to_vector<float>()[1], -std::log(2.0), 1e-6) << level;
  });
}

// The largest value lies where one lane alone finds it, in the first and in the last of its reads.
TEST(Softmax, FindsTheLargestOfARowWhereverItLies) {
  on_every_device([](Device device, const std::string& level) {
    for (const std::size_t at : {0, 31, 40, 64, 99}) {
      std::vector<float> values(100, 0.0F), expected(100, 0.0F);
      values[at] = 200.0F;
      expected[at] = 1.0F;
      const Tensor x = Tensor::from(values, {1, 100}, device);
      EXPECT_EQ(softmax(x).to_vector<float>(), expected) << level << " at " << at;
    }
  });
}

TEST(Softmax, PassesNanOn) {
  on_every_device([](Device device, const std::string& level) {
    std::vector<float> values(33, 1.0F);
    values[20] = std::numeric_limits<float>::quiet_NaN();
    const auto y = softmax(Tensor::from(values, {1, 33}, device)).to_vector<float>();
    EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float v) { return std::isnan(v); })) << level;
  });
}

TEST(Softmax, IsBitEqualForAnyThreadCount) {
  const Tensor x = random({1000, 33}, 3);
  set_num_threads(1);
  const auto one = softmax(x).to_vector<float>();
  for (const int threads : {2, 3, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(softmax(x).to_vector<float>(), one);
  }
}

TEST(Softmax, RejectsOtherRanks) {
  EXPECT_THROW(softmax(random({3}, 1)), Error);
  EXPECT_THROW(log_softmax(random({3, 2, 2}, 1)), Error);
}

}  // namespace
}  // namespace tessera
