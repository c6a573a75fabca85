// Weighted jets: what a dataset makes of the column, losses, metrics, subsets, and who refuses
// them.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/autograd.h"
#include "core/check.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"
#include "train/metrics.h"
#include "train/metrics/paired.h"
#include "train/predict.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace tiny;

/// A dataset of one train file for each list of weights; an empty list: no column.
void write_weighted(const fs::path& directory, const std::vector<std::vector<float>>& files,
                    std::size_t jets = 6) {
  fs::create_directories(directory);
  std::vector<std::string> names;
  for (std::size_t f = 0; f < files.size(); ++f) {
    JetBlock b = random_jets(random_lengths(jets, f + 1, 12), f * jets);
    b.weight = files[f];
    names.push_back(fmt::format("train_{}.h5", f));
    write_jets(directory / names.back(), b);
  }
  write_manifest(directory, make_manifest(directory, "test", {{"train", names}}));
}

std::string message_of(const std::function<void()>& act, ErrorKind kind) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.message();
    return e.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(WeightedDataset, HoldsTheColumnOfEachFileAndOneWhereThereIsNone) {
  const TempDir d;
  const std::vector<float> w{1, 2, 0.5F, 0, 3, 1};
  write_weighted(d.path(), {{}, w, {}});
  const Dataset data(d.path());
  ASSERT_EQ(data.weights().size(), 18U);
  EXPECT_EQ(data.weights()[3], 1);
  EXPECT_TRUE(std::equal(w.begin(), w.end(), data.weights().begin() + 6));
  EXPECT_EQ(data.weights()[17], 1);
  const std::vector<std::uint64_t> jets{7, 0, 8};
  EXPECT_EQ(make_batch(data, {}, jets).weights, (std::vector<float>{2, 1, 0.5F}));
  const Dataset ignored(d.path(), {.weights = Weights::ignore});
  EXPECT_FALSE(ignored.weighted());
  EXPECT_TRUE(ignored.weights_ignored());
  EXPECT_TRUE(make_batch(ignored, {}, jets).weights.empty());
}

TEST(WeightedDataset, WeightsThatAreAllOneAreNone) {
  const TempDir d;
  write_weighted(d.path(), {{1, 1, 1, 1, 1, 1}, {}});
  EXPECT_FALSE(Dataset(d.path()).weighted());
  EXPECT_FALSE(Dataset(d.path(), {.weights = Weights::ignore}).weights_ignored());
}

TEST(WeightedDataset, WeightsWithoutASumAreRefusedAndNegativeOnesNamedForTrainings) {
  const TempDir d;
  const std::vector<float> nlo{1, 2, -0.5F, 0, 3, 1};
  write_weighted(d.path() / "nlo", {{}, nlo});
  const Dataset data(d.path() / "nlo");
  const std::string said = message_of([&] { data.check_no_negative_weight(); }, ErrorKind::data);
  EXPECT_NE(said.find("train_1.h5: dataset 'weight', row 2"), std::string::npos) << said;
  EXPECT_NE(said.find("data.weights=absolute"), std::string::npos) << said;
  const Dataset absolute(d.path() / "nlo", {.weights = Weights::absolute});
  EXPECT_EQ(absolute.weights()[8], 0.5F);
  EXPECT_NO_THROW(absolute.check_no_negative_weight());

  write_weighted(d.path() / "zero", {{0, 0, 0, 0, 0, 0}});
  write_weighted(d.path() / "negative", {{1, -1, -1, 0, 0, 0}});
  for (const char* set : {"zero", "negative"}) {
    message_of([&] { Dataset(d.path() / set); }, ErrorKind::data);
    EXPECT_NO_THROW(Dataset(d.path() / set, {.weights = Weights::ignore})) << set;
  }
  for (const float bad : {NAN, INFINITY}) {
    const std::string text = message_of(
        [&] {
          write_weighted(d.path() / "bad", {{1, 1, bad, 1, 1, 1}});
        },
        ErrorKind::data);
    EXPECT_NE(text.find("dataset 'weight', row 2"), std::string::npos) << text;
  }
}

TEST(WeightedDataset, TheManifestSumsThemByClass) {
  const TempDir d;
  write_weighted(d.path(), {{1, 2, 3, 4, 5, 6}, {}});
  const DatasetManifest manifest = read_manifest(d.path());
  const auto& files = manifest.splits.at("train");
  const WeightSums qcd = files[0].class_weights.at("QCD");  // labels are id % 3
  EXPECT_EQ(qcd.sum, 5);
  EXPECT_EQ(qcd.squares, 17);
  EXPECT_TRUE(files[1].class_weights.empty());
  EXPECT_EQ(manifest, make_manifest(d.path(), "test", {{"train", {"train_0.h5", "train_1.h5"}}}));
  EXPECT_EQ(read_text(d.path() / "manifest.json").find("class_weights"),
            read_text(d.path() / "manifest.json").rfind("class_weights"))
      << "a file without weights is described as ever";
}

TEST(WeightedSubset, ClassesKeepTheirShareOfTheWeights) {
  const std::size_t n = 600;
  std::vector<std::uint64_t> all(n), ids(n);
  std::iota(all.begin(), all.end(), 0U);
  std::vector<int> labels(n);
  std::vector<double> weights(n);
  for (std::size_t j = 0; j < n; ++j) {
    ids[j] = 1000 + j;
    labels[j] = j % 6 == 0 ? 1 : 0;
    weights[j] = labels[j] == 1 ? 0.01 : 5;  // a rare signal among much background
  }
  const auto share = [&](const std::vector<std::uint64_t>& jets) {
    double signal = 0, sum = 0;
    for (const std::uint64_t j : jets) {
      signal += labels[j] == 1 ? weights[j] : 0;
      sum += weights[j];
    }
    return signal / sum;
  };
  for (const std::uint64_t count : {60, 150, 300}) {
    EXPECT_NEAR(share(nested_subset(all, ids, labels, count, 4)), share(all), 1e-12) << count;
  }
}

// Against the definition sum w l / sum w, with per-jet losses out of batches of one jet.
TEST(WeightedLosses, AreMeansByWeightForEveryTaskAndDevice) {
  const TempDir d;
  write_weighted(d.path(), {{1, 2, 0.5F, 0, 3, 0.25F}});
  const Dataset data(d.path());
  std::vector<std::uint64_t> jets{1, 2, 3, 4, 5};
  for (const Task task : kAllTasks) {
    const std::int64_t columns = task == Task::tau_pt ? 1 : 6;
    const std::int64_t outputs = task == Task::tau_id ? 2 : columns;
    Batch batch = make_batch(data, {}, jets);
    for (auto& mode : batch.decay_modes) mode = 1;
    const Tensor y = Tensor::from(
        [&] {
          Rng rng(3);
          std::vector<float> v(static_cast<std::size_t>(5 * outputs));
          for (float& x : v) x = rng.uniform(-1, 1);
          return v;
        }(),
        {5, outputs});
    const auto each = jet_losses(task, y, batch).to_vector<float>();
    double want = 0, sum = 0;
    for (std::size_t j = 0; j < each.size(); ++j) {
      const auto w = static_cast<double>(batch.weights[j]);
      want += w * static_cast<double>(each[j]);
      sum += w;
    }
    EXPECT_NEAR(summed_loss(task, y, batch), want, 1e-9 * std::abs(want)) << name(task);
    for (const Device device : devices()) {
      Tensor on = y.to(device).clone().detach();
      on.set_requires_grad(true);
      const Tensor loss = task_loss(task, on, batch);
      EXPECT_NEAR(static_cast<double>(loss.item()), want / sum, 2e-6 * (1 + want / sum))
          << name(task) << " on " << name(device.type);
      backward(loss);
      const auto slopes = on.grad().to_vector<float>();
      for (std::int64_t c = 0; c < outputs; ++c) {
        EXPECT_EQ(slopes[static_cast<std::size_t>(2 * outputs + c)], 0)
            << "a jet of weight 0 teaches nothing: " << name(task);
      }
      batch.weights.assign(5, 0.0F);
      EXPECT_EQ(task_loss(task, on, batch).item(), 0) << "not NaN";
      batch = make_batch(data, {}, jets);
      for (auto& mode : batch.decay_modes) mode = 1;
    }
  }
}

TEST(WeightedLosses, OfEqualWeightsAreTheMean) {
  const TempDir d;
  write_weighted(d.path(), {{2, 2, 2, 2, 2, 2}});
  const Dataset data(d.path()), plain(d.path(), {.weights = Weights::ignore});
  const std::vector<std::uint64_t> jets{0, 1, 2, 3};
  const Tensor y = Tensor::full({4, 3}, 0.5F);
  EXPECT_FLOAT_EQ(task_loss(Task::tag, y, make_batch(data, {}, jets)).item(),
                  task_loss(Task::tag, y, make_batch(plain, {}, jets)).item());
}

TEST(WeightedQuantiles, OfWeightOneAreTheOldOnesBitForBit) {
  Rng rng(2);
  for (const std::size_t n : {1U, 2U, 3U, 50U, 1001U}) {
    std::vector<double> v(n);
    for (double& x : v) x = std::round(100 * rng.normal()) / 10;
    const auto sorted = sorted_copy(v);
    RisingSample sample;
    for (const double x : sorted) sample.add(x);
    for (const double q : {0.0, 0.16, 0.25, 0.5, 0.75, 0.84, 0.999, 1.0}) {
      EXPECT_EQ(sample.quantile(q), sorted_quantile(sorted, q)) << n << " " << q;
      EXPECT_EQ(quantile(v, q, std::vector<double>(n, 1.0)), quantile(v, q)) << n << " " << q;
    }
  }
}

TEST(WeightedQuantiles, RepeatScaleAndPassOverAsWeightsDo) {
  const std::vector<double> v{4, 1, 3, 2}, w{0.5, 1, 2, 0};
  // in order: 1 (weight 1), 3 (2), 4 (0.5); middles at 0.5, 2, 3.25
  EXPECT_NEAR(quantile(v, 0.5, w), 1 + 2 * (0.5 * 2.75) / 1.5, 1e-12);
  std::vector<double> scaled = w;
  for (double& x : scaled) x *= 1e-7;
  for (const double q : {0.1, 0.5, 0.9}) {
    EXPECT_NEAR(quantile(v, q, scaled), quantile(v, q, w), 1e-9);
  }
  // negative weights: still between the smallest and the largest value, and rising
  Rng rng(5);
  std::vector<double> many(4000), nlo(4000);
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i] = rng.normal();
    nlo[i] = rng.uniform() < 0.2F ? -1 : 1;
  }
  double before = -10;
  for (const double q : {0.05, 0.25, 0.5, 0.75, 0.95}) {
    const double now = quantile(many, q, nlo);
    EXPECT_GT(now, before);
    before = now;
  }
  EXPECT_NEAR(quantile(many, 0.5, nlo), 0, 0.1);
  EXPECT_NEAR(quantile(many, 0.75, nlo) - quantile(many, 0.25, nlo), 1.349, 0.12);
  EXPECT_TRUE(std::isnan(RisingSample().quantile(0.5)));
}

/// Answers with weights, and the same in which jet j stands there as often as its whole weight.
struct Weighted {
  Predictions weighted, repeated;
};
Weighted weighted_answers(Task task, std::size_t n) {
  Weighted out;
  const auto c = static_cast<std::size_t>(task == Task::tau_pt ? 1 : task == Task::tau_id ? 2 : 3);
  out.weighted.columns = out.repeated.columns = static_cast<std::int64_t>(c);
  Rng rng(9);
  for (std::size_t j = 0; j < n; ++j) {
    const auto target = task == Task::tau_pt ? 0 : static_cast<std::int32_t>(rng.below(2));
    const double pt = 20 + 100 * rng.uniform();
    std::vector<float> row(c);
    for (std::size_t k = 0; k < c; ++k) {
      row[k] = static_cast<float>(0.3 * rng.normal() + (static_cast<int>(k) == target ? 0.2 : 0));
    }
    const auto weight = rng.below(4);
    const auto add = [&](Predictions& p) {
      p.outputs.insert(p.outputs.end(), row.begin(), row.end());
      p.ids.push_back(j), p.target.push_back(target);
      p.pt_true.push_back(pt), p.pt_reco.push_back(pt * 1.1);
    };
    add(out.weighted);
    out.weighted.weights.push_back(static_cast<double>(weight));
    for (std::uint64_t k = 0; k < weight; ++k) add(out.repeated);
  }
  return out;
}

TEST(WeightedMetrics, OfWholeWeightsAreThoseOfRepeatedJets) {
  for (const Task task : kAllTasks) {
    const Weighted a = weighted_answers(task, 3000);
    const Metrics got = evaluate(task, a.weighted), want = evaluate(task, a.repeated);
    const Metrics floor = evaluate_baseline(task, a.weighted),
                  want_floor = evaluate_baseline(task, a.repeated);
    // a quantile lies between two jets: a jet of weight 3 is one place, three jets are three
    const double room = task == Task::tau_pt ? 2e-3 : 1e-12;
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i].value, want[i].value, room) << got[i].name;
      EXPECT_NEAR(floor[i].value, want_floor[i].value, room) << floor[i].name;
    }
    Predictions unweighted = a.weighted;
    unweighted.weights.clear();
    EXPECT_NE(evaluate(task, unweighted)[0].value, got[0].value) << "weights matter";
  }
}

TEST(WeightedMetrics, OfAReplicaAreThoseOfItsJets) {
  for (const Task task : kAllTasks) {
    Weighted a = weighted_answers(task, 400);
    Predictions& p = a.weighted;
    Rng rng(4);
    for (double& w : p.weights) w = 0.1 + rng.uniform();
    const MetricSample sample(task, p);
    const Metrics ones = sample(std::vector<double>(400, 1.0)), all = evaluate(task, p);
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(ones[i].value, all[i].value, 1e-12);
    const auto copies = poisson_weights(5, 0, 400);
    Predictions drawn{.columns = p.columns};
    const auto c = static_cast<std::size_t>(p.columns);
    for (std::size_t j = 0; j < 400; ++j) {
      for (int k = 0; k < static_cast<int>(copies[j]); ++k) {
        const auto row = p.outputs.begin() + static_cast<long>(j * c);
        drawn.outputs.insert(drawn.outputs.end(), row, row + static_cast<long>(c));
        drawn.ids.push_back(p.ids[j]), drawn.target.push_back(p.target[j]);
        drawn.pt_reco.push_back(p.pt_reco[j]), drawn.pt_true.push_back(p.pt_true[j]);
        drawn.weights.push_back(p.weights[j]);
      }
    }
    const Metrics got = sample(copies), want = evaluate(task, drawn);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i].value, want[i].value, 1e-12) << got[i].name;
    }
    std::vector<Predictions> one{p}, other{p};
    other[0].weights[7] += 1;
    const std::vector<Predictions> both[] = {one, other};
    EXPECT_THROW(replicate(task, both, 1, 2), Error) << "pairs are of the same weights";
  }
}

TEST(WeightedMetrics, ErrorsGrowWithTheSpreadOfTheWeights) {
  Weighted a = weighted_answers(Task::tag, 2000);
  Predictions p = a.weighted;
  std::ranges::fill(p.weights, 3.0);
  const double equal = bootstrap_errors(Task::tag, p, 1).at(0).value;
  for (std::size_t j = 0; j < p.weights.size(); ++j) p.weights[j] = j % 10 == 0 ? 9.1 : 0.1;
  const double spread = bootstrap_errors(Task::tag, p, 1).at(0).value;
  const double n = effective_number(p.weights, p.weights.size());
  EXPECT_NEAR(n, 2000 * 1.0 / (0.1 * 9.1 * 9.1 + 0.9 * 0.01), 1);
  EXPECT_NEAR(spread / equal, std::sqrt(2000 / n), 0.2 * std::sqrt(2000 / n));
}

TEST(WeightedMetrics, CurvesMatricesAndBinsAreSums) {
  const Weighted a = weighted_answers(Task::tau_id, 500);
  const TwoSamples s = identification_scores(a.weighted), r = identification_scores(a.repeated);
  const auto got = roc_curve(s.signal, s.background, s.signal_weights, s.background_weights);
  for (const RocPoint& p : roc_curve(r.signal, r.background)) {
    const auto same = std::ranges::find(got, p.cut, &RocPoint::cut);
    ASSERT_NE(same, got.end());
    EXPECT_NEAR(same->signal_efficiency, p.signal_efficiency, 1e-12);
    EXPECT_NEAR(same->background_efficiency, p.background_efficiency, 1e-12);
  }
  const std::vector<int> labels{0, 1, 1}, predicted{0, 0, 1};
  EXPECT_EQ(confusion_matrix(predicted, labels, 2, std::vector<double>{2, 0.5, -1}),
            (std::vector<double>{2, 0, 0.5, -1}));
  const std::vector<double> truth{10, 20, 30}, guess{11, 19, 33}, w{1, 3, 0};
  const Resolution got_r = resolution(guess, truth, w);
  EXPECT_NEAR(got_r.mae, 1.0, 1e-12);
  EXPECT_NEAR(got_r.mre, (0.1 + 3 * 0.05) / 4, 1e-12);
  EXPECT_NEAR(got_r.n, 1.6, 1e-12) << "the effective number";
  const BinnedResolution bins = resolution_in_bins(guess, truth, {5, 25, 35}, w);
  EXPECT_NEAR(bins.bins[0].mae, 1.0, 1e-12);
  EXPECT_EQ(bins.bins[1].n, 0) << "no weight, no jets";
}

FinetuneResult tuned(const fs::path& directory, Weights weights) {
  const auto data = std::make_shared<const Dataset>(directory, DatasetOptions{.weights = weights});
  FinetuneJob job = finetune_job(Strategy::scratch, {});
  job.trainer.steps = 20;
  job.evaluations = 1;
  return finetune(job, {data, data, data, {.max_constituents = 16}}, {}, {});
}

TEST(WeightedFinetuning, RefusesNegativeWeightsAndLearnsByTheOthers) {
  const TempDir d;
  std::vector<float> w(60);
  for (std::size_t j = 0; j < w.size(); ++j) w[j] = j % 3 == 0 ? -5.0F : 10.0F;
  write_weighted(d.path(), {w}, w.size());
  EXPECT_NE(message_of([&] { tuned(d.path(), Weights::use); }, ErrorKind::data).find("row 0"),
            std::string::npos);
  const FinetuneResult absolute = tuned(d.path(), Weights::absolute);
  const FinetuneResult ignored = tuned(d.path(), Weights::ignore);
  EXPECT_NE(absolute.validation_loss, ignored.validation_loss);
  // the loss of an answer is that of its jets by weight, negative ones too
  const auto data = std::make_shared<const Dataset>(d.path());
  const Predictions p = predict_labelled(*ignored.model, data, {.max_constituents = 16});
  double sum = 0, total = 0;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const auto row = std::span(p.outputs).subspan(3 * j, 3);
    double z = 0;
    for (const float y : row) z += std::exp(static_cast<double>(y));
    const auto y = static_cast<double>(row[static_cast<std::size_t>(p.target[j])]);
    sum += p.weights[j] * (std::log(z) - y);
    total += p.weights[j];
  }
  EXPECT_NEAR(p.loss, sum / total, 1e-5 * std::abs(sum / total));
}

TEST(WeightedPretraining, IsRefusedUnlessWeightsAreIgnored) {
  const TempDir d;
  write_weighted(d.path(), {{1, 2, 3, 4, 5, 6}});
  const auto train = [&](Weights weights, auto step) {
    const auto set = std::make_shared<const Dataset>(d.path(), DatasetOptions{.weights = weights});
    step(UnlabelledData{.train = {set}, .validation = {set}, .features = {.max_constituents = 16}});
  };
  const auto tokenizer = [](const UnlabelledData& data) {
    (void)train_tokenizer(
        {.model = kTokenizer, .trainer = {.steps = 2}, .batch = 4, .dead_code_timeout = 5}, data,
        {});
  };
  const auto backbone = [](const UnlabelledData& data) {
    Rng rng(5);
    (void)pretrain(
        {.backbone = kBackbone, .objective = kObjective, .trainer = {.steps = 2}, .batch = 4},
        Tokenizer(kTokenizer, rng), data, {});
  };
  for (const auto& job : {std::function<void(const UnlabelledData&)>(tokenizer),
                          std::function<void(const UnlabelledData&)>(backbone)}) {
    const std::string said = message_of([&] { train(Weights::use, job); }, ErrorKind::usage);
    EXPECT_NE(said.find("data.weights=ignore"), std::string::npos) << said;
    EXPECT_NO_THROW(train(Weights::ignore, job));
  }
}

}  // namespace
}  // namespace tessera
