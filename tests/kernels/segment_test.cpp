#include "kernels/segment/segment.h"

#include <algorithm>
#include <cmath>

#include "support/bf16_op.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(SegmentPool, SumsAndMeansPerSegmentAndZeroWhereEmpty) {
  const Segments s({0, 0, 1, 5, 5, 36});
  for (const Pool pool : {Pool::sum, Pool::mean}) {
    check_op([&](const auto& x) { return segment_pool(x[0], s, pool); },
             [&](const std::vector<std::vector<double>>& x) {
               std::vector<double> y(5 * 7, 0.0);
               for (int b = 0; b < 5; ++b) {
                 const auto row = static_cast<std::size_t>(b),
                            first = static_cast<std::size_t>(s.cu_seqlens()[row]);
                 for (std::size_t i = first; i < first + static_cast<std::size_t>(s.length(b));
                      ++i) {
                   for (std::size_t j = 0; j < 7; ++j) {
                     y[row * 7 + j] += x[0][i * 7 + j] / (pool == Pool::mean ? s.length(b) : 1);
                   }
                 }
               }
               return y;
             },
             {random({36, 7}, 1)});
  }
}

TEST(SegmentPool, TakesTheLargestValueOfEachColumnAndZeroWhereEmpty) {
  const Segments s({0, 0, 1, 5, 5, 36});
  check_op([&](const auto& x) { return segment_pool(x[0], s, Pool::max); },
           [&](const std::vector<std::vector<double>>& x) {
             std::vector<double> y(5 * 7, 0.0);
             for (std::size_t e = 0; e < y.size(); ++e) {
               const auto offsets = s.cu_seqlens();
               for (std::int32_t i = offsets[e / 7]; i < offsets[e / 7 + 1]; ++i) {
                 const double v = x[0][static_cast<std::size_t>(i) * 7 + e % 7];
                 y[e] = i == offsets[e / 7] ? v : std::max(y[e], v);
               }
             }
             return y;
           },
           {random({36, 7}, 2)});
}

TEST(SegmentPoolBf16, SumsInF32AndTakesTheLargest) {
  const Segments s({0, 0, 1, 5, 5, 36});
  const auto offsets = s.cu_seqlens();
  const Tensor x = Tensor::empty({36, 7});
  for (std::int64_t i = 0; i < x.size(); ++i) {  // 252 different numbers, exact in bf16
    x.span<float>()[static_cast<std::size_t>(i)] = static_cast<float>(i * 37 % 256 - 128) / 64;
  }
  for (const Pool pool : {Pool::sum, Pool::mean, Pool::max}) {
    check_bf16_op([&](const auto& in) { return segment_pool(in[0], s, pool); },
                  [&](const std::vector<std::vector<double>>& in) {
                    std::vector<double> y(5 * 7, 0.0);
                    for (std::size_t e = 0; e < y.size(); ++e) {
                      const std::int32_t n = offsets[e / 7 + 1] - offsets[e / 7];
                      for (std::int32_t i = offsets[e / 7]; i < offsets[e / 7 + 1]; ++i) {
                        const double v = in[0][static_cast<std::size_t>(i) * 7 + e % 7];
                        const double most = i == offsets[e / 7] ? v : std::max(y[e], v);
                        y[e] = pool == Pool::max ? most : y[e] + v / (pool == Pool::mean ? n : 1);
                      }
                    }
                    return y;
                  },
                  {x}, 1);
  }
}

TEST(SegmentPool, MaxSendsTheGradientToTheFirstOfEqualRowsAndCountsNanAsLargest) {
  on_every_device([](Device device, const std::string& level) {
    Tensor x = Tensor::from(std::vector<float>{2, 2, 5, std::nanf(""), 7}, {5, 1}, device);
    x.set_requires_grad(true);
    const Tensor y = segment_pool(x, Segments({0, 2, 5}), Pool::max);
    EXPECT_EQ(y.to_vector<float>()[0], 2.0F) << level;
    EXPECT_TRUE(std::isnan(y.to_vector<float>()[1])) << level;
    backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{Tensor::full({2, 1}, 3.0F, DType::f32, device)};
    }));
    EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{3, 0, 0, 3, 0})) << level;
  });
}

TEST(SegmentPool, RejectsRowsThatTheOffsetsDoNotCover) {
  EXPECT_THROW(segment_pool(random({3, 2}, 1), Segments({0, 2}), Pool::sum), Error);
}

}  // namespace
}  // namespace tessera
