// The committed sample through the reader, the features and the batches.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "train/batcher.h"

namespace tessera {
namespace {

const std::filesystem::path kSample = std::filesystem::path(TESSERA_SOURCE_DIR) / "apps/sample";

// One epoch over a split: every jet once, every feature finite.
void check_epoch(const char* name, const char* split) {
  auto data = std::make_shared<const Dataset>(kSample / name, DatasetOptions{.split = split});
  ASSERT_GT(data->size(), 100U);
  Batcher batches(data, {.particles = true}, {.jets = 256}, 1);
  std::set<std::uint64_t> ids;
  std::uint64_t tokens = 0, kept = 0, stored = 0;
  for (bool last = false; !last;) {
    const Batch b = batches.next();
    last = b.last_of_epoch;
    tokens += b.tokens();
    kept += b.rows.cut + b.rows.truncated + b.tokens();
    for (std::size_t j = 0; j < b.size(); ++j) {
      ASSERT_TRUE(ids.insert(b.ids[j]).second);
      stored += data->lengths()[b.jets[j]];
    }
    for (const auto* column : {&b.rows.core, &b.rows.context, &b.rows.particles}) {
      for (const float v : *column) {
        ASSERT_TRUE(std::isfinite(v));
      }
    }
  }
  EXPECT_EQ(ids.size(), data->size());
  EXPECT_EQ(kept, stored);
  EXPECT_GT(tokens, stored / 2);
}

TEST(Sample, TenClassJetsAreReadWhole) {
  check_epoch("jets", "train");
  check_epoch("jets", "test");
  EXPECT_EQ(Dataset(kSample / "jets").classes().size(), 10U);
}

TEST(Sample, TauJetsAreReadWhole) {
  check_epoch("tau", "train");
  check_epoch("tau", "val");
}

// E-scheme clustering: the sum of all constituents is the clustered jet.
TEST(Sample, TheAxisOfAllConstituentsIsTheClusteredJet) {
  const Dataset data(kSample / "tau");
  int far = 0;
  for (std::uint64_t j = 0; j < 2000; ++j) {
    const auto [block, row] = data.locate(j);
    const Axis axis = jet_axis(*block, row);
    far += std::abs(axis.pt() / block->jet_pt[row] - 1) > 0.01 ? 1 : 0;
  }
  EXPECT_LT(far, 20);
}

}  // namespace
}  // namespace tessera
