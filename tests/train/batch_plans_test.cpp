// Random data sets, selections and plans: every jet once an epoch with everything that is its own,
// and any cut of the sequence goes on with the same jets.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "core/check.h"
#include "support/jet_files.h"
#include "support/random_batches.h"
#include "support/temp_dir.h"
#include "train/batcher.h"

namespace tessera {
namespace {

constexpr int kDataSets = 50, kPlans = 200, kCuts = 20;

/// A data set of random files, and what each id must bring along, computed from memory.
class RandomData {
 public:
  explicit RandomData(std::uint64_t seed) : rng_(seed) {
    std::vector<std::vector<std::int64_t>> files(1 + rng_.below(4));
    for (auto& lengths : files) {
      lengths = random_lengths(rng_.below(60), rng_.below(1000), 1 + rng_.below(40));
    }
    files[0].push_back(3);  // at least one jet with something in it
    write_dataset(dir_.path(), files, 1 + rng_.below(200));
    data =
        std::make_shared<const Dataset>(dir_.path(), DatasetOptions{.block = 1 + rng_.below(64)});
    std::uint64_t first = 0;
    for (const auto& lengths : files) {
      remember(random_jets(lengths, first));
      first += lengths.size();
    }
  }

  // All that a batch says of each of its jets belongs to the jet's id.
  [[nodiscard]] ::testing::AssertionResult paired(const Batch& b) const {
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::uint64_t id = b.ids[j];
      const FeatureRows& want = features_.at(id);
      const auto begin = static_cast<std::size_t>(b.rows.cu_seqlens[j]);
      const auto end = static_cast<std::size_t>(b.rows.cu_seqlens[j + 1]);
      const bool same_features =
          3 * (end - begin) == want.core.size() &&
          std::equal(want.core.begin(), want.core.end(),
                     b.rows.core.begin() + static_cast<std::ptrdiff_t>(3 * begin)) &&
          std::equal(want.pid.begin(), want.pid.end(),
                     b.rows.pid.begin() + static_cast<std::ptrdiff_t>(begin));
      if (!same_features || b.labels[j] != static_cast<std::int32_t>(id % 3) ||
          b.decay_modes[j] != static_cast<std::int32_t>(id % 18) - 1 ||
          b.jet_kinematics[4 * j] != static_cast<float>(id % 1000)) {
        return ::testing::AssertionFailure() << "jet " << j << " of id " << id;
      }
    }
    return ::testing::AssertionSuccess();
  }

  // All jets, or some of them.
  std::vector<std::uint64_t> selection() {
    std::vector<std::uint64_t> all(data->size());
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    std::erase_if(all, [&](std::uint64_t) { return all.size() > 1 && rng_.below(3) == 0; });
    return rng_.below(2) == 0 || all.empty() ? std::vector<std::uint64_t>{} : all;
  }

  std::shared_ptr<const Dataset> data;

 private:
  void remember(const JetBlock& block) {
    for (std::uint64_t row = 0; row < block.jets(); ++row) {
      append_features(block, row, {}, features_[block.id[row]]);
    }
  }
  TempDir dir_;
  Rng rng_;
  std::map<std::uint64_t, FeatureRows> features_;
};

BatchConfig random_config(Rng& rng) {
  BatchConfig config = random_batches(rng);
  config.prefetch = rng.below(8) == 0 ? 3 : 0;
  return config;
}

// All jets where the draw is empty.
JetSelection chosen(const std::vector<std::uint64_t>& selection) {
  return selection.empty() ? JetSelection() : JetSelection(selection);
}

// One epoch: ids in order; with drop_last less than a batch may be missing.
void check_epoch(const RandomData& set, std::vector<std::uint64_t> selection,
                 const BatchConfig& config, std::uint64_t seed) {
  Batcher batches(set.data, {}, config, seed, chosen(selection));
  std::set<std::uint64_t> seen;
  for (bool last = false; !last;) {
    const Batch b = batches.next();
    last = b.last_of_epoch;
    ASSERT_TRUE(set.paired(b));
    for (const std::uint64_t jet : b.jets) {
      ASSERT_TRUE(seen.insert(jet).second);
    }
  }
  const std::size_t all = selection.empty() ? set.data->size() : selection.size();
  ASSERT_TRUE(seen.size() == all || (config.drop_last && seen.size() + config.jets > all));
  for (const std::uint64_t jet : selection) {
    ASSERT_TRUE(config.drop_last || seen.contains(jet));
  }
}

TEST(BatchPlans, EveryJetComesOnceAnEpochWithWhatIsItsOwn) {
  Rng rng(21);
  for (int d = 0; d < kDataSets; ++d) {
    RandomData set(rng.below(1U << 30));
    for (int plan = 0; plan < kPlans; ++plan) {
      SCOPED_TRACE(fmt::format("data set {} plan {}", d, plan));
      check_epoch(set, set.selection(), random_config(rng), rng.below(1000));
      if (HasFatalFailure()) {
        return;
      }
    }
  }
}

/// The first batches of a plan, and where each begins.
struct Sequence {
  std::vector<Cursor> cursors;
  std::vector<std::vector<std::uint64_t>> ids;
  std::vector<std::size_t> boundaries;  // batches that begin an epoch
};

Sequence record(Batcher batches) {
  Sequence s;
  std::size_t epochs = 0;
  while (epochs < 3 || s.ids.size() < 12) {
    s.cursors.push_back(batches.cursor());
    if (s.cursors.back().batch == 0) {
      s.boundaries.push_back(s.ids.size());
      ++epochs;
    }
    s.ids.push_back(batches.next().ids);
  }
  return s;
}

TEST(BatchPlans, ARunCutAnywhereGoesOnWithTheSameJets) {
  Rng rng(22);
  int cuts = 0;
  for (int d = 0; d < kDataSets; ++d) {
    RandomData set(rng.below(1U << 30));
    const auto selection = set.selection();
    const BatchConfig config = random_config(rng);
    const std::uint64_t seed = rng.below(1000);
    const Sequence whole = record(Batcher(set.data, {}, config, seed, chosen(selection)));
    for (int c = 0; c < kCuts; ++c, ++cuts) {
      std::size_t cut = rng.below(whole.ids.size() - 2);
      if (c < 6) {  // an epoch's boundary, the batch before and the one after
        const std::size_t at = whole.boundaries[1 + rng.below(whole.boundaries.size() - 1)];
        cut = std::min(at + static_cast<std::size_t>(c % 3) - 1, whole.ids.size() - 2);
      }
      Batcher resumed(set.data, {}, config, seed, chosen(selection), whole.cursors[cut]);
      for (std::size_t i = cut; i < std::min(cut + 6, whole.ids.size()); ++i) {
        ASSERT_EQ(resumed.next().ids, whole.ids[i]) << "data set " << d << " cut " << cut;
      }
    }
  }
  EXPECT_GE(cuts, 1000);
}

}  // namespace
}  // namespace tessera
