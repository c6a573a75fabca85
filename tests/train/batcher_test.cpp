#include "train/batcher.h"

#include <gtest/gtest.h>

#include <set>

#include "core/check.h"
#include "support/jet_files.h"
#include "support/random_batches.h"
#include "support/temp_dir.h"
#include "train/mixed_batches.h"

namespace tessera {
namespace {

TEST(EpochPlan, EachJetComesExactlyOncePerEpochOverRandomPlans) {
  Rng rng(11);
  for (int trial = 0; trial < 10000; ++trial) {
    std::vector<std::uint32_t> lengths(rng.below(200));
    for (auto& n : lengths) {
      n = static_cast<std::uint32_t>(rng.below(60));
    }
    const BatchConfig config = random_batches(rng);
    const EpochPlan plan = plan_epoch(lengths, config, rng.below(5), rng.below(5));
    std::set<std::uint32_t> seen;
    for (std::size_t b = 0; b < plan.batches(); ++b) {
      const auto jets = plan.batch(b);
      ASSERT_GT(jets.size(), 0U);
      ASSERT_LE(jets.size(), config.jets);
      std::uint64_t tokens = 0;
      for (const auto j : jets) {
        ASSERT_TRUE(seen.insert(j).second);
        tokens += lengths[j];
      }
      ASSERT_TRUE(config.tokens == 0 || tokens <= config.tokens || jets.size() == 1);
    }
    if (config.drop_last) {
      ASSERT_GT(seen.size() + config.jets, lengths.size());
    } else {
      ASSERT_EQ(seen.size(), lengths.size());
    }
  }
}

TEST(EpochPlan, OrderFollowsFromSeedAndEpochOnly) {
  const std::vector<std::uint32_t> lengths(1000, 5);
  const BatchConfig config{.jets = 32, .block = 64, .window = 4};
  EXPECT_EQ(plan_epoch(lengths, config, 1, 0).order, plan_epoch(lengths, config, 1, 0).order);
  EXPECT_NE(plan_epoch(lengths, config, 1, 0).order, plan_epoch(lengths, config, 1, 1).order);
  EXPECT_NE(plan_epoch(lengths, config, 1, 0).order, plan_epoch(lengths, config, 2, 0).order);
}

TEST(EpochPlan, ShuffleMixesOverTheWholeEpoch) {
  const std::vector<std::uint32_t> lengths(4000, 5);
  const EpochPlan plan = plan_epoch(lengths, {.jets = 100, .block = 50, .window = 8}, 3, 0);
  double mean_low = 0;  // mean position in the source of the first half of the epoch
  for (std::size_t i = 0; i < 2000; ++i) {
    mean_low += plan.order[i] / 2000.0;
  }
  EXPECT_NEAR(mean_low, 2000, 500);
}

class BatcherTest : public ::testing::Test {
 protected:
  BatcherTest() {
    write_dataset(dir_.path(), {random_lengths(90, 1), random_lengths(57, 2)});
    data_ = std::make_shared<const Dataset>(dir_.path(), DatasetOptions{.block = 16});
  }
  Batcher batcher(const BatchConfig& config, Cursor start = {}) const {
    return {data_, FeatureConfig{}, config, 5, {}, start};
  }
  TempDir dir_;
  std::shared_ptr<const Dataset> data_;
};

TEST_F(BatcherTest, RowsStayPairedWithTheirIds) {
  Batcher batches = batcher({.jets = 20, .tokens = 500, .block = 8});
  for (int i = 0; i < 30; ++i) {
    const Batch b = batches.next();
    ASSERT_EQ(b.rows.cu_seqlens.size(), b.size() + 1);
    ASSERT_EQ(b.rows.core.size(), 3 * b.tokens());
    for (std::size_t j = 0; j < b.size(); ++j) {
      EXPECT_EQ(b.labels[j], static_cast<int>(b.ids[j] % 3));
      EXPECT_EQ(b.decay_modes[j], static_cast<int>(b.ids[j] % 18) - 1);
      EXPECT_EQ(b.jet_kinematics[4 * j], static_cast<float>(b.ids[j] % 1000));
      const auto [block, row] = data_->locate(b.jets[j]);
      FeatureRows alone;
      append_features(*block, row, {}, alone);
      const auto begin = static_cast<std::size_t>(b.rows.cu_seqlens[j]) * 3;
      EXPECT_TRUE(std::equal(alone.core.begin(), alone.core.end(), b.rows.core.begin() + begin));
    }
  }
}

TEST_F(BatcherTest, PrefetchDepthDoesNotChangeTheSequence) {
  for (const std::uint32_t depth : {1U, 2U, 8U}) {
    Batcher plain = batcher({.jets = 16, .prefetch = 0});
    Batcher ahead = batcher({.jets = 16, .prefetch = depth});
    for (int i = 0; i < 25; ++i) {
      const Batch a = plain.next(), b = ahead.next();
      ASSERT_EQ(a.ids, b.ids);
      ASSERT_EQ(a.rows.core, b.rows.core);
      ASSERT_EQ(plain.cursor(), ahead.cursor());
    }
  }
}

TEST_F(BatcherTest, ResumeAtAnyCursorContinuesTheSameSequence) {
  const BatchConfig config{.jets = 16, .tokens = 400, .prefetch = 2};
  Batcher whole = batcher(config);
  std::vector<Cursor> cursors;
  std::vector<std::vector<std::uint64_t>> sequence;
  for (int i = 0; i < 45; ++i) {  // several epochs, so boundaries are among the cuts
    cursors.push_back(whole.cursor());
    sequence.push_back(whole.next().ids);
  }
  for (std::size_t cut = 0; cut < 40; ++cut) {
    Batcher resumed = batcher(config, cursors[cut]);
    for (std::size_t i = cut; i < cut + 4; ++i) {
      ASSERT_EQ(resumed.next().ids, sequence[i]) << "cut " << cut << " batch " << i;
    }
  }
}

TEST_F(BatcherTest, ACursorAtTheExactEndOfAnEpochStartsTheNextOne) {
  const BatchConfig config{.jets = 16, .prefetch = 0};
  Batcher whole = batcher(config);
  const std::uint64_t n = whole.batches_in_epoch(0);
  Batcher resumed = batcher(config, {0, n});
  EXPECT_EQ(resumed.cursor(), (Cursor{1, 0}));
  EXPECT_THROW(batcher(config, {0, n + 1}), Error);
}

TEST_F(BatcherTest, AnErrorOfTheBackgroundThreadIsThrownByNext) {
  const TempDir dir;
  JetBlock b = random_jets({4, 4, 4});
  b.px[9] = std::nanf("");
  write_jets(dir.path() / "a.h5", b);
  list_unchecked(dir.path(), "a.h5", 3);
  auto data = std::make_shared<const Dataset>(dir.path(), DatasetOptions{.verify = Verify::chunks});
  Batcher batches(data, {}, {.jets = 2, .prefetch = 3}, 1);
  EXPECT_THROW(batches.next(), Error);
  EXPECT_THROW(batches.next(), Error);
}

TEST_F(BatcherTest, SubsetsAreNestedAndStratified) {
  std::vector<std::uint64_t> all, ids;
  std::vector<int> labels;
  for (std::uint64_t i = 0; i < 900; ++i) {
    all.push_back(i), ids.push_back(1000 + i), labels.push_back(i % 9 == 0 ? 1 : 0);
  }
  std::set<std::uint64_t> last;
  for (const std::uint64_t n : {10, 90, 300, 900}) {
    const auto subset = nested_subset(all, ids, labels, n, 4);
    const std::set<std::uint64_t> now(subset.begin(), subset.end());
    ASSERT_EQ(now.size(), n);
    EXPECT_TRUE(std::includes(now.begin(), now.end(), last.begin(), last.end()));
    const auto rare = std::count_if(now.begin(), now.end(), [](auto i) { return i % 9 == 0; });
    EXPECT_NEAR(static_cast<double>(rare), static_cast<double>(n) / 9, 1.0);
    last = now;
  }
  EXPECT_NE(nested_subset(all, ids, labels, 90, 4), nested_subset(all, ids, labels, 90, 5));
}

TEST_F(BatcherTest, EmptyJetsCanBeLeftOut) {
  for (const std::uint64_t jet : without_empty(*data_, {})) {
    EXPECT_GT(data_->lengths()[jet], 0U);
  }
  EXPECT_LT(without_empty(*data_, {}).size(), data_->size());
}

TEST_F(BatcherTest, AnEmptySelectionIsNoJetAndNotAll) {
  const std::vector<std::uint64_t> none;
  EXPECT_TRUE(without_empty(*data_, none).empty());
  EXPECT_TRUE(jets_of(*data_, none).empty());
  EXPECT_EQ(jets_of(*data_, {}).size(), data_->size());
  try {
    Batcher batches(data_, {}, {.jets = 16}, 1, none);
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 65);
  }
  int visits = 0;
  for_each_batch(data_, {}, none, 16, [&](const Batch&) { ++visits; });
  EXPECT_EQ(visits, 0);
  UnlabelledData data{.train = {data_}, .validation = {}, .features = {}};
  data.classes = {"no such class"};
  EXPECT_THROW((void)unlabelled_jets(data, *data_), Error);
}

}  // namespace
}  // namespace tessera
