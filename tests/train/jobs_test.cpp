// What the trainings promise besides their bits: they stop when asked, refuse foreign checkpoints,
// freeze what is frozen, and name what went wrong.
#include <gtest/gtest.h>

#include "core/autograd.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"
#include "train/file_io.h"

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
