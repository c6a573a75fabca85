#include "nn/codebook.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "kernels/vq/vq.h"

namespace tessera {
namespace {

using Codes = std::vector<std::int32_t>;
using Indices = std::vector<std::int64_t>;

Tensor normal_rows(std::int64_t t, std::int64_t d, std::uint64_t seed) {
  Rng rng(seed);
  Tensor z = Tensor::empty({t, d});
  for (float& x : z.span<float>()) x = static_cast<float>(rng.normal());
  return z;
}

Tensor codes_of(const Codes& codes) {
  return Tensor::from(codes, {static_cast<std::int64_t>(codes.size())});
}

// Distance of a row to the nearest row of z.
double gap(const Tensor& z, std::span<const float> row) {
  const auto values = z.to_vector<float>();
  double best = 1e300;
  for (std::size_t i = 0; i < values.size(); i += row.size()) {
    double sum = 0;
    for (std::size_t d = 0; d < row.size(); ++d)
      sum += std::pow(static_cast<double>(values[i + d]) - static_cast<double>(row[d]), 2);
    best = std::min(best, std::sqrt(sum));
  }
  return best;
}

Codebook started(std::int64_t codes, std::int64_t width, std::int64_t timeout) {
  Rng rng(1);
  Codebook c = Codebook::create(codes, width, timeout, rng);
  c.initialised.span<std::int32_t>()[0] = 1;
  return c;
}

TEST(Codebook, BeginsRandomWithFullCountersAndUninitialised) {
  Rng rng(3);
  const Codebook c = Codebook::create(257, 4, 7, rng);
  EXPECT_EQ(c.lru.to_vector<std::int32_t>(), Codes(257, 7));
  EXPECT_EQ(c.initialised.to_vector<std::int32_t>(), Codes{0});
  double sum = 0, squares = 0;
  for (const float x : c.values.to_vector<float>()) {
    sum += static_cast<double>(x);
    squares += static_cast<double>(x) * static_cast<double>(x);
  }
  EXPECT_NEAR(sum / 1028, 0, 0.15);
  EXPECT_NEAR(squares / 1028, 1, 0.2);
}

// Rows at 0 (98 of them), 1 and -2: after a first centre at 0 the second is -2 with probability
// 4 / 5. Farthest-first would give 1, uniform draws 1 / 2 of the two.
TEST(Codebook, KmeansPlusPlusDrawsBySquaredDistance) {
  std::vector<float> rows(98, 0.0F);
  rows.push_back(1.0F);
  rows.push_back(-2.0F);
  const Tensor z = Tensor::from(rows, {100, 1});
  int total = 0, far = 0;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Rng rng(seed);
    const auto c = kmeans_plus_plus(z, 2, rng).to_vector<float>();
    if (c[0] != 0.0F) continue;
    ++total;
    ASSERT_NE(c[1], 0.0F);
    far += c[1] == -2.0F ? 1 : 0;
  }
  EXPECT_GT(total, 1900);
  EXPECT_NEAR(static_cast<double>(far) / total, 0.8, 0.045);  // five sigma
}

TEST(Codebook, KmeansPlusPlusOnEqualRowsStillGivesKCentres) {
  Rng rng(1);
  EXPECT_EQ(kmeans_plus_plus(Tensor::full({5, 2}, 3.0F), 4, rng).to_vector<float>(),
            std::vector<float>(8, 3.0F));
}

TEST(Codebook, StartFindsSeparatedClusters) {
  Tensor z = normal_rows(400, 3, 5);
  const auto rows = z.span<float>();
  for (std::size_t i = 0; i < 400; ++i) {
    for (std::size_t d = 0; d < 3; ++d)
      rows[3 * i + d] = 0.01F * rows[3 * i + d] + ((i % 8) >> d & 1 ? 100.0F : -100.0F);
  }
  Rng rng(2);
  Codebook c = Codebook::create(8, 3, 10, rng);
  c.start(z, {}, rng);
  EXPECT_EQ(c.initialised.to_vector<std::int32_t>(), Codes{1});
  auto codes = vq_assign(z, c.values).to_vector<std::int32_t>();
  for (std::size_t i = 8; i < codes.size(); ++i) EXPECT_EQ(codes[i], codes[i % 8]);
  codes.resize(8);
  std::ranges::sort(codes);
  EXPECT_EQ(codes, (Codes{0, 1, 2, 3, 4, 5, 6, 7}));
  for (const float x : c.values.to_vector<float>()) EXPECT_NEAR(std::abs(x), 100, 0.02);
}

TEST(Codebook, FewRowsAreRepeatedWithSmallNoise) {
  for (const std::int64_t t : {1, 31, 32, 33}) {
    Rng rng(2);
    Codebook c = Codebook::create(33, 4, 10, rng);
    const Tensor z = normal_rows(t, 4, 9);
    c.start(z, {}, rng);
    const auto values = c.values.to_vector<float>(), rows = z.to_vector<float>();
    double squares = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double noise = static_cast<double>(values[i]) -
                           static_cast<double>(rows[i % static_cast<std::size_t>(4 * t)]);
      squares += noise * noise;
    }
    EXPECT_NEAR(std::sqrt(squares / 132), 1e-3, 3e-4) << t;
  }
}

TEST(Codebook, LloydReseedsEmptyCentresAtFarRows) {
  const Tensor z = Tensor::from(std::vector<float>{0, 0.1F, 0.2F, 5}, {4, 1});
  const Tensor bad = Tensor::from(std::vector<float>{1, 1000}, {2, 1});
  auto c = lloyd(z, bad).to_vector<float>();
  std::ranges::sort(c);
  EXPECT_NEAR(c[0], 0.1F, 1e-6);
  EXPECT_NEAR(c[1], 5.0F, 1e-6);
}

// From any row of 0, 1, 4, 10 the traversal takes the far end, then what is farthest from both.
TEST(Codebook, FarthestFirstIsDeterministicAfterItsFirstRow) {
  const Tensor z = Tensor::from(std::vector<float>{0, 1, 4, 10}, {4, 1});
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const auto c = farthest_first(z, 3, rng).to_vector<float>();
    EXPECT_EQ(c[1], c[0] == 10 ? 0.0F : 10.0F);
    EXPECT_EQ(c[2], c[0] == 4 ? 0.0F : 4.0F);
  }
}

TEST(Codebook, PublishedLloydSendsEmptyCentresToZero) {
  const Tensor z = Tensor::from(std::vector<float>{3, 3.2F, 5}, {3, 1});
  const Tensor bad = Tensor::from(std::vector<float>{4, 1000}, {2, 1});
  const auto c = lloyd(z, bad, 1, EmptyCentre::zero).to_vector<float>();
  EXPECT_NEAR(c[0], 11.2F / 3, 1e-6);
  EXPECT_EQ(c[1], 0.0F);
}

TEST(Codebook, LloydNeverRaisesTheDistance) {
  const Tensor z = normal_rows(257, 2, 4);
  Rng rng(4);
  const Tensor start = kmeans_plus_plus(z, 16, rng);
  const auto cost = [&](int iterations) {
    const Tensor c = lloyd(z, start, iterations);
    const auto q = vq_lookup(vq_assign(z, c), c).to_vector<float>(), rows = z.to_vector<float>();
    double sum = 0;
    for (std::size_t i = 0; i < q.size(); ++i)
      sum += std::pow(static_cast<double>(q[i]) - static_cast<double>(rows[i]), 2);
    return sum;
  };
  EXPECT_LT(cost(1), cost(0));
  EXPECT_LT(cost(100), cost(1));
}

TEST(Codebook, FirstForwardStartsItAndTheSecondDoesNot) {
  Rng rng(1);
  Codebook c = Codebook::create(4, 2, 10, rng);
  const Tensor z = normal_rows(65, 2, 1);
  const auto random = c.values.to_vector<float>();
  c.observe(z, codes_of(Codes(65, 0)), {.timeout = 10}, rng);
  const auto first = c.values.to_vector<float>();
  EXPECT_NE(first, random);
  c.observe(normal_rows(65, 2, 2), codes_of(Codes(65, 0)), {.timeout = 10}, rng);
  EXPECT_EQ(c.values.to_vector<float>(), first);
}

TEST(Codebook, UnusedCodesAreReplacedExactlyAtTheTimeout) {
  Codebook c = started(4, 3, 3);
  const CodebookOptions options{.timeout = 3};
  const Tensor z = normal_rows(31, 3, 7);
  Rng rng(5);
  Codes used(31, 1);
  used[0] = 0;
  const auto before = c.values.to_vector<float>();
  EXPECT_EQ(c.observe(z, codes_of(used), options, rng), Indices{});
  EXPECT_EQ(c.lru.to_vector<std::int32_t>(), (Codes{3, 3, 2, 2}));
  EXPECT_EQ(c.observe(z, codes_of(used), options, rng), Indices{});
  EXPECT_EQ(c.lru.to_vector<std::int32_t>(), (Codes{3, 3, 1, 1}));
  EXPECT_EQ(c.values.to_vector<float>(), before);
  EXPECT_EQ(c.observe(z, codes_of(used), options, rng), (Indices{2, 3}));
  EXPECT_EQ(c.lru.to_vector<std::int32_t>(), (Codes{3, 3, 3, 3}));
  const auto after = c.values.to_vector<float>();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(after[i], before[i]);
  for (std::size_t k : {2U, 3U}) {
    const double distance = gap(z, std::span(after).subspan(3 * k, 3));
    EXPECT_GT(distance, 0);
    EXPECT_LT(distance, 0.3);
  }
}

TEST(Codebook, RowsAreDrawnWithoutReplacementUntilTheyRunOut) {
  Codebook c = started(7, 1, 1);
  const Tensor z = Tensor::from(std::vector<float>{1, 2, 3}, {3, 1});
  Rng rng(5);
  const auto replaced =
      c.observe(z, codes_of({0, 0, 0}), {.timeout = 1, .replacement_noise = 0}, rng);
  EXPECT_EQ(replaced, (Indices{1, 2, 3, 4, 5, 6}));
  auto rows = c.values.to_vector<float>();
  std::sort(rows.begin() + 1, rows.end());
  EXPECT_EQ(std::vector<float>(rows.begin() + 1, rows.end()),
            (std::vector<float>{1, 1, 2, 2, 3, 3}));
}

TEST(Codebook, EffectiveRowIsTheLatentUnlessWrittenRaw) {
  const Tensor z = Tensor::from(std::vector<float>{3, -4}, {1, 2});
  for (const bool inverse : {true, false}) {
    Codebook c = started(2, 2, 1);
    c.scale = Tensor::from(std::vector<float>{0.25F, -0.1F}, {2});
    c.bias = Tensor::from(std::vector<float>{0.5F, 2}, {2});
    Rng rng(1);
    c.observe(z, codes_of({0}), {.timeout = 1, .replacement_noise = 0, .inverse_affine = inverse},
              rng);
    const Tensor seen = inverse ? vq_effective_codebook(c.values, c.scale, c.bias, 2) : c.values;
    EXPECT_NEAR(seen.to_vector<float>()[2], 3, 1e-6);
    EXPECT_NEAR(seen.to_vector<float>()[3], -4, 1e-6);
  }
}

TEST(Codebook, ForwardWithoutRowsOnlyCountsAndTheNextReplaces) {
  Codebook c = started(2, 2, 1);
  Rng rng(1);
  EXPECT_EQ(c.observe(Tensor::empty({0, 2}), codes_of({}), {.timeout = 1}, rng), Indices{});
  EXPECT_EQ(c.observe(normal_rows(1, 2, 1), codes_of({0}), {.timeout = 1}, rng), Indices{1});
}

TEST(Codebook, SameRandomStreamGivesTheSameBits) {
  const auto run = [](std::uint64_t seed) {
    Rng rng(seed);
    Codebook c = Codebook::create(9, 3, 1, rng);
    const Tensor z = normal_rows(33, 3, 1);
    c.observe(z, codes_of(Codes(33, 0)), {.timeout = 1}, rng);
    return c.values.to_vector<float>();
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(Codebook, TapeRefusesACodebookThatWasReplacedBeforeBackward) {
  Codebook c = started(40, 3, 1);  // more codes than rows: some are dead
  c.values.set_requires_grad(true);
  const Tensor z = normal_rows(5, 3, 1);
  const VqResult r = vector_quantize(z, c.values, c.scale, c.bias, {});
  Rng rng(1);
  EXPECT_FALSE(c.observe(z, r.codes, {.timeout = 1}, rng).empty());
  EXPECT_THROW(backward(r.loss), Error);
}

TEST(Codebook, BadArgumentsAreNamed) {
  Codebook c = started(2, 2, 1);
  Rng rng(1);
  EXPECT_THROW(c.observe(normal_rows(2, 3, 1), codes_of({0, 0}), {}, rng), Error);
  EXPECT_THROW(c.observe(normal_rows(2, 2, 1), codes_of({0}), {}, rng), Error);
  EXPECT_THROW(c.observe(normal_rows(1, 2, 1), codes_of({2}), {}, rng), Error);
  EXPECT_THROW(c.observe(Tensor::full({1, 2}, NAN), codes_of({0}), {}, rng), Error);
}

}  // namespace
}  // namespace tessera
