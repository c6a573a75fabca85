// A model that learns must be able to learn by heart: 64 jets, and the least loss that their
// prefixes allow.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/inputs.h"
#include "train/jet_block.h"
#include "train/pretrain_job.h"
#include "train/tokenizer_job.h"

namespace tessera {
namespace {

constexpr std::uint64_t kJets = 64;

/// The first 64 jets with constituents of the tau sample, as a data set of their own.
UnlabelledData memorable_jets(const std::filesystem::path& directory) {
  const Dataset sample(TESSERA_SOURCE_DIR "/apps/sample/tau", DatasetOptions{.split = "train"});
  JetBlock few = empty_block();
  for (std::uint64_t j = 0; few.jets() < kJets; ++j) {
    const Dataset::Located at = sample.locate(j);
    if (at.block->offsets[at.row + 1] > at.block->offsets[at.row]) {
      append_jet(*at.block, at.row, few);
    }
  }
  JetBlock whole = random_jets(std::vector<std::int64_t>(kJets, 0));  // labels and truth, unused
  whole.offsets = few.offsets;
  for (auto column : {&JetBlock::px, &JetBlock::py, &JetBlock::pz, &JetBlock::energy}) {
    whole.*column = few.*column;
  }
  whole.pid = few.pid;
  whole.charge = few.charge;
  for (auto column : {&JetBlock::d0, &JetBlock::d0err, &JetBlock::dz, &JetBlock::dzerr}) {
    (whole.*column).assign(few.px.size(), std::nanf(""));
  }
  std::filesystem::create_directory(directory);
  write_jets(directory / "train.h5", whole);
  write_manifest(directory, make_manifest(directory, "test", {{"train", {"train.h5"}}}));
  const auto data = std::make_shared<const Dataset>(directory);
  return {.train = {data}, .validation = {data}, .features = {.max_constituents = 32}};
}

/// Mean over all next-token targets of -ln p(target | what came before it in the jet), where p is
/// counted in these jets: no model that sees only the prefix does better on them.
double prefix_entropy(const UnlabelledData& data, const Tokenizer& tokenizer) {
  using Prefix = std::vector<std::int32_t>;  // code and particle id, in turn
  std::map<Prefix, std::map<std::int32_t, double>> next;
  for_each_batch(data.train[0], data.features, {}, kJets, [&](const Batch& batch) {
    const Segments s = segments_of(batch);
    const auto codes = tokenizer.encode(core_features(batch), s).to_vector<std::int32_t>();
    for (int j = 0; j < s.count(); ++j) {
      Prefix prefix;
      const auto begin = static_cast<std::size_t>(s.cu_seqlens()[static_cast<std::size_t>(j)]);
      const auto end = static_cast<std::size_t>(s.cu_seqlens()[static_cast<std::size_t>(j) + 1]);
      for (std::size_t i = begin; i < end; ++i) {
        next[prefix][codes[i]] += 1;
        prefix.insert(prefix.end(), {codes[i], batch.rows.pid[i]});
      }
      next[prefix][-1] += 1;  // stop
    }
  });
  double sum = 0, total = 0;
  for (const auto& [prefix, counts] : next) {
    double n = 0;
    for (const auto& [code, count] : counts) {
      n += count;
    }
    for (const auto& [code, count] : counts) {
      sum -= count * std::log(count / n);
    }
    total += n;
  }
  return sum / total;
}

TEST(Overfitting, PretrainingLearns64JetsByHeart) {
  const TempDir dir;
  const UnlabelledData data = memorable_jets(dir.path() / "data");
  const TokenizerConfig tiny{
      .width = 32, .blocks = 1, .heads = 4, .codes = 512, .causal_decoder = true};
  const auto tokenizer = train_tokenizer(
      {.model = tiny, .trainer = {.lr = 2e-3F, .steps = 100}, .batch = 64}, data, {});
  const double least = prefix_entropy(data, *tokenizer);
  ASSERT_GT(least, 0.1);  // the first particle is not known
  ASSERT_LT(least, 1.5);
  const PretrainJob job{.backbone = {.width = 64, .blocks = 2, .heads = 4, .registers = 2},
                        .objective = {.codes = 512},
                        .trainer = {.lr = 2e-3F, .weight_decay = 0, .steps = 1000, .warmup = 50},
                        .batch = static_cast<std::int64_t>(kJets)};
  const auto model = pretrain(job, *tokenizer, data, {});
  const PretrainMeasure m = measure_pretraining(*model, *tokenizer, data, 1);
  EXPECT_LT(m.ntp.value(), least + 0.1);
  EXPECT_GT(m.ntp.value(), least - 1e-3) << "below what any causal model can reach: it sees its targets";
  RecordProperty("next_token", std::to_string(m.ntp.value()));
  RecordProperty("prefix_entropy", std::to_string(least));
}

}  // namespace
}  // namespace tessera
