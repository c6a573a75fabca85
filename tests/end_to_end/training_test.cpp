// The trainings as a user relies on them: the same bits for any number of threads, after kill -9 at
// any moment, and weights that nobody froze in vain.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "core/autograd.h"
#include "core/parallel.h"
#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/finetune_job.h"
#include "train/model_store.h"
#include "train/pretrain_job.h"
#include "train/tokenizer_job.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSteps = 200;

const TokenizerConfig kTokenizer{.width = 16, .blocks = 1, .heads = 2, .codes = 32};
const BackboneConfig kBackbone{.width = 16, .blocks = 1, .heads = 2, .registers = 1};
const PretrainConfig kObjective{.codes = 32, .max_particles = 16};

/// A dataset of random jets of which train, val and test are the same file.
struct Data {
  explicit Data(const fs::path& directory) {
    fs::create_directory(directory);
    write_dataset(directory, {random_lengths(90, 1), random_lengths(61, 2)});
    const auto train = std::make_shared<const Dataset>(directory);
    unlabelled = {.train = {train}, .validation = {train}, .features = {.max_constituents = 16}};
    splits = {train, train, train, unlabelled.features};
  }
  UnlabelledData unlabelled;
  Splits splits;
};

RunFiles files(const fs::path& directory) {
  return {.directory = directory, .checkpoint_every = 7};
}

std::string tokenizer_bits(const Data& data, const RunFiles& where) {
  const TokenizerJob job{.model = kTokenizer,
                         .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
                         .batch = 16,
                         .dead_code_timeout = 5,
                         .seed = 3,
                         .files = where};
  return state_hash(*train_tokenizer(job, data.unlabelled, {}));
}

std::string pretrain_bits(const Data& data, const RunFiles& where) {
  Rng rng(5);
  const Tokenizer tokenizer(kTokenizer, rng);
  const PretrainJob job{.backbone = kBackbone,
                        .objective = kObjective,
                        .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
                        .batch = 8,
                        .seed = 3,
                        .files = where};
  return state_hash(*pretrain(job, tokenizer, data.unlabelled, {}));
}

FinetuneJob finetune_job(Strategy strategy, const RunFiles& where) {
  return {.model = {.task = Task::tag, .backbone = kBackbone, .outputs = 3},
          .strategy = strategy,
          .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
          .batch = 8,
          .train_jets = 100,
          .seed = 3,
          .files = where};
}

std::vector<NamedTensor> backbone_weights() {
  Rng rng(11);
  const Backbone backbone(kBackbone, rng);
  return state(backbone);
}

std::string finetune_bits(const Data& data, const RunFiles& where) {
  return state_hash(
      *finetune(finetune_job(Strategy::lpft, where), data.splits, backbone_weights(), {}).model);
}

using Job = std::string (*)(const Data&, const RunFiles&);

/// In a child process, so that its thread pool is its own; the hash of the final state, or empty if
/// it was killed after `microseconds` (0 = never).
std::string in_child(Job job, const fs::path& data, const fs::path& run, int threads,
                     useconds_t microseconds = 0) {
  const fs::path result = run.string() + ".hash";
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      set_num_threads(threads);
      const Data d(data);
      std::ofstream(result) << job(d, files(run));
      ::_exit(0);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      ::_exit(1);
    }
  }
  if (microseconds > 0) {
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFEXITED(status) ? read_text(result) : "";
}

struct Case {
  const char* name;
  Job job;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Training : public ::testing::TestWithParam<Case> {};

TEST_P(Training, TwoHundredStepsGiveTheSameBitsForAnyNumberOfThreads) {
  const TempDir dir;
  const std::string want = in_child(GetParam().job, dir.path() / "d1", dir.path() / "t1", 1);
  ASSERT_FALSE(want.empty());
  for (const int threads : {2, 3, 8}) {
    const auto name = std::to_string(threads);
    EXPECT_EQ(in_child(GetParam().job, dir.path() / ("d" + name), dir.path() / ("t" + name), threads),
              want)
        << threads;
  }
}

TEST_P(Training, KilledTwentyTimesAtRandomItEndsWithTheSameBitsAndMetrics) {
  const TempDir dir;
  const auto start = std::chrono::steady_clock::now();
  const std::string want = in_child(GetParam().job, dir.path() / "d", dir.path() / "whole", 2);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - start);
  ASSERT_FALSE(want.empty());

  Rng rng(17);
  std::string got;
  int kills = 0;
  while (kills < 20 && got.empty()) {
    const auto patience = static_cast<useconds_t>(rng.below(
        static_cast<std::uint64_t>(whole.count()) / 4 + static_cast<std::uint64_t>(kills) * 2000));
    got = in_child(GetParam().job, dir.path() / "e", dir.path() / "killed", 1 + kills % 3,
                   patience + 1);
    kills += got.empty() ? 1 : 0;
    fs::remove_all(dir.path() / "e");
  }
  RecordProperty("kills", kills);
  EXPECT_GE(kills, 3);
  if (got.empty()) {
    got = in_child(GetParam().job, dir.path() / "e", dir.path() / "killed", 2);
  }
  EXPECT_EQ(got, want);
  EXPECT_EQ(read_text((dir.path() / "killed/metrics.jsonl").string()),
            read_text((dir.path() / "whole/metrics.jsonl").string()));
}

INSTANTIATE_TEST_SUITE_P(Jobs, Training,
                         ::testing::Values(Case{"tokenizer", tokenizer_bits},
                                           Case{"pretrain", pretrain_bits},
                                           Case{"finetune", finetune_bits}),
                         [](const auto& c) { return c.param.name; });

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
    job.trainer.steps = 20;
    return state_hash(*finetune(job, data.splits, weights, {}).model->backbone);
  };
  EXPECT_EQ(after(Strategy::frozen), state_hash(before));
  EXPECT_NE(after(Strategy::random_frozen), state_hash(before));
  for (const Strategy s : {Strategy::scratch, Strategy::lpft, Strategy::delayed, Strategy::full}) {
    EXPECT_NE(after(s), state_hash(before)) << name(s);
  }
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

TEST(Finetuning, ARegressionStartsFromTheMedianOfItsTargets) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  TaskModelConfig config{.task = Task::tau_pt, .backbone = kBackbone};
  Rng rng(1);
  TaskModel model(config, rng);
  model.standardise(std::vector<double>{0.1, 0.2, 0.4, 0.3, 0.5});
  const Predictions p = predict(model, data.splits.train, data.splits.features);
  for (const float y : p.outputs) {
    EXPECT_FLOAT_EQ(y, 0.3F);
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
