// NaN and infinities in the loss and in the gradient of each parameter: caught in the same step,
// weights and moments untouched, the tensor named, no such checkpoint.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "core/autograd.h"
#include "kernels/matmul/matmul.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"
#include "train/training_run.h"

namespace tessera {
namespace {

using namespace tiny;

constexpr float kBad[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()};

// Zero, with a gradient that is `value` in one element of `parameter`.
Tensor poisoned_zero(const Tensor& parameter, std::int64_t element, float value) {
  return differentiable(Tensor::scalar(0), {parameter}, [=](std::span<const Tensor>) {
    Tensor g = Tensor::zeros(parameter.shape());
    g.span<float>()[static_cast<std::size_t>(element)] = value;
    return std::vector<Tensor>{g};
  });
}

Tensor sum_of(const Tensor& a, const Tensor& b) {
  return differentiable(Tensor::scalar(a.item() + b.item()), {a, b}, [](std::span<const Tensor> g) {
    return std::vector<Tensor>{g[0], g[0]};
  });
}

// A classifier over real layers, one batch, real gradients.
class Training {
 public:
  explicit Training(const Batch& batch)
      : batch_(batch), trainer_({{parameters()}}, {.steps = 100}) {}

  void step(const std::function<Tensor(const Tensor&)>& change = nullptr) {
    trainer_.step([&] {
      const Tensor loss = model_.loss(model_(batch_), batch_);
      return change ? change(loss) : loss;
    });
  }
  [[nodiscard]] std::vector<NamedTensor> parameters() const { return model_.named_parameters(); }
  [[nodiscard]] std::int64_t steps_done() const { return trainer_.steps_done(); }
  // Weights and moments, as they are in memory.
  [[nodiscard]] std::string bits() const {
    std::string all;
    for (const auto& list : {state(model_), trainer_.optimizer_state()}) {
      for (const NamedTensor& t : list) {
        const auto values = t.tensor.to_vector<float>();
        all.append(reinterpret_cast<const char*>(values.data()), 4 * values.size());
      }
    }
    return all;
  }

 private:
  Rng rng_{4};
  const Batch& batch_;
  TaskModel model_{{.task = Task::tag, .backbone = kBackbone, .outputs = 3}, rng_};
  Trainer trainer_;
};

// At each precision of products.
class NonFinite : public ::testing::TestWithParam<Precision> {
 protected:
  static constexpr int kSteps = 4;

  void SetUp() override {
    if (GetParam() == Precision::bf16 && bf16_unit() == Bf16Unit::none) {
      GTEST_SKIP() << "this CPU multiplies no bf16 (CPUID)";
    }
    const std::vector<std::uint64_t> jets{0, 1, 2, 3, 4, 5};
    batch_ = make_batch(*data_.splits.train, data_.splits.features, jets);
    Training clean(batch_);
    for (int i = 0; i <= kSteps; ++i) {
      clean_bits_.push_back(clean.bits());
      clean.step();
    }
  }

  // Some clean steps, one that must fail, and a clean one that must go on as if nothing had been.
  void expect_caught(const std::function<std::function<Tensor(const Tensor&)>(Training&)>& poison,
                     const std::string& named) {
    Training t(batch_);
    const auto before = static_cast<int>(rng_.below(kSteps));
    for (int i = 0; i < before; ++i) {
      t.step();
    }
    try {
      t.step(poison(t));
      ADD_FAILURE() << named << ": expected Error(numeric)";
    } catch (const Error& e) {
      EXPECT_EQ(exit_code(e.kind()), 70);
      EXPECT_EQ(e.kind(), ErrorKind::numeric);
      EXPECT_NE(e.message().find(named), std::string::npos) << e.message();
      EXPECT_NE(e.message().find(fmt::format("at step {}", before)), std::string::npos)
          << e.message();
    }
    EXPECT_EQ(t.steps_done(), before);
    EXPECT_TRUE(t.bits() == clean_bits_[static_cast<std::size_t>(before)]) << named;
    t.step();
    EXPECT_TRUE(t.bits() == clean_bits_[static_cast<std::size_t>(before) + 1]) << named;
  }

  PrecisionScope products_{GetParam()};
  TempDir dir_;
  Data data_{dir_.path() / "data"};
  Batch batch_;
  std::vector<std::string> clean_bits_;
  Rng rng_{7};
};

TEST_P(NonFinite, InTheGradientOfAnyParameterIsCaughtInTheSameStepAndNamed) {
  const std::size_t count = Training(batch_).parameters().size();
  EXPECT_GT(count, 20U);
  for (std::size_t i = 0; i < count; ++i) {
    const std::string name = Training(batch_).parameters()[i].name;
    for (const float value : kBad) {
      expect_caught(
          [&](Training& t) {
            const Tensor p = t.parameters()[i].tensor;
            const auto at =
                static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(p.size())));
            return [=](const Tensor& loss) { return sum_of(loss, poisoned_zero(p, at, value)); };
          },
          fmt::format("'{}'", name));
    }
  }
}

TEST_P(NonFinite, InTheLossIsCaughtBeforeAnyGradient) {
  for (const float value : kBad) {
    for (int trial = 0; trial < 3; ++trial) {
      expect_caught(
          [&](Training&) {
            return [value](const Tensor& loss) { return sum_of(loss, Tensor::scalar(value)); };
          },
          fmt::format("the loss is {}", value));
    }
  }
}

TEST(NonFiniteTrainer, TenThousandCleanStepsRaiseNoAlarm) {
  Tensor w = Tensor::full({8}, 1.0F);
  w.set_requires_grad(true);
  Trainer trainer({{{{"w", w}}}}, {.lr = 0.1F, .steps = 10'000});
  Rng rng(3);
  for (int i = 0; i < 10'000; ++i) {
    const float scale = std::exp(60.0F * rng.uniform() - 30.0F);  // gradients of 1e-13 .. 1e13
    EXPECT_NO_THROW(trainer.step([&] {
      return differentiable(Tensor::scalar(scale), {w}, [scale](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::full({8}, scale)};
      });
    })) << i;
  }
  EXPECT_EQ(trainer.steps_done(), 10'000);
}

INSTANTIATE_TEST_SUITE_P(Precisions, NonFinite, ::testing::Values(Precision::f32, Precision::bf16),
                         [](const auto& p) { return name(p.param); });

// A finite weight that rounding to bf16 makes infinite: f32 goes on, bf16 stops with all as it was.
TEST(NonFiniteRounding, OfAWeightStopsTheStepAtPrecisionBf16) {
  if (bf16_unit() == Bf16Unit::none) {
    GTEST_SKIP() << "this CPU multiplies no bf16 (CPUID)";
  }
  Tensor w = Tensor::full({1, 1}, 3.4e38F);
  w.set_requires_grad(true);
  const Tensor x = Tensor::full({1, 1}, 1e-38F);
  Trainer trainer({{{{"w", w}}}}, {.steps = 10});
  const auto step = [&](Precision precision) {
    const PrecisionScope products(precision);
    trainer.step([&] { return linear(x, w, Tensor()).reshape({}); });
  };
  EXPECT_NO_THROW(step(Precision::f32));
  const auto before = w.to_vector<float>();
  EXPECT_THROW(step(Precision::bf16), Error);
  EXPECT_EQ(w.to_vector<float>(), before);
  EXPECT_EQ(trainer.steps_done(), 1);
}

// A run of 20 steps that saves every 3; `poison` is the step whose loss is NaN.
std::vector<float> run_to_end(const std::filesystem::path& directory, std::optional<int> poison) {
  Tensor w = Tensor::full({8}, 1.0F);
  w.set_requires_grad(true);
  TrainingRun run(
      {.job = "toy", .groups = {{{{"w", w}}}}, .state = {{"w", w}}, .trainer = {.steps = 20}},
      {.directory = directory, .checkpoint_every = 3}, {});
  while (!run.finished()) {
    const auto step = run.trainer().steps_done();
    run.trainer().step([&] {
      const float g = std::sin(static_cast<float>(step));
      const float loss = poison == step ? kBad[0] : g;
      return differentiable(Tensor::scalar(loss), {w}, [g](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::full({8}, g)};
      });
    });
    run.end_step(1, {});
  }
  return w.to_vector<float>();
}

/// What a run of 20 steps ends with: weights, and a buffer that counts its steps.
struct ToyEnd {
  std::vector<float> weights, buffer;
  std::int64_t skipped = 0;
  friend bool operator==(const ToyEnd&, const ToyEnd&) = default;
};

RunFiles skipping(const std::filesystem::path& directory, std::int64_t most) {
  return {.directory = directory, .checkpoint_every = 3, .most_skipped = most};
}

// The gradient is sin(k) in the k-th good step; a step of `poison` has it NaN and spoils the buffer
// as a running mean would be.
ToyEnd run_skipping(const RunFiles& files, const std::set<std::int64_t>& poison,
                    std::int64_t steps = 20) {
  Tensor w = Tensor::full({8}, 1.0F), count = Tensor::zeros({1});
  w.set_requires_grad(true);
  TrainingRun run({.job = "toy",
                   .groups = {{{{"w", w}}}},
                   .state = {{"w", w}, {"count", count}},
                   .trainer = {.steps = steps, .schedule = "constant", .epoch_steps = 1}},
                  files, {});
  while (!run.finished()) {
    const std::int64_t step = run.steps_done();
    const bool bad = poison.contains(step);
    run.step([&] {
      const float k = count.item();
      fill(count, bad ? kBad[0] : k + 1);
      return differentiable(Tensor::scalar(k), {w}, [=](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::full({8}, bad ? kBad[1] : std::sin(k))};
      });
    });
    EXPECT_EQ(run.settle(), !bad) << step;
    run.end_step(1, {});
  }
  return {w.to_vector<float>(), count.to_vector<float>(), run.trainer().skipped()};
}

TEST(NonFiniteRun, SkippedStepsLeaveEverythingAsItWasAndAreCounted) {
  const TempDir dir;
  const auto where = dir.path() / "run";
  std::vector<std::string> warnings;
  RunFiles files = skipping(where, 5);
  files.warn = [&](const std::string& text) { warnings.push_back(text); };
  const ToyEnd end = run_skipping(files, {4, 5, 11});
  ToyEnd want = run_skipping({}, {}, 17);  // the good steps alone
  want.skipped = 3;
  EXPECT_EQ(end, want);
  ASSERT_EQ(warnings.size(), 3U);
  EXPECT_NE(warnings[1].find("step skipped, 2 of at most 5: training: the gradient of 'w'"),
            std::string::npos)
      << warnings[1];
  const std::string lines = read_text(where / "metrics.jsonl");
  EXPECT_NE(lines.find("{\"step\":5,\"loss\":null,\"gradient_norm\":null,"), std::string::npos)
      << lines;
  EXPECT_NE(lines.find(",\"skipped\":1}\n{\"step\":6"), std::string::npos);
  EXPECT_NE(lines.find("\"skipped\":3}\n"), std::string::npos);
  EXPECT_EQ(lines.substr(0, lines.find("{\"step\":5")).find("skipped"), std::string::npos);
  const Checkpoint c = read_checkpoint(where / "checkpoints/step-000020");
  EXPECT_EQ(c.state.at("skipped"), "3");
}

TEST(NonFiniteRun, StoppedAfterAnyStepItSkipsWithTheSameBits) {
  const TempDir dir;
  const std::set<std::int64_t> poison{1, 2, 4, 5, 11};
  const ToyEnd want = run_skipping(skipping(dir.path() / "whole", 5), poison);
  for (std::int64_t stop = 1; stop < 20; ++stop) {
    const auto where = dir.path() / std::to_string(stop);
    RunFiles files = skipping(where, 5);
    std::int64_t asked = 0;
    files.stop = [&] { return ++asked == stop; };
    EXPECT_THROW(run_skipping(files, poison), Error);
    EXPECT_EQ(run_skipping(skipping(where, 5), poison), want) << stop;
    EXPECT_EQ(read_text(where / "metrics.jsonl"), read_text(dir.path() / "whole/metrics.jsonl"));
  }
}

void expect_numeric(const RunFiles& files, const std::set<std::int64_t>& poison,
                    const std::string& why) {
  try {
    run_skipping(files, poison);
    ADD_FAILURE() << "expected Error(numeric): " << why;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
    EXPECT_NE(e.message().find(why), std::string::npos) << e.message();
  }
}

TEST(NonFiniteRun, StopsAtTheThirdInARowAndBeyondTheMostAllowed) {
  expect_numeric(skipping({}, 100), {7, 8, 9}, "3 steps in a row");
  expect_numeric(skipping({}, 2), {3, 7, 9}, "2 steps were skipped before");
  expect_numeric({}, {3}, "is not finite");
  const TempDir dir;  // the row goes on beyond a restart
  RunFiles files = skipping(dir.path(), 100);
  files.stop = [asked = 0]() mutable { return ++asked == 9; };
  EXPECT_THROW(run_skipping(files, {7, 8, 9}), Error);
  expect_numeric(skipping(dir.path(), 100), {7, 8, 9}, "3 steps in a row");
}

TEST(NonFiniteRun, LeavesTheLastGoodCheckpointAndGoesOnFromIt) {
  const TempDir dir;
  const auto want = run_to_end(dir.path() / "whole", std::nullopt);
  for (const int poison : {4, 9, 11, 19}) {
    const auto where = dir.path() / std::to_string(poison);
    EXPECT_THROW(run_to_end(where, poison), Error);
    const std::string latest = read_text(where / "checkpoints/latest");
    EXPECT_EQ(latest, fmt::format("step-{:06}\n", poison / 3 * 3));
    const Checkpoint c = read_checkpoint(where / "checkpoints" / latest.substr(0, 11));
    for (const auto& [name, tensor] : c.model) {
      for (const float v : tensor.to_vector<float>()) {
        EXPECT_TRUE(std::isfinite(v)) << name;
      }
    }
    EXPECT_EQ(run_to_end(where, std::nullopt), want);
  }
}

}  // namespace
}  // namespace tessera
