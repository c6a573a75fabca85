#include "kernels/sample/sample.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

// The same row n times with evenly spaced uniforms: how often each class came, on a device.
std::vector<int> counts_on(Device device, const std::vector<float>& row,
                           const SampleOptions& options, int n) {
  std::vector<float> logits, uniforms;
  for (int i = 0; i < n; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    uniforms.push_back(static_cast<float>((i + 0.5) / n));
  }
  const auto classes = static_cast<std::int64_t>(row.size());
  const Tensor drawn = sample(Tensor::from(logits, {n, classes}, device), options,
                              Tensor::from(uniforms, {n}, device));
  std::vector<int> result(row.size(), 0);
  for (const std::int32_t id : drawn.to_vector<std::int32_t>())
    ++result[static_cast<std::size_t>(id)];
  return result;
}

// The same on every device, which all agree.
std::vector<int> counts(const std::vector<float>& row, const SampleOptions& options, int n) {
  const std::vector<int> expected = counts_on(kCpu, row, options, n);
  for (const Device device : devices()) {
    EXPECT_EQ(counts_on(device, row, options, n), expected) << name(device.type);
  }
  return expected;
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
  const std::vector<float> ends{0.0F, 1.0F - 0x1.0p-24F};
  for (const Device device : devices()) {
    const auto y = sample(x.to(device), {}, Tensor::from(ends, {2}, device));
    EXPECT_EQ(y.to_vector<std::int32_t>(), (std::vector<std::int32_t>{1, 2}));
  }
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

// Inverse CDF in double, naive: rank, cut, cumulate in index order.
std::int32_t reference_draw(const std::vector<double>& row, const SampleOptions& o,
                            double uniform) {
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  std::vector<double> p(row.size(), 0.0);
  for (std::size_t i = 0; i < row.size(); ++i) {
    p[i] = std::exp((row[i] - row[order[0]]) / static_cast<double>(o.temperature));
  }
  const std::size_t k = o.top_k > 0 ? static_cast<std::size_t>(o.top_k) : row.size();
  double total = 0, before = 0;
  for (std::size_t i = 0; i < row.size() && i < k; ++i) total += p[order[i]];
  for (std::size_t i = 0; i < row.size(); ++i) {
    const bool keep = i < k && before < static_cast<double>(o.top_p) * total;
    before += p[order[i]];
    p[order[i]] = keep || (i < k && o.top_p >= 1) ? p[order[i]] : 0;
  }
  const double all = std::accumulate(p.begin(), p.end(), 0.0);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i];
    if (sum > uniform * all) return static_cast<std::int32_t>(i);
  }
  return -1;
}

TEST(Sample, MatchesTheDoubleReferenceOnEverySimdLevel) {
  const std::vector<SampleOptions> all{{},
                                       {.temperature = 0.7F},
                                       {.temperature = 2.5F, .top_k = 20},
                                       {.top_p = 0.8F},
                                       {.top_k = 50, .top_p = 0.6F}};
  for (const std::int64_t classes : {1, 8, 33, 64, 257, 1000}) {
    const std::int64_t rows = 40;
    const Tensor x = random({rows, classes}, 2, 3);
    Rng rng(3);
    std::vector<float> u;
    for (std::int64_t i = 0; i < rows; ++i) u.push_back(rng.uniform());
    const auto values = doubles(x);
    for (const SampleOptions& o : all) {
      on_every_simd_level([&](const char* level) {
        const auto got = sample(x, o, Tensor::from(u, {rows})).to_vector<std::int32_t>();
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::vector<double> row(values.begin() + i * classes,
                                        values.begin() + (i + 1) * classes);
          const auto at = static_cast<std::size_t>(i);
          EXPECT_EQ(got[at], reference_draw(row, o, static_cast<double>(u[at])))
              << level << " classes " << classes << " row " << i;
        }
      });
    }
  }
}

// 64 probabilities again and again, uniforms where a round ends: the last bit of a sum decides.
TEST(Sample, DrawsAtTheEdgesAreEqualOnEverySimdLevel) {
  const std::int64_t rounds = 128, patterns = 20, classes = 64 * rounds;
  const Tensor x = Tensor::empty({patterns * rounds, classes}),
               u = Tensor::empty({patterns * rounds});
  const auto values = random({patterns, 64}, 4).to_vector<float>();
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const std::int64_t pattern = i / (rounds * classes);
    x.span<float>()[static_cast<std::size_t>(i)] =
        values[static_cast<std::size_t>(pattern * 64 + i % 64)];
  }
  for (std::int64_t i = 0; i < u.size(); ++i) {
    u.span<float>()[static_cast<std::size_t>(i)] =
        static_cast<float>(i % rounds) / static_cast<float>(rounds);
  }
  std::vector<std::vector<std::int32_t>> results;
  on_every_simd_level([&](const char*) {
    results.push_back(sample(x, {.temperature = 0.7F}, u).to_vector<std::int32_t>());
  });
  for (const auto& r : results) EXPECT_EQ(r, results[0]);
}

#ifdef TESSERA_BUILD_SIMT
constexpr Device kSimt{DeviceType::simt, 0};

// Rows of a thread, a warp, a block of 64 classes, all threads, and more keys than threads sort at
// once; uniforms at the edges of classes, where the last bit of a sum decides.
TEST(SampleSimt, DrawsAreThoseOfTheCpuForAnySchedule) {
  const std::vector<SampleOptions> all{{.temperature = 0.7F},
                                       {.temperature = 0},
                                       {.temperature = 2.5F, .top_k = 20, .excluded = {0, 3}},
                                       {.top_p = 0.8F},
                                       {.top_k = 300, .top_p = 0.95F}};
  for (const std::int64_t classes : {4, 33, 64, 257, 1100}) {
    const std::int64_t rows = 8;
    const Tensor x = random({rows, classes}, 2, 2);
    std::vector<float> u;
    for (std::int64_t i = 0; i < rows; ++i) u.push_back(static_cast<float>(i) / 8);
    for (const SampleOptions& o : all) {
      const Tensor uniforms = Tensor::from(u, {rows});
      const auto expected = sample(x, o, uniforms).to_vector<std::int32_t>();
      for (std::uint64_t seed = 0; seed<6; seed += classes> 300 ? 3 : 1) {
        const simt::ScheduleGuard guard({seed == 0   ? simt::Order::forward
                                         : seed == 1 ? simt::Order::reverse
                                                     : simt::Order::random,
                                         seed});
        EXPECT_EQ(sample(x.to(kSimt), o, uniforms.to(kSimt)).to_vector<std::int32_t>(), expected)
            << "classes " << classes << " seed " << seed;
      }
    }
  }
}

// 64 probabilities again and again, uniforms where a round ends.
void expect_draws_of_the_cpu(std::uint64_t seed, const SampleOptions& o) {
  const std::int64_t rounds = 16, classes = 64 * rounds;
  const auto pattern = random({64}, seed).to_vector<float>();
  std::vector<float> logits, u;
  for (std::int64_t i = 0; i < rounds * classes; ++i)
    logits.push_back(pattern[static_cast<std::size_t>(i % 64)]);
  for (std::int64_t i = 0; i < rounds; ++i)
    u.push_back(static_cast<float>(i) / static_cast<float>(rounds));
  const Tensor x = Tensor::from(logits, {rounds, classes}), uniforms = Tensor::from(u, {rounds});
  EXPECT_EQ(sample(x.to(kSimt), o, uniforms.to(kSimt)).to_vector<std::int32_t>(),
            sample(x, o, uniforms).to_vector<std::int32_t>())
      << "pattern " << seed;
}

TEST(SampleSimt, DrawsAtTheEdgesAreThoseOfTheCpu) {
  for (std::uint64_t seed = 4; seed < 14; ++seed) {
    expect_draws_of_the_cpu(seed, {.temperature = 0.7F});
  }
  expect_draws_of_the_cpu(4, {.top_p = 0.9F});
}

TEST(SampleSimt, RefusesMoreClassesThanItsKernelHolds) {
  EXPECT_THROW(sample(Tensor::zeros({1, 16385}, DType::f32, kSimt), {},
                      Tensor::zeros({1}, DType::f32, kSimt)),
               Error);
}
#endif

TEST(Sample, NegligibleWeightsAreZeroAndDoNotSpoilTheRest) {
  EXPECT_EQ(counts({0, -800, -1e30F, 0, -INFINITY}, {}, 10), (Counts{5, 0, 0, 5, 0}));
  EXPECT_EQ(counts({-1e30F, -3e38F}, {}, 10), (Counts{10, 0}));
}

TEST(Sample, NoRowsGiveNoDraws) {
  for (const Device device : devices()) {
    const Tensor none = Tensor::empty({0, 5}, DType::f32, device);
    EXPECT_EQ(sample(none, {}, Tensor::empty({0}, DType::f32, device)).size(), 0);
  }
}

TEST(Sample, RowsThatCannotBeDrawnFromAreErrors) {
  for (const Device device : devices()) {
    EXPECT_THROW(counts_on(device, {0, NAN}, {}, 1), Error);
    EXPECT_THROW(counts_on(device, {0, INFINITY}, {}, 1), Error);
    EXPECT_THROW(counts_on(device, {0, 1}, {.excluded = {0, 1}}, 1), Error);
  }
}

TEST(Sample, RejectsOptionsOutOfRange) {
  EXPECT_THROW(counts(kRow, {.temperature = -1}, 1), Error);
  EXPECT_THROW(counts(kRow, {.top_k = -1}, 1), Error);
  EXPECT_THROW(counts(kRow, {.top_p = 0}, 1), Error);
  EXPECT_THROW(counts(kRow, {.excluded = {4}}, 1), Error);
}

}  // namespace
}  // namespace tessera
