#include "kernels/sample/sample.h"

#include <array>

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

// The same row n times with evenly spaced uniforms: how often each class came.
std::vector<int> counts(const std::vector<float>& row, const SampleOptions& options, int n) {
  std::vector<float> logits, uniforms;
  for (int i = 0; i < n; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    uniforms.push_back(static_cast<float>((i + 0.5) / n));
  }
  const auto classes = static_cast<std::int64_t>(row.size());
  const Tensor drawn =
      sample(Tensor::from(logits, {n, classes}), options, Tensor::from(uniforms, {n}));
  std::vector<int> result(row.size(), 0);
  for (const std::int32_t id : drawn.to_vector<std::int32_t>())
    ++result[static_cast<std::size_t>(id)];
  return result;
}

// Classes of probability 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kRow{std::log(0.1F), std::log(0.4F), std::log(0.2F), std::log(0.3F)};
using Counts = std::vector<int>;

TEST(Sample, EvenUniformsGiveTheProbabilities) {
  EXPECT_EQ(counts(kRow, {}, 1000), (Counts{100, 400, 200, 300}));
}

TEST(Sample, TemperatureDividesTheLogits) {  // squares: 0.01, 0.16, 0.04, 0.09 of 0.3
  EXPECT_EQ(counts(kRow, {.temperature = 0.5F}, 300), (Counts{10, 160, 40, 90}));
}

TEST(Sample, TemperatureZeroTakesTheFirstOfTheLargest) {
  EXPECT_EQ(counts({1, 3, 2, 3}, {.temperature = 0}, 10), (Counts{0, 10, 0, 0}));
}

TEST(Sample, TopKKeepsTheLargestAndTiesGoToTheSmallerIndex) {
  EXPECT_EQ(counts(kRow, {.top_k = 2}, 700), (Counts{0, 400, 0, 300}));
  EXPECT_EQ(counts({5, 5, 5, 5}, {.top_k = 2}, 10), (Counts{5, 5, 0, 0}));
  EXPECT_EQ(counts({5, 5}, {.top_k = 9}, 10), (Counts{5, 5}));
}

TEST(Sample, TopPKeepsTheFewestThatReachIt) {
  EXPECT_EQ(counts(kRow, {.top_p = 0.6F}, 700), (Counts{0, 400, 0, 300}));
  EXPECT_EQ(counts(kRow, {.top_p = 0.1F}, 10), (Counts{0, 10, 0, 0}));
}

TEST(Sample, TopPActsOnWhatTopKLeft) {  // 0.4 of 0.9 misses 0.5, with 0.3 it is reached
  EXPECT_EQ(counts(kRow, {.top_k = 3, .top_p = 0.5F}, 700), (Counts{0, 400, 0, 300}));
}

TEST(Sample, ExcludedClassesAreNeverDrawn) {
  EXPECT_EQ(counts(kRow, {.excluded = {1, 2}}, 400), (Counts{100, 0, 0, 300}));
  EXPECT_EQ(counts({1, NAN}, {.excluded = {1}}, 4), (Counts{4, 0}));
}

TEST(Sample, TheEndsOfTheUniformsDrawPossibleClasses) {
  const Tensor x = Tensor::from(
      std::vector<float>{-INFINITY, 0, 0, -INFINITY, -INFINITY, 0, 0, -INFINITY}, {2, 4});
  const auto y = sample(x, {}, Tensor::from(std::vector<float>{0.0F, 1.0F - 0x1.0p-24F}, {2}));
  EXPECT_EQ(y.to_vector<std::int32_t>(), (std::vector<std::int32_t>{1, 2}));
}

TEST(Sample, ADrawDependsOnItsKeyAloneForAnyThreadCountAndBatch) {
  const Tensor x = random({257, 33}, 1);
  std::vector<RngKey> keys;
  for (std::uint64_t i = 0; i < 257; ++i) keys.push_back({3, i});
  set_num_threads(1);
  const auto first = sample(x, {.top_p = 0.9F}, keys).to_vector<std::int32_t>();
  for (const int threads : {2, 3, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(sample(x, {.top_p = 0.9F}, keys).to_vector<std::int32_t>(), first);
  }
  const auto alone = sample(x.slice(0, 200, 201), {.top_p = 0.9F}, std::array{keys[200]});
  EXPECT_EQ(alone.to_vector<std::int32_t>()[0], first[200]);
}

TEST(Sample, NoRowsGiveNoDraws) {
  EXPECT_EQ(sample(Tensor::empty({0, 5}), {}, Tensor::empty({0})).size(), 0);
}

TEST(Sample, RowsThatCannotBeDrawnFromAreErrors) {
  EXPECT_THROW(counts({0, NAN}, {}, 1), Error);
  EXPECT_THROW(counts({0, INFINITY}, {}, 1), Error);
  EXPECT_THROW(counts({0, 1}, {.excluded = {0, 1}}, 1), Error);
}

TEST(Sample, RejectsOptionsOutOfRange) {
  EXPECT_THROW(counts(kRow, {.temperature = -1}, 1), Error);
  EXPECT_THROW(counts(kRow, {.top_k = -1}, 1), Error);
  EXPECT_THROW(counts(kRow, {.top_p = 0}, 1), Error);
  EXPECT_THROW(counts(kRow, {.excluded = {4}}, 1), Error);
}

}  // namespace
}  // namespace tessera
