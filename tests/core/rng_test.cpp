#include "core/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace tessera {
namespace {

// Known answers of the reference implementation (Random123 kat_vectors, philox4x32 10 rounds).
TEST(Rng, PhiloxGivesTheKnownAnswers) {
  const Philox4 zero = philox4x32_10({0, 0, 0, 0}, 0, 0);
  EXPECT_EQ(zero.x, 0x6627e8d5U);
  EXPECT_EQ(zero.y, 0xe169c58dU);
  EXPECT_EQ(zero.z, 0xbc57ac4cU);
  EXPECT_EQ(zero.w, 0x9b00dbd8U);
  const std::uint32_t f = 0xffffffffU;
  const Philox4 ones = philox4x32_10({f, f, f, f}, f, f);
  EXPECT_EQ(ones.x, 0x408f276dU);
  EXPECT_EQ(ones.y, 0x41c83b0eU);
  EXPECT_EQ(ones.z, 0xa20bc7c6U);
  EXPECT_EQ(ones.w, 0x6d5451fdU);
  const Philox4 pi =
      philox4x32_10({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, 0xa4093822U, 0x299f31d0U);
  EXPECT_EQ(pi.x, 0xd16cfe09U);
  EXPECT_EQ(pi.y, 0x94fdccebU);
  EXPECT_EQ(pi.z, 0x5001e420U);
  EXPECT_EQ(pi.w, 0x24126ea1U);
}

TEST(Rng, KeyAndHostStreamDrawTheSameNumbers) {
  Rng rng(7, 3);
  const RngKey key = rng.key();
  for (std::uint64_t e = 0; e < 33; ++e) {
    EXPECT_EQ(rng.next_u32(), key.word(e));
  }
  EXPECT_EQ(rng.counter(), 33U);
}

TEST(Rng, ForksAreDistinctAndDoNotMoveTheParent) {
  const Rng parent(1);
  std::set<std::uint64_t> streams{parent.stream()};
  for (std::uint64_t i = 0; i < 1000; ++i) {
    streams.insert(parent.fork(i).stream());
  }
  streams.insert(parent.fork("dropout").stream());
  streams.insert(parent.fork("init").stream());
  EXPECT_EQ(streams.size(), 1003U);
  EXPECT_EQ(parent.counter(), 0U);
}

TEST(Rng, NormalHasUnitMoments) {
  Rng rng(11);
  double sum = 0, square = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    square += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 4 / std::sqrt(double{n}));
  EXPECT_NEAR(square / n, 1.0, 4 * std::sqrt(2.0 / n));
}

TEST(Rng, BelowIsUniform) {
  Rng rng(5);
  int counts[7] = {};
  for (int i = 0; i < 70000; ++i) {
    ++counts[rng.below(7)];
  }
  for (const int c : counts) {
    EXPECT_NEAR(c, 10000, 500);
  }
}

}  // namespace
}  // namespace tessera
