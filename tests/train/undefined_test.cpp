// Statistics of nothing: each is said to be undefined, and none is a number.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/small_sample.h"
#include "support/tiny_jobs.h"
#include "train/file_io.h"
#include "train/jet_block.h"
#include "train/metrics/generation_quality.h"
#include "train/metrics/paired.h"
#include "train/undefined_metrics.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

/// Answers to jets of the given classes, all different.
Predictions answers(Task task, const std::vector<std::int32_t>& classes) {
  Predictions p{.columns = task == Task::tau_pt ? 1 : 2};
  Rng rng(5);
  for (const std::int32_t c : classes) {
    p.ids.push_back(p.ids.size());
    p.target.push_back(c);
    p.pt_true.push_back(30 + 10 * rng.uniform());
    p.pt_reco.push_back(30 + 10 * rng.uniform());
    for (std::int64_t k = 0; k < p.columns; ++k) p.outputs.push_back(rng.uniform());
  }
  return p;
}

Names names_of(const Metrics& metrics) {
  Names names;
  for (const Metric& m : metrics) {
    EXPECT_TRUE(std::isfinite(m.value)) << m.name;
    names.push_back(m.name);
  }
  return names;
}

struct Sample {
  Task task;
  std::vector<std::int32_t> classes;
  Names defined;
  std::string reason;  // of the others
};
const Sample kSamples[] = {
    {Task::tau_id, {0, 0, 0}, {}, "no jet is a tau"},
    {Task::tau_id, {1, 1}, {}, "no jet is background"},
    {Task::tau_id, {}, {}, "no jet takes part"},
    {Task::tau_id, {1, 0}, {"misid@80", "auc"}, ""},
    {Task::tau_pt, {}, {}, "no jet takes part"},
    {Task::tau_pt, {0}, {"response"}, "a single jet has no spread"},
    {Task::tau_pt, {0, 0}, {"resolution", "response"}, ""},
    {Task::tau_dm, {}, {}, "no jet takes part"},
    {Task::tag, {}, {}, "no jet takes part"},
    {Task::tag, {1, 1, 1}, {"accuracy"}, ""},
};

// Before: evaluate() threw, or gave an accuracy of 0 and a resolution of 0.
TEST(UndefinedMetrics, AreLeftOutWithTheReason) {
  for (const auto& [task, classes, defined, reason] : kSamples) {
    const Predictions p = answers(task, classes);
    EXPECT_EQ(names_of(evaluate(task, p)), defined) << name(task) << " " << reason;
    EXPECT_EQ(names_of(evaluate_baseline(task, p)), defined) << name(task) << " " << reason;
    const auto undefined = undefined_metrics(task, p);
    EXPECT_EQ(undefined.size() + defined.size(), metric_names(task).size());
    for (const UndefinedMetric& u : undefined) {
      EXPECT_EQ(u.reason, reason);
    }
  }
}

TEST(UndefinedMetrics, HaveNoErrorAndNoDifference) {
  for (const auto& [task, classes, defined, reason] : kSamples) {
    const std::vector<Predictions> p{answers(task, classes)};
    if (defined.size() < metric_names(task).size()) {
      const std::vector<Predictions> both[] = {p, p};
      const auto replicated = replicate(task, both, 1, 50);
      Names names;
      for (const Difference& d : paired_differences(replicated[0], replicated[1])) {
        EXPECT_EQ(d.value, 0) << d.metric;
        names.push_back(d.metric);
      }
      EXPECT_EQ(names, defined) << name(task) << " " << reason;
    }
    for (const std::string& metric : names_of(bootstrap_errors(task, p[0], 1, 50))) {
      EXPECT_NE(std::ranges::find(defined, metric), defined.end()) << metric;
    }
  }
}

/// Training jets, and a validation split whose jets have these lengths and, if asked, no momentum
/// that the features keep.
UnlabelledData data_with(const fs::path& directory, const std::vector<std::int64_t>& lengths,
                         bool kept) {
  JetBlock validation = random_jets(lengths, 500);
  if (!kept) {
    std::ranges::fill(validation.px, 0.0F);
    std::ranges::fill(validation.py, 0.0F);
  }
  write_jets(directory / "train.h5", random_jets(random_lengths(60, 1)));
  write_jets(directory / "val.h5", validation);
  write_manifest(directory,
                 make_manifest(directory, "x", {{"train", {"train.h5"}}, {"val", {"val.h5"}}}));
  const auto split = [&](const char* name) {
    return std::make_shared<const Dataset>(directory, DatasetOptions{.split = name});
  };
  return {.train = {split("train")},
          .validation = {split("val")},
          .features = {.max_constituents = 16}};
}

// No jet, jets without constituents, and constituents that the cuts remove.
struct Nothing {
  std::vector<std::int64_t> lengths;
  bool kept;
};
const Nothing kNothing[] = {{{}, true}, {{0, 0, 0}, true}, {{3, 2}, false}};

// Before: "MSE -nan", "entropy -inf", and NaN in the JSON, with exit code 0.
TEST(UndefinedMeasures, ATokenizerOnNoParticleHasNone) {
  Rng rng(5);
  const Tokenizer tokenizer(tiny::kTokenizer, rng);
  for (const auto& [lengths, kept] : kNothing) {
    const TempDir dir;
    const TokenizerMeasure m = measure_tokenizer(tokenizer, data_with(dir.path(), lengths, kept));
    EXPECT_FALSE(m.reconstruction_mse || m.perplexity || m.token_entropy);
    EXPECT_EQ(m.usage, 0);
  }
  const TempDir dir;
  const TokenizerMeasure m = measure_tokenizer(tokenizer, data_with(dir.path(), {3, 2}, true));
  EXPECT_TRUE(std::isfinite(m.reconstruction_mse.value()));
  EXPECT_GE(m.perplexity.value(), 1);
}

TEST(UndefinedMeasures, APretrainingOnNoJetHasNone) {
  Rng rng(5);
  const Tokenizer tokenizer(tiny::kTokenizer, rng);
  const PretrainModel model(tiny::kBackbone, tiny::kObjective, rng);
  const GptPretrainModel gpt({.vocabulary = 34, .width = 16, .blocks = 1, .heads = 2}, rng);
  for (const auto& [lengths, kept] : kNothing) {
    const TempDir dir;
    const UnlabelledData data = data_with(dir.path(), lengths, kept);
    for (const PretrainMeasure& m : {measure_pretraining(model, tokenizer, data, 1),
                                     measure_pretraining(gpt, tokenizer, data)}) {
      for (const auto& value : {m.ntp, m.mpm, m.loss, m.unigram}) {
        EXPECT_TRUE(!value || std::isfinite(*value)) << *value;
      }
      EXPECT_EQ(m.ntp.has_value(), !kept && lengths.size() == 2) << "a stop is a token";
      EXPECT_FALSE(m.mpm);
    }
  }
}

TEST(UndefinedMeasures, ABestStateNeedsAJetToBeChosenBy) {
  const TempDir dir;
  const UnlabelledData data = data_with(dir.path(), {0, 0}, true);
  const TokenizerJob job{.model = tiny::kTokenizer,
                         .trainer = {.steps = 4},
                         .batch = 16,
                         .selection = {.evaluations = 2}};
  std::int64_t steps = 0;
  try {
    (void)train_tokenizer(job, data, [&](const Progress&) { ++steps; });
    FAIL() << "chosen by nothing";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("validation split"), std::string::npos) << e.message();
  }
  EXPECT_EQ(steps, 0);
}

// Before: a distance of 0 between the truth and itself.
TEST(UndefinedComparison, TheFloorOfOneJetIsNone) {
  const JetBlock one = random_jets({4});
  for (const QuantityComparison& q : compare_generated(one, one, one).quantities) {
    EXPECT_EQ(q.floor.has_value(), q.truth_total > 1) << q.name;
  }
  const GenerationComparison pairs =
      compare_generated(random_jets({2, 2}), random_jets({3, 3}), random_jets({3, 3}));
  EXPECT_EQ(pairs.undefined,
            (std::vector<std::pair<std::string, std::string>>{{"tau21", "no true jet has one"},
                                                              {"tau32", "no true jet has one"}}));
}

TEST(UndefinedComparison, AMomentumThatIsNotFiniteIsAnError) {
  const JetBlock good = random_jets({4, 5});
  for (const float bad : {NAN, INFINITY}) {
    JetBlock spoilt = good;
    spoilt.jet_energy[1] = bad;
    try {
      (void)compare_generated(good, spoilt, good);
      FAIL() << "compared " << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::numeric);
      EXPECT_NE(e.message().find("the reconstructed sample, jet with id 1"), std::string::npos)
          << e.message();
    }
  }
}

// Before: a mean of 0 of no entry at all; null, which the reader refuses, of an infinite one.
TEST(UndefinedColumns, HaveNoStatisticsInTheManifest) {
  const std::pair<std::vector<float>, std::optional<double>> columns[] = {
      {{NAN, NAN, NAN}, {}}, {{INFINITY, NAN, -INFINITY}, {}}, {{2, INFINITY, 4}, 3.0}};
  for (const auto& [values, mean] : columns) {
    const TempDir dir;
    write_jets(dir.path() / "a.h5", random_jets({3, 0, 2}), 65536, "",
               [&](H5File& file) { file.write_column("jet/extra", values, {}); });
    const DatasetManifest made = make_manifest(dir.path(), "x", {{"train", {"a.h5"}}});
    EXPECT_EQ(made.columns.at("jet/extra").mean, mean);
    EXPECT_EQ(made.columns.at("jet/extra").n_missing, mean ? 1U : 3U);
    write_manifest(dir.path(), made);
    EXPECT_EQ(read_manifest(dir.path()), made);
    const auto json = nlohmann::json::parse(read_text(dir.path() / "manifest.json"));
    EXPECT_EQ(json.at("columns").at("jet/extra").contains("max"), mean.has_value());
  }
  const TempDir dir;
  write_jets(dir.path() / "a.h5", random_jets({}));
  const DatasetManifest none = make_manifest(dir.path(), "x", {{"train", {"a.h5"}}});
  EXPECT_FALSE(none.columns.at("pf/px").mean);
}

}  // namespace
}  // namespace tessera
