#include "core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>

#include "core/check.h"

namespace tessera {
namespace {

TEST(Parallel, LowestFailingChunkIsRethrown) {
  set_num_threads(3);
  try {
    parallel_for(100, [](std::int64_t i) {
      if (i % 10 == 7) {
        throw Error(ErrorKind::usage, std::to_string(i));
      }
    });
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "7");
  }
}

TEST(Parallel, EveryChunkRunsOnceForAnyThreadCount) {
  for (const int threads : {1, 2, 3, 4, 7, 8}) {
    set_num_threads(threads);
    for (int repeat = 0; repeat < 200; ++repeat) {
      std::vector<int> hits(37);
      parallel_for(37, [&](std::int64_t i) { ++hits[static_cast<std::size_t>(i)]; });
      EXPECT_EQ(hits, std::vector<int>(37, 1));
    }
  }
}

TEST(Parallel, NoChunksAreNoCall) {
  parallel_for(0, [](std::int64_t) { FAIL(); });
}

TEST(Parallel, NestedCallsRunInlineAndCompletely) {
  set_num_threads(4);
  std::vector<std::atomic<int>> hits(7 * 11);
  parallel_for(7, [&](std::int64_t i) {
    parallel_for(11, [&](std::int64_t j) { ++hits[static_cast<std::size_t>(11 * i + j)]; });
  });
  for (const auto& h : hits) {
    EXPECT_EQ(h, 1);
  }
}

TEST(Parallel, WorksAgainAfterAnException) {
  set_num_threads(3);
  EXPECT_THROW(parallel_for(5, [](std::int64_t) { throw Error(ErrorKind::data, "x"); }), Error);
  std::atomic<int> sum = 0;
  parallel_for(100, [&](std::int64_t i) { sum += static_cast<int>(i); });
  EXPECT_EQ(sum, 4950);
}

TEST(Parallel, RefusesSenselessThreadCounts) {
  for (const int n : {-1, 0, 257}) {
    EXPECT_THROW(set_num_threads(n), Error) << n;
  }
}

TEST(TreeSum, AddsPairwiseInSlotOrder) {
  EXPECT_EQ(tree_sum(std::vector<double>{}), 0);
  EXPECT_EQ(tree_sum(std::vector<std::string>{"a", "b", "c", "d", "e"}), "abcde");
  // ((1e8 + 1) + (-1e8 + 1)) in float: from left to right it would be 1
  EXPECT_EQ(tree_sum(std::vector<float>{1e8F, 1, -1e8F, 1}), 0);
}

}  // namespace
}  // namespace tessera
