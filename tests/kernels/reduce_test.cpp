#include "kernels/reduce/reduce.h"

#include <numeric>

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(Reduce, SumAndMeanMatchTheDoubleReference) {
  for (const std::int64_t n : {1, 31, 33, 5000}) {
    const auto total = [](const std::vector<std::vector<double>>& x) {
      return std::vector<double>{std::accumulate(x[0].begin(), x[0].end(), 0.0)};
    };
    Tensor x = random({n}, 1);
    x.span<float>()[0] +=
        10.0F;  // keeps the sum away from zero, where a relative bound says nothing
    check_op([](const auto& in) { return sum(in[0]); }, total, {x});
    check_op(
        [](const auto& in) { return mean(in[0]); },
        [&](const auto& in) { return std::vector<double>{total(in)[0] / static_cast<double>(n)}; },
        {x});
  }
}

TEST(Reduce, WeightedSumMatchesTheDoubleReference) {
  for (const std::int64_t n : {1, 33, 5000}) {
    Tensor x = random({n}, 3), w = random({n}, 4);
    x.span<float>()[0] = w.span<float>()[0] = 20.0F;  // away from zero, as above
    check_op([](const auto& in) { return weighted_sum(in[0], in[1]); },
             [](const std::vector<std::vector<double>>& in) {
               return std::vector<double>{
                   std::inner_product(in[0].begin(), in[0].end(), in[1].begin(), 0.0)};
             },
             {x, w});
  }
  EXPECT_EQ(weighted_sum(Tensor::zeros({0}), Tensor::zeros({0})).item(), 0.0F);
  EXPECT_THROW(weighted_sum(random({2}, 1), random({3}, 1)), Error);
}

TEST(Reduce, SumOfManyBlocksMatchesTheDoubleReference) {
  const Tensor x = random({40'001}, 5);
  Tensor shifted = x.clone();
  for (float& v : shifted.span<float>()) {
    v += 0.5F;  // away from zero, as above
  }
  const auto values = doubles(shifted);
  const double expected = std::accumulate(values.begin(), values.end(), 0.0);
  on_every_device([&](Device device, const std::string& level) {
    const auto got = static_cast<double>(sum(shifted.to(device)).item());
    EXPECT_NEAR(got, expected, 1e-6 * expected) << level;
  });
}

TEST(Reduce, DevicesAddBlocksOfAnyNumberInAFixedOrder) {
  for (const std::int64_t n : {16383, 16384, 16385, 50000}) {
    Tensor x = random({n}, 5);
    x.span<float>()[0] += 1000.0F;
    const auto values = doubles(x);
    const double expected = std::accumulate(values.begin(), values.end(), 0.0);
    std::vector<float> first;
    on_every_device([&](Device device, const std::string& level) {
      const float got = sum(x.to(device)).item();
      EXPECT_NEAR(got, expected, 1e-5 * std::abs(expected)) << level << " n " << n;
      if (device == kCpu) return;
      if (first.empty()) first.push_back(got);
      EXPECT_EQ(got, first[0]) << level << " n " << n;
    });
  }
}

TEST(Reduce, MeanOfNothingIsZero) { EXPECT_EQ(mean(Tensor::zeros({0})).item(), 0.0F); }

TEST(Reduce, IsBitEqualForAnyThreadCount) {
  const Tensor x = random({100003}, 2);
  set_num_threads(1);
  const float one = sum(x).item();
  for (const int threads : {2, 3, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(sum(x).item(), one);
  }
}

}  // namespace
}  // namespace tessera
