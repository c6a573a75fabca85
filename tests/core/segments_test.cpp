#include "core/segments.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Segments, RejectDecreasingOffsets) {
  EXPECT_THROW(Segments({0, 3, 2}), Error);
  EXPECT_THROW(Segments({1, 3}), Error);
  EXPECT_THROW(Segments(std::vector<std::int32_t>{}), Error);
}

TEST(Segments, RejectLengthsThatAreNegativeOrTooMany) {
  EXPECT_THROW(Segments::from_lengths(std::vector<std::int32_t>{1, -1}), Error);
  EXPECT_THROW(Segments::from_lengths(std::vector<std::int32_t>{INT32_MAX, 1}), Error);
}

TEST(Segments, CountEmptyOnesToo) {
  const auto s = Segments::from_lengths(std::vector<std::int32_t>{0, 1, 0, 33, 0});
  EXPECT_EQ(s.count(), 5);
  EXPECT_EQ(s.total(), 34);
  EXPECT_EQ(s.max_length(), 33);
  EXPECT_EQ(s.length(3), 33);
  EXPECT_EQ(s.segment_of_token().front(), 1);
  EXPECT_EQ(s.segment_of_token().back(), 3);
  EXPECT_EQ(s.on(kCpu).to_vector<std::int32_t>(), (std::vector<std::int32_t>{0, 0, 1, 1, 34, 34}));
}

TEST(Segments, OfNoJetsAreLegal) {
  const auto s = Segments::from_lengths(std::vector<std::int32_t>{});
  EXPECT_EQ(s.count(), 0);
  EXPECT_EQ(s.total(), 0);
  EXPECT_EQ(s.max_length(), 0);
  EXPECT_TRUE(s.segment_of_token().empty());
}

}  // namespace
}  // namespace tessera
