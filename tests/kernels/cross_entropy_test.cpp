#include "kernels/cross_entropy/cross_entropy.h"

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT
using In = const std::vector<std::vector<double>>&;

std::vector<std::int32_t> targets(std::int64_t n, std::int64_t classes) {
  std::vector<std::int32_t> y;
  for (std::int64_t i = 0; i < n; ++i)
    y.push_back(static_cast<std::int32_t>((7 * i + 3) % classes));
  return y;
}

std::vector<double> rows(const std::vector<double>& logits, const std::vector<std::int32_t>& y) {
  const std::size_t c = logits.size() / y.size();
  std::vector<double> out;
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < c; ++j) sum += std::exp(logits[i * c + j]);
    out.push_back(std::log(sum) - logits[i * c + static_cast<std::size_t>(y[i])]);
  }
  return out;
}

TEST(CrossEntropy, MatchesTheDoubleReferencePerRow) {
  for (const std::int64_t c : {2, 31, 33}) {
    const auto y = targets(9, c);
    check_op([&](const auto& x) { return cross_entropy(x[0], Tensor::from(y, {9})); },
             [&](In x) { return rows(x[0], y); }, {random({9, c}, 1)});
  }
}

TEST(CrossEntropy, FusedWithTheLinearLayerMatchesTheDoubleReference) {
  const std::int64_t t = 19, v = 37, d = 5;
  const auto y = targets(t, v);
  const DoubleFunction reference = [&](In x) {
    std::vector<double> logits(static_cast<std::size_t>(t * v));
    for (std::size_t i = 0; i < 19; ++i) {
      for (std::size_t k = 0; k < 37; ++k) {
        logits[i * 37 + k] = x[2][k];
        for (std::size_t j = 0; j < 5; ++j) logits[i * 37 + k] += x[0][i * 5 + j] * x[1][k * 5 + j];
      }
    }
    double total = 0;
    for (const double l : rows(logits, y)) total += l;
    return std::vector<double>{total / static_cast<double>(t)};
  };
  check_op(
      [&](const auto& x) { return linear_cross_entropy(x[0], x[1], x[2], Tensor::from(y, {t})); },
      reference, {random({t, d}, 1), random({v, d}, 2), random({v}, 3)});
}

TEST(CrossEntropy, ChunksGiveTheSameBitsForAnyThreadCount) {
  const auto y = targets(700, 129);
  std::vector<float> first;
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    Tensor h = random({700, 16}, 1), w = random({129, 16}, 2), b = random({129}, 3);
    w.set_requires_grad(true);
    backward(linear_cross_entropy(h, w, b, Tensor::from(y, {700})));
    const auto g = w.grad().to_vector<float>();
    if (first.empty()) first = g;
    EXPECT_EQ(g, first);
  }
}

TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  const auto loss = cross_entropy(random({5, 100}, 1, 1e4), Tensor::from(targets(5, 100), {5}))
                        .to_vector<float>();
  for (const float l : loss) EXPECT_TRUE(std::isfinite(l));
}

TEST(CrossEntropy, RejectsTargetsOutsideTheClasses) {
  EXPECT_THROW(cross_entropy(random({1, 3}, 1), Tensor::from(std::vector<std::int32_t>{3}, {1})),
               Error);
}

}  // namespace
}  // namespace tessera
