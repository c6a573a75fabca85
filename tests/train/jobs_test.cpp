// What the trainings promise besides their bits: they stop when asked, refuse foreign checkpoints,
// freeze what is frozen, and name what went wrong.
#include <gtest/gtest.h>

#include "core/autograd.h"
#include "kernels/vq/vq.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"
#include "train/checkpoint.h"
#include "train/file_io.h"
#include "train/gpt_pretrain_job.h"
#include "train/inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace tiny;

TEST(TrainingStops, WhenAskedWithACheckpointAndGoesOnWithTheSameBits) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const std::string want = tokenizer_bits(data, {});
  RunFiles where = files(dir.path() / "run");
  int asked = 0;
  where.stop = [&] { return ++asked == 33; };
  try {
    tokenizer_bits(data, where);
    FAIL() << "expected Error(requeue)";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::requeue);
    EXPECT_NE(e.message().find("step 33"), std::string::npos) << e.message();
  }
  EXPECT_TRUE(fs::exists(dir.path() / "run/checkpoints/step-000033/MANIFEST.json"));
  EXPECT_EQ(tokenizer_bits(data, where), want);
  EXPECT_TRUE(
      read_text(dir.path() / "run/timing.jsonl").find("{\"step\":200,\"jets_per_second\":") !=
      std::string::npos);
}

TEST(TrainingResume, RefusesACheckpointOfAnotherModel) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  RunFiles where = files(dir.path() / "run");
  where.config_json = "one";
  tokenizer_bits(data, where);
  where.config_json = "two";
  EXPECT_THROW(tokenizer_bits(data, where), Error);
}

TEST(Finetuning, FrozenBackbonesStayAndTrainedOnesMove) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const auto weights = backbone_weights();
  Rng rng(12);
  Backbone before(kBackbone, rng);
  load(before, weights);
  const auto after = [&](Strategy s) {
    FinetuneJob job = finetune_job(s, {});
    job.model.dropout = job.model.backbone.dropout = 0.3F;  // must not touch a frozen backbone
    job.trainer.steps = 50;
    return state_hash(*finetune(job, data.splits, {weights, {}}, {}).model->backbone());
  };
  EXPECT_EQ(after(Strategy::frozen), state_hash(before));
  EXPECT_NE(after(Strategy::random_frozen), state_hash(before));
  for (const Strategy s : {Strategy::scratch, Strategy::lpft, Strategy::delayed, Strategy::full}) {
    EXPECT_NE(after(s), state_hash(before)) << name(s);
  }
}

/// Values of the tensors of `of` under the names of `in`.
std::vector<NamedTensor> same_names(const std::vector<NamedTensor>& of, const Module& in) {
  std::vector<NamedTensor> chosen;
  for (const NamedTensor& t : state(in)) {
    chosen.push_back(*std::ranges::find(of, t.name, &NamedTensor::name));
  }
  return chosen;
}

// Fifty steps of adapters, of which checkpoints and the best state are part; the stored model has
// none left, and differs from the base by what they learned.
TEST(Finetuning, AdaptersLeaveTheBaseUntouchedAndAreMergedAtTheEnd) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const auto weights = backbone_weights();
  FinetuneJob job = finetune_job(Strategy::lora, files(dir.path() / "run"));
  job.trainer.steps = 50;
  const FinetuneResult r = finetune(job, data.splits, {weights, {}}, {});
  Rng rng(1);
  const Backbone plain(kBackbone, rng);
  EXPECT_EQ(state(*r.model->backbone()).size(), state(plain).size());
  EXPECT_NE(state_hash(*r.model->backbone()), state_hash(same_names(weights, plain)));
  CheckpointStore store(dir.path() / "run", CheckpointOptions{});
  const auto kept = tensor_list<NamedTensor>(store.load_latest()->content.model);
  std::vector<NamedTensor> base;
  for (const NamedTensor& t : state(plain)) {
    base.push_back(
        {t.name, std::ranges::find(kept, "backbone." + t.name, &NamedTensor::name)->tensor});
  }
  EXPECT_EQ(state_hash(base), state_hash(same_names(weights, plain)));
}

TEST(Finetuning, AValidationSubsetCountsAmongTheLabels) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  FinetuneJob job = finetune_job(Strategy::scratch, {});
  job.trainer.steps = 4;
  job.validation = Validation::subset;
  job.train_jets = 100;
  std::uint64_t seen = 0;
  EXPECT_EQ(finetune(job, data.splits, {}, [&](const Progress& p) { seen = p.step; }).train_jets,
            100);
  EXPECT_EQ(seen, 4U);
  job.train_jets = 50;  // all of them would be held out
  EXPECT_THROW(finetune(job, data.splits, {}, {}), Error);
}

TEST(Finetuning, StepsOfABudgetAreFiftyEpochsWithinBounds) {
  EXPECT_EQ(step_budget(100, 256), 500);
  EXPECT_EQ(step_budget(10'000, 256), 1953);
  EXPECT_EQ(step_budget(1'000'000, 256), 20'000);
}

TEST(Finetuning, EarlyStoppingEndsARunThatNoLongerImproves) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  FinetuneJob job = finetune_job(Strategy::scratch, {});
  job.trainer.lr = 0;  // nothing ever improves
  job.evaluations = 20;
  job.patience = 2;
  std::uint64_t last = 0;
  finetune(job, data.splits, {}, [&](const Progress& p) { last = p.step; });
  EXPECT_EQ(last, 30U);  // the first evaluation is the best, two more are not
}

// The values of a key in metrics.jsonl, in order.
std::vector<double> logged(const fs::path& run, const std::string& key) {
  const std::string text = read_text(run / "metrics.jsonl"), mark = "\"" + key + "\":";
  std::vector<double> values;
  for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    values.push_back(std::stod(text.substr(at + mark.size())));
  }
  return values;
}

TEST(Selection, ThePretrainingWithTheLowestValidationLossIsKept) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  Rng rng(5);
  const Tokenizer tokenizer(kTokenizer, rng);
  const PretrainJob job{.backbone = kBackbone,
                        .objective = kObjective,
                        .trainer = {.lr = 0.1F, .steps = 40, .warmup = 10},  // far too high
                        .batch = 8,
                        .files = files(dir.path() / "run"),
                        .selection = {.evaluations = 10}};
  const auto model = pretrain(job, tokenizer, data.unlabelled, {});
  const auto losses = logged(dir.path() / "run", "val_loss");
  ASSERT_EQ(losses.size(), 10U);
  const double best = *std::ranges::min_element(losses);
  EXPECT_LT(best, losses.back()) << "a test of nothing";
  EXPECT_EQ(measure_pretraining(*model, tokenizer, data.unlabelled, job.seed).loss, best);
  EXPECT_EQ(logged(dir.path() / "run", "val_mpm").size(), 10U);
}

TEST(Selection, TheTokenizerWithTheLowestValidationLossIsKept) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const TokenizerJob job{.model = kTokenizer,
                         .trainer = {.lr = 1, .steps = 40, .warmup = 40},  // far too high
                         .batch = 16,
                         .dead_code_timeout = 5,
                         .files = files(dir.path() / "run"),
                         .selection = {.evaluations = 10}};
  const auto model = train_tokenizer(job, data.unlabelled, {});
  const auto losses = logged(dir.path() / "run", "val_loss");
  const auto errors = logged(dir.path() / "run", "val_reconstruction");
  ASSERT_EQ(losses.size(), 10U);
  const auto best = std::ranges::min_element(losses) - losses.begin();
  EXPECT_LT(best, 9) << "a test of nothing";
  const double want = errors[static_cast<std::size_t>(best)];
  EXPECT_NEAR(measure_tokenizer(*model, data.unlabelled).reconstruction_mse.value(), want, 1e-5 * want);
}

TEST(Selection, APretrainingThatNoLongerImprovesEndsEarly) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  Rng rng(5);
  const Tokenizer tokenizer(kTokenizer, rng);
  PretrainJob job{.backbone = kBackbone,
                  .objective = kObjective,
                  .trainer = {.lr = 0, .steps = 40},  // nothing ever improves
                  .batch = 8,
                  .selection = {.evaluations = 20, .patience = 2}};
  std::uint64_t last = 0;
  const Observer observe = [&](const Progress& p) { last = p.step; };
  (void)pretrain(job, tokenizer, data.unlabelled, observe);
  EXPECT_EQ(last, 6U);  // the first evaluation is the best, two more are not
  const GptPretrainJob gpt{.backbone = {.vocabulary = 34, .width = 16, .blocks = 1, .heads = 2},
                           .trainer = job.trainer,
                           .batch = 8,
                           .selection = job.selection};
  (void)pretrain(gpt, tokenizer, data.unlabelled, observe);
  EXPECT_EQ(last, 6U);
  job.selection = {.patience = 2};
  EXPECT_THROW((void)pretrain(job, tokenizer, data.unlabelled, {}), Error);
}

TEST(Finetuning, ARegressionStartsFromTheMedianOfItsTargets) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  TaskModelConfig config{.task = Task::tau_pt, .backbone = kBackbone};
  Rng rng(1);
  TaskModel model(config, rng);
  model.standardise(std::vector<double>{0.1, 0.2, 0.4, 0.3, 0.5});
  const Predictions p = predict_labelled(model, data.splits.train, data.splits.features);
  for (const float y : p.outputs) {
    EXPECT_FLOAT_EQ(y, 0.3F);
  }
}

std::vector<Progress> observed(const auto& train) {
  std::vector<Progress> steps;
  train([&](const Progress& p) { steps.push_back(p); });
  return steps;
}

double value(const Progress& p, const std::string& name) {
  const auto found = std::ranges::find(p.values, name, &Metric::name);
  EXPECT_NE(found, p.values.end()) << name;
  return found == p.values.end() ? NAN : found->value;
}

// k-means sets the codebook after the first forward: its loss is that of the random one.
TEST(TokenizerTraining, TheFirstStepUsesTheRandomCodebook) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const TokenizerJob job{.model = kTokenizer, .trainer = {.steps = 1}, .batch = 16, .seed = 3};
  const auto steps =
      observed([&](const Observer& observe) { train_tokenizer(job, data.unlabelled, observe); });
  Rng init = Rng(job.seed).fork("tokenizer");
  const Tokenizer untrained(kTokenizer, init);
  const Batch batch = MixedBatches(data.unlabelled, job.batch, job.seed).next(0);
  const TokenizerOutput out = untrained(core_features(batch), segments_of(batch));
  EXPECT_EQ(value(steps[0], "quantiser"), static_cast<double>(out.quantizer_loss.item()));
}

TEST(TokenizerTraining, AReferenceTrainingLogsBothLosses) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  TokenizerJob job{.model = kTokenizer, .trainer = {.steps = 3}, .batch = 16, .seed = 3};
  const auto clean =
      observed([&](const Observer& observe) { train_tokenizer(job, data.unlabelled, observe); });
  job.compat = Compat::reference;
  const auto steps =
      observed([&](const Observer& observe) { train_tokenizer(job, data.unlabelled, observe); });
  EXPECT_EQ(value(steps[0], "clean_loss"), value(clean[0], "loss")) << "equal weights so far";
  EXPECT_NE(value(steps[0], "loss"), value(steps[0], "clean_loss"));
}

TEST(TokenizerTraining, DropoutActsWhileTrainingAndResumesWithTheSameBits) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  TokenizerConfig model = kTokenizer;
  model.dropout = 0.3F;
  TokenizerJob job{.model = model, .trainer = {.steps = 40, .warmup = 5}, .batch = 16, .seed = 3};
  const std::string whole = state_hash(*train_tokenizer(job, data.unlabelled, {}));
  job.files = files(dir.path() / "run");
  int asked = 0;
  job.files.stop = [&] { return ++asked == 17; };
  EXPECT_THROW(train_tokenizer(job, data.unlabelled, {}), Error);
  EXPECT_EQ(state_hash(*train_tokenizer(job, data.unlabelled, {})), whole);
  job.model = kTokenizer;
  job.files = {};
  EXPECT_NE(state_hash(*train_tokenizer(job, data.unlabelled, {})), whole);
}

TEST(GptPretraining, LearnsAndLogsTheDilutedLossBesideTheCleanOne) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  Rng rng(5);
  const Tokenizer tokenizer(kTokenizer, rng);
  GptPretrainJob job{.backbone = {.vocabulary = 34, .width = 16, .blocks = 1, .heads = 2},
                     .trainer = {.lr = 1e-2F, .steps = 60, .warmup = 5},
                     .batch = 16,
                     .seed = 3};
  const auto train = [&](const Observer& observe) {
    pretrain(job, tokenizer, data.unlabelled, observe);
  };
  const auto clean = observed(train);
  EXPECT_EQ(value(clean[0], "loss"), value(clean[0], "ntp"));
  EXPECT_LT(value(clean.back(), "ntp"), value(clean[0], "ntp") - 0.3);
  job.compat = Compat::reference;
  const auto diluted = observed(train);
  // slots = 16 = the particle limit; the longest jets lose their stop, the others get pads
  EXPECT_NE(value(diluted[0], "loss"), value(diluted[0], "ntp"));
  EXPECT_NEAR(value(diluted[0], "ntp"), value(clean[0], "ntp"), 0.2) << "equal weights so far";
  job.backbone.vocabulary = 33;
  EXPECT_THROW(pretrain(job, tokenizer, data.unlabelled, {}), Error);
}

TEST(Omnijet, TokensOfAFrozenTokenizerFeedTheHeadAndStartAndStopCount) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  Rng rng(5);
  Tokenizer tokenizer(kTokenizer, rng);
  const GptConfig gpt{.vocabulary = 34, .width = 16, .blocks = 1, .heads = 2};
  const GptBackbone backbone(gpt, rng);
  FinetuneJob job = finetune_job(Strategy::full, {});
  job.model.method = Method::omnijet;
  job.model.gpt = gpt;
  job.model.tokenizer = kTokenizer;
  job.model.head.kind = HeadKind::sum;
  job.trainer.steps = 20;
  const FinetuneResult r = finetune(job, data.splits, {state(backbone), state(tokenizer)}, {});
  EXPECT_EQ(state_hash(*r.model->tokenizer()), state_hash(tokenizer));
  EXPECT_NE(state_hash(*r.model->backbone()), state_hash(backbone));
}

// A tokenizer's codes must be made the same way by whoever loads it.
TEST(ModelStore, ATokenizerKeepsTheDistanceOfItsCodesAndOldCardsAreF32) {
  const TempDir dir;
  TokenizerConfig config = kTokenizer;
  config.distance = VqDistance::f16;
  Rng rng(9);
  const Tokenizer model(config, rng);
  const std::string card = tokenizer_card(config, {}), line = "\"distance\": \"f16\",";
  const auto stored = [&](const std::string& now) {
    std::string text = card;
    save_model(dir.path() / "m", text.replace(text.find(line), line.size(), now), model);
    return load_tokenizer(dir.path() / "m").model;
  };
  const auto same = stored(line), old = stored("");
  EXPECT_EQ(same->config.distance, VqDistance::f16);
  EXPECT_EQ(old->config.distance, VqDistance::f32);
  EXPECT_EQ(tokenizer_hash(*old), state_hash(model));
  EXPECT_EQ(tokenizer_hash(*same), state_hash(model) + " by f16");
  for (const char* wrong : {"\"distance\": \"f64\",", "\"distance\": 16,"}) {
    EXPECT_THROW(stored(wrong), Error) << wrong;
  }
}

TEST(TokenizerTraining, CodesAreChosenByTheConfiguredDistance) {
  TokenizerConfig config = kTokenizer;
  config.codes = 2048;
  Rng rng(9);
  Tokenizer model(config, rng);
  const Tensor x = normal_init({600, 3}, 1.0F, rng);
  const Segments one({0, 600});
  const Tensor z = model.encode_latent(x, one), e = model.vq.codebook;
  const auto exact = vq_assign(z, e).to_vector<std::int32_t>();
  const auto halfs = vq_assign(z, e, VqDistance::f16).to_vector<std::int32_t>();
  ASSERT_NE(halfs, exact);
  const auto of_training = [&] { return model(x, one).codes.to_vector<std::int32_t>(); };
  const auto of_encode = [&] { return model.encode(x, one).to_vector<std::int32_t>(); };
  EXPECT_EQ(of_training(), exact);
  EXPECT_EQ(of_encode(), exact);
  model.config.distance = VqDistance::f16;
  EXPECT_EQ(of_training(), halfs);
  EXPECT_EQ(of_encode(), halfs);
}

TEST(ModelStore, EveryKindOfTaskModelComesBackEqual) {
  const TempDir dir;
  const GptConfig gpt{.vocabulary = 34, .width = 16, .blocks = 1, .heads = 2};
  const auto expect_equal = [&](const TaskModelConfig& config) {
    Rng rng(9);
    const TaskModel model(config, rng);
    const FeatureConfig features{.max_constituents = 16};
    save_model(dir.path() / "model", task_card(config, features), model);
    EXPECT_EQ(state_hash(*load_task_model(dir.path() / "model").model), state_hash(model))
        << name(config.method) << " " << name(config.head.kind);
  };
  for (const Method method :
       {Method::tessera, Method::omnijet, Method::deepsets, Method::pfn, Method::part}) {
    for (const HeadKind head :
         {HeadKind::class_attention, HeadKind::sum, HeadKind::class_attention_ref}) {
      expect_equal({.task = Task::tag,
                    .method = method,
                    .backbone = kBackbone,
                    .gpt = gpt,
                    .tokenizer = kTokenizer,
                    .head = {.kind = head, .blocks = 2, .particle_blocks = 1},
                    .outputs = 3});
    }
  }
  EXPECT_THROW(load_pretrained(dir.path() / "model"), Error);
}

// Finite weights whose products are not.
TEST(Predictions, AnAnswerThatIsNotFiniteStopsWithTheIdOfItsJet) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  for (const Method method : {Method::tessera, Method::deepsets, Method::pfn}) {
    Rng rng(9);
    const TaskModel model(
        {.task = Task::tag, .method = method, .backbone = kBackbone, .outputs = 3}, rng);
    for (const NamedTensor& p : model.named_parameters()) {
      fill(p.tensor, 3e38F);
    }
    try {
      (void)predict_labelled(model, data.splits.test, data.splits.features);
      ADD_FAILURE() << name(method) << " answered";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::numeric);
      EXPECT_NE(e.message().find("(id "), std::string::npos) << e.message();
    }
  }
}

TEST(UnlabelledJets, MayBeOfSomeClassesOnly) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  UnlabelledData some = data.unlabelled;
  const Dataset& set = *some.train[0];
  some.classes = {set.classes()[1]};
  const auto jets = unlabelled_jets(some, set);
  const auto labels = set.class_labels();
  EXPECT_FALSE(jets.empty());
  EXPECT_LT(jets.size(), unlabelled_jets(data.unlabelled, set).size());
  for (const std::uint64_t jet : jets) {
    EXPECT_EQ(labels[jet], 1);
  }
  some.classes = {"no such class"};
  EXPECT_THROW(unlabelled_jets(some, set), Error);
}

TEST(Trainer, DecayActsOnMatricesOrOnEverything) {
  for (const Decay decay : {Decay::matrices, Decay::everything}) {
    Tensor matrix = Tensor::full({2, 2}, 1.0F), bias = Tensor::full({2}, 1.0F);
    matrix.set_requires_grad(true);
    bias.set_requires_grad(true);
    Trainer trainer({{{{"fc.weight", matrix}, {"fc.bias", bias}}}},
                    {.lr = 0.1F, .weight_decay = 0.5F, .steps = 10, .warmup = 0, .decay = decay});
    trainer.step([&] {
      return differentiable(Tensor::scalar(1), {matrix, bias}, [](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::zeros({2, 2}), Tensor::zeros({2})};
      });
    });
    EXPECT_FLOAT_EQ(matrix.to_vector<float>()[0], 0.95F);
    EXPECT_FLOAT_EQ(bias.to_vector<float>()[0], decay == Decay::everything ? 0.95F : 1.0F);
  }
}

TEST(Trainer, NamesTheParameterOfANonFiniteGradientAndLeavesTheWeights) {
  Tensor good = Tensor::full({2}, 1.0F), bad = Tensor::full({2}, 1.0F);
  good.set_requires_grad(true);
  bad.set_requires_grad(true);
  Trainer trainer({{{{"good", good}, {"bad", bad}}}}, {.steps = 1});
  const auto loss = [&] {
    return differentiable(Tensor::scalar(1), {good, bad}, [](std::span<const Tensor>) {
      return std::vector<Tensor>{Tensor::full({2}, 1.0F), Tensor::full({2}, INFINITY)};
    });
  };
  try {
    trainer.step(loss);
    FAIL() << "expected Error(numeric)";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
    EXPECT_NE(e.message().find("'bad'"), std::string::npos) << e.message();
  }
  EXPECT_EQ(good.to_vector<float>(), (std::vector<float>{1, 1}));
}

TEST(Trainer, ForgetsTheMomentumOfReplacedRows) {
  Tensor w = Tensor::full({3, 2}, 1.0F);
  w.set_requires_grad(true);
  Trainer trainer({{{{"w", w}}}}, {.lr = 0.1F, .weight_decay = 0, .steps = 100, .warmup = 0});
  const auto loss = [&](float g) {
    return [&, g] {
      return differentiable(Tensor::scalar(1), {w}, [g](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::full({3, 2}, g)};
      });
    };
  };
  trainer.step(loss(1));
  const auto before = w.to_vector<float>();
  trainer.forget(w, std::vector<std::int64_t>{1});
  trainer.step(loss(0));  // without a gradient only momentum moves a weight
  const auto after = w.to_vector<float>();
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(after[i] == before[i], i / 2 == 1) << i;
  }
}

}  // namespace
}  // namespace tessera
