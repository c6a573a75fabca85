// A training on a device as a pipeline: the next batch travels while the device computes on this
// one, and a step's numbers are read while the next step runs. On simt a stream's work runs as
// late, and as interleaved with others, as the schedule likes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "core/autograd.h"
#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "core/stream_scope.h"
#include "support/temp_dir.h"
#include "support/test_devices.h"
#include "support/tiny_jobs.h"
#include "train/batch_feed.h"
#include "train/training_run.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

/// Five features of three particles, all `step` + 1.
Batch constant_batch(std::int64_t step) {
  Batch batch;
  batch.rows.cu_seqlens = {0, 1, 3};
  batch.rows.core.assign(9, static_cast<float>(step + 1));
  batch.rows.pid = {0, 1, 2};
  return batch;
}

BatchSource constants() {
  auto drawn = std::make_shared<std::uint64_t>(0);
  return {[drawn](std::int64_t step) {
            ++*drawn;
            return constant_batch(step);
          },
          [drawn] {
            return std::vector{Cursor{0, *drawn}};
          }};
}

FeedConfig three_tables(std::int64_t steps, Device device) {
  return {.device = device, .tables = {Table::core, Table::pid}, .steps = steps};
}

class BatchFeeds : public OnDevice {};

TEST_P(BatchFeeds, StandsWhereTheNextBatchIsHoweverFarAheadItDrew) {
  for (const Device where : {kCpu, device()}) {
    BatchFeed feed(three_tables(3, where), constants());
    EXPECT_EQ(feed.cursors().front(), (Cursor{0, 0}));
    for (std::int64_t step = 0; step < 3; ++step) {
      EXPECT_EQ(feed.next(step).rows.core[0], static_cast<float>(step + 1));
      EXPECT_EQ(feed.cursors().front(), (Cursor{0, static_cast<std::uint64_t>(step) + 1}));
    }
  }
}

TEST_P(BatchFeeds, GivesTheTablesOfTheHostOnTheDeviceInOneHandle) {
  BatchFeed feed(three_tables(2, device()), constants());
  const Batch batch = feed.next(0);
  const ParticleFeatures here = particle_features(batch, false),
                         there = particle_features(batch, false, device());
  EXPECT_EQ(there.core.device(), device());
  EXPECT_EQ(there.core.to_vector<float>(), here.core.to_vector<float>());
  EXPECT_EQ(there.pid.to_vector<std::int32_t>(), here.pid.to_vector<std::int32_t>());
  EXPECT_EQ(core_features(batch, device()).impl(), there.core.impl());
  EXPECT_EQ(there.segments.on(device()).impl(), segments_of(batch).on(device()).impl());
}

// In forward order only the stream that is awaited runs: the batch is there, the work is not done.
TEST(BatchFeedOnSimt, TheNextBatchArrivesBeforeTheWorkOnThisOneIsDone) {
  const simt::ScheduleGuard schedule({simt::Order::forward, 0});
  BatchFeed feed(three_tables(3, kSimt), constants());
  const OwnedStream compute(kSimt), other(kSimt);
  const StreamEvent worked(kSimt);
  const Tensor total = Tensor::zeros({3, 3}, DType::f32, kSimt);
  queue_behind(kSimt, compute, Stream{});
  {
    const StreamGuard guard(compute);
    accumulate(total, core_features(feed.next(0), kSimt));
    worked.record(compute);
  }
  const StreamGuard guard(other);
  EXPECT_EQ(core_features(feed.next(1), kSimt).to_vector<float>(), std::vector<float>(9, 2.0F));
  EXPECT_FALSE(worked.reached());
  compute.synchronize();
  EXPECT_EQ(total.to_vector<float>(), std::vector<float>(9, 1.0F));
}

/// Sums the core features of five batches that come through `next`.
std::vector<float> sum_of_batches(Device device, const std::function<Batch(std::int64_t)>& next) {
  const StreamScope compute(device);
  const Tensor total = Tensor::zeros({3, 3}, DType::f32, device);
  for (std::int64_t step = 0; step < 5; ++step) {
    accumulate(total, core_features(next(step), device));
  }
  return total.to_vector<float>();
}

TEST_P(BatchFeeds, WorkFindsItsBatchAtEverySchedule) {
  at_schedules(6, [&](std::uint64_t) {
    BatchFeed feed(three_tables(5, device()), constants());
    EXPECT_EQ(sum_of_batches(device(), [&](std::int64_t step) { return feed.next(step); }),
              std::vector<float>(9, 15.0F));
  });
}

INSTANTIATE_TEST_SUITE_P(Devices, BatchFeeds, kTestDevices, device_name);

// The same without the wait of the feed.
TEST(BatchFeedOnSimt, WorkThatDoesNotWaitForItsBatchIsCaught) {
  const simt::ScheduleGuard schedule({simt::Order::forward, 0});
  const OwnedStream copies(kSimt);
  const auto unawaited = [&](std::int64_t step) {
    Batch batch = constant_batch(step);
    const StreamGuard copying(copies);
    send_tables(batch, three_tables(5, kSimt).tables, kSimt);
    return batch;
  };
  EXPECT_THROW(sum_of_batches(kSimt, unawaited), Error);
}

/// What a run leaves: weights, and the lines of metrics.jsonl.
struct Left {
  std::string weights, lines;
  friend bool operator==(const Left&, const Left&) = default;
};

/// The three trainings on a handful of jets, with evaluations and a checkpoint on the way.
class Trainings : public OnDevice {
 protected:
  Trainings() {
    tokenizer_.freeze();
    tokenizer_.to(device());
    const auto where = dir_.path() / "data";
    std::filesystem::create_directory(where);
    write_dataset(where, {random_lengths(10, 3)});
    const auto set = std::make_shared<const Dataset>(where);
    data_ = {set, set, set, {.max_constituents = 6}};
    unlabelled_ = {.train = {set, set}, .validation = {set}, .features = data_.features};
  }

  Left tokenizing(const RunFiles& files) {
    const TokenizerJob job{.model = tiny::kTokenizer,
                           .trainer = kTrainer,
                           .batch = 4,
                           .files = files,
                           .device = device()};
    return left(*train_tokenizer(job, unlabelled_, {}), files);
  }
  Left pretraining(const RunFiles& files) {
    const PretrainJob job{.backbone = tiny::kBackbone,
                          .objective = tiny::kObjective,
                          .trainer = kTrainer,
                          .batch = 4,
                          .files = files,
                          .device = device(),
                          .selection = {.evaluations = 2}};
    return left(*pretrain(job, tokenizer_, unlabelled_, {}), files);
  }
  Left finetuning(const RunFiles& files) {
    FinetuneJob job = tiny::finetune_job(Strategy::full, files);
    job.model.backbone.dropout = 0.2F;
    job.trainer = kTrainer;
    job.batch = 3;
    job.train_jets = 10;
    job.evaluations = 1;
    job.device = device();
    return left(*finetune(job, data_, {tiny::backbone_weights(), {}}, {}).model, files);
  }
  RunFiles fresh() {
    return {.directory = dir_.path() / std::to_string(++runs_), .checkpoint_every = 3};
  }

  inline static const TrainerConfig kTrainer{.lr = 2e-3F, .steps = 4, .warmup = 1};
  using Job = Left (Trainings::*)(const RunFiles&);
  static constexpr std::pair<const char*, Job> kJobs[] = {{"tokenizer", &Trainings::tokenizing},
                                                          {"pretrain", &Trainings::pretraining},
                                                          {"finetune", &Trainings::finetuning}};

 private:
  static Left left(Module& model, const RunFiles& files) {
    model.to(kCpu);
    return {state_hash(model), read_text(files.directory / "metrics.jsonl")};
  }

  TempDir dir_;
  int runs_ = 0;
  Splits data_;
  UnlabelledData unlabelled_;
  Rng rng_{5};
  Tokenizer tokenizer_{tiny::kTokenizer, rng_};
};

TEST_P(Trainings, HaveTheSameBitsAndLinesAtEverySchedule) {
  for (const auto& [name, job] : kJobs) {
    const Left first = (this->*job)(fresh());
    EXPECT_EQ(std::ranges::count(first.lines, '\n'), kTrainer.steps) << first.lines;
    at_schedules(4, [&](std::uint64_t) { EXPECT_TRUE((this->*job)(fresh()) == first) << name; });
  }
}

TEST_P(Trainings, QueuedAsGraphsHaveTheBitsOfThoseQueuedKernelByKernel) {
  for (const auto& [name, job] : kJobs) {
    setenv("TESSERA_GRAPH", "off", 1);
    const Left direct = (this->*job)(fresh());
    unsetenv("TESSERA_GRAPH");
    EXPECT_TRUE((this->*job)(fresh()) == direct) << name;
  }
}

// The batch that was drawn ahead is drawn again; the step in flight is in the checkpoint.
TEST_P(Trainings, StoppedAfterAnyStepGoOnWithTheSameBitsAndLines) {
  const simt::ScheduleGuard schedule(schedule_of(3));
  for (const auto& [name, job] : kJobs) {
    const Left whole = (this->*job)(fresh());
    for (const std::int64_t stop : {1, 2}) {
      const RunFiles rest = fresh();
      RunFiles files = rest;
      files.stop = [asked = std::int64_t{0}, stop]() mutable { return ++asked == stop; };
      EXPECT_THROW((this->*job)(files), Error);
      EXPECT_TRUE((this->*job)(rest) == whole) << name << ", stopped after " << stop;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Trainings, kTestDevices, device_name);

/// What a toy training does, in order: "queue 3" where the loss of the third step is made,
/// "line 3: ..." with loss, norm and rate where its numbers come.
struct Told {
  std::vector<std::string> events;
  std::vector<float> weights;
  std::string error;
  std::int64_t done = 0;
  [[nodiscard]] std::vector<std::string> lines() const {
    std::vector<std::string> some;
    std::ranges::copy_if(events, std::back_inserter(some),
                         [](const std::string& e) { return e.starts_with("line"); });
    return some;
  }
};

enum class Fault { none, loss, gradient, host };

struct Toy {
  std::int64_t steps = 7;
  Fault fault = Fault::none;
  std::int64_t at = -1;  // step of the fault, from 0
};

constexpr float kGradient = 0.5F;

// Step k has loss k + 1/2 and one gradient for all weights.
Tensor toy_loss(const Toy& toy, const Tensor& w, std::int64_t step) {
  const Fault fault = step == toy.at ? toy.fault : Fault::none;
  TESSERA_CHECK_KIND(ErrorKind::data, fault != Fault::host, "toy: the host fails");
  const float loss = fault == Fault::loss ? NAN : static_cast<float>(step) + 0.5F;
  const float g = fault == Fault::gradient ? INFINITY : kGradient;
  const Device device = w.device();
  return differentiable(Tensor::scalar(loss, device), {w}, [=](std::span<const Tensor>) {
    return std::vector<Tensor>{Tensor::full({8}, g, DType::f32, device)};
  });
}

TrainerConfig toy_trainer(std::int64_t steps) {
  return {.lr = 0.01F, .steps = steps, .schedule = "constant", .epoch_steps = 1};
}

std::string line_of(std::uint64_t step, double loss, double norm, double lr) {
  return fmt::format("line {}: {} {} {}", step, loss, norm, lr);
}

Told run_toy(Device device, const Toy& toy, const RunFiles& files = {}) {
  Tensor w = Tensor::full({8}, 1.0F, DType::f32, device);
  w.set_requires_grad(true);
  Told told;
  const Observer observe = [&](const Progress& p) {
    told.events.push_back(line_of(p.step, p.values[0].value, p.values[1].value, p.values[2].value));
  };
  {
    TrainingRun run({.job = "toy",
                     .groups = {{{{"w", w}}}},
                     .state = {{"w", w}},
                     .trainer = toy_trainer(toy.steps)},
                    files, observe);
    try {
      while (!run.finished()) {
        const std::int64_t step = run.steps_done();
        run.step([&] {
          told.events.push_back(fmt::format("queue {}", step + 1));
          return toy_loss(toy, w, step);
        });
        run.end_step(1, {});
      }
    } catch (const Error& e) {
      told.error = e.message();
    }
    told.done = run.steps_done();
  }
  told.weights = w.to_vector<float>();
  return told;
}

std::vector<std::string> kinds(const Told& told) {
  std::vector<std::string> first;
  for (const std::string& e : told.events) {
    first.push_back(e.substr(0, e.find(':')));
  }
  return first;
}

class Numbers : public OnDevice {};

TEST_P(Numbers, OfAStepAreReadWhileTheNextOneRuns) {
  EXPECT_EQ(kinds(run_toy(device(), {.steps = 4})),
            (std::vector<std::string>{"queue 1", "queue 2", "line 1", "queue 3", "line 2",
                                      "queue 4", "line 3", "line 4"}));
  EXPECT_EQ(kinds(run_toy(kCpu, {.steps = 2})),
            (std::vector<std::string>{"queue 1", "line 1", "queue 2", "line 2"}));
}

TEST_P(Numbers, AreThoseOfTheirStepAtEverySchedule) {
  Tensor w = Tensor::full({8}, 1.0F, DType::f32, device());
  w.set_requires_grad(true);
  Trainer one_by_one({{{{"w", w}}}}, toy_trainer(7));
  std::vector<std::string> want;
  for (std::int64_t step = 0; step < 7; ++step) {
    const float loss = one_by_one.step([&] { return toy_loss({}, w, step); });
    want.push_back(line_of(static_cast<std::uint64_t>(step) + 1, static_cast<double>(loss),
                           one_by_one.gradient_norm(), one_by_one.learning_rate()));
  }
  EXPECT_NE(want[0].substr(8), want[1].substr(8));
  at_schedules(6, [&](std::uint64_t) {
    const Told told = run_toy(device(), {});
    EXPECT_EQ(told.lines(), want);
    EXPECT_EQ(told.weights, w.to_vector<float>());
  });
}

// The step behind the bad one was queued, and must have done nothing.
TEST_P(Numbers, OfABadStepEndTheRunWithWeightsLinesAndCheckpointsOfBefore) {
  const TempDir dir;
  int runs = 0;
  for (const Fault fault : {Fault::loss, Fault::gradient}) {
    for (const std::int64_t at : {0, 2, 3, 4, 6}) {
      at_schedules(4, [&](std::uint64_t) {
        const Toy toy{.fault = fault, .at = at};
        const RunFiles files{.directory = dir.path() / std::to_string(++runs),
                             .checkpoint_every = 3};
        const Told cpu = run_toy(kCpu, toy), there = run_toy(device(), toy, files);
        EXPECT_FALSE(cpu.error.empty());
        EXPECT_EQ(there.error, cpu.error);
        EXPECT_EQ(there.done, at);
        EXPECT_EQ(there.lines().size(), static_cast<std::size_t>(at));
        const std::string lines = read_text(files.directory / "metrics.jsonl");
        EXPECT_EQ(std::ranges::count(lines, '\n'), at) << lines;
        EXPECT_EQ(there.weights,
                  at == 0 ? std::vector<float>(8, 1.0F) : run_toy(device(), {.steps = at}).weights);
        EXPECT_EQ(std::filesystem::exists(files.directory / "checkpoints" / "step-000003"), at > 2);
        EXPECT_FALSE(std::filesystem::exists(files.directory / "checkpoints" / "step-000006") &&
                     at < 6);
        EXPECT_EQ(run_toy(device(), {}, files).weights, run_toy(device(), {}).weights)
            << "from the last good checkpoint";
      });
    }
  }
}

// Whoever catches the error goes on from the bad step; of the one behind it nothing is left.
TEST_P(Numbers, OfStepsBehindABadOneNeverCome) {
  at_schedules(4, [&](std::uint64_t) {
    const StreamScope stream(device());
    Tensor w = Tensor::full({8}, 1.0F, DType::f32, device());
    w.set_requires_grad(true);
    Trainer trainer({{{{"w", w}}}}, toy_trainer(7));
    const auto queue = [&](const Toy& toy, std::int64_t step) {
      trainer.queue([&] { return toy_loss(toy, w, step); });
    };
    queue({.fault = Fault::gradient, .at = 0}, 0);
    queue({}, 1);
    EXPECT_EQ(trainer.in_flight(), 2U);
    EXPECT_THROW(trainer.settle(), Error);
    EXPECT_EQ(trainer.in_flight(), 0U);
    EXPECT_EQ(trainer.steps_done(), 0);
    queue({}, 0);
    queue({}, 1);
    trainer.settle();
    EXPECT_EQ(trainer.watched().front().value, 0.5);
    trainer.settle();
    EXPECT_EQ(trainer.watched().front().value, 1.5);
    EXPECT_EQ(w.to_vector<float>(), run_toy(device(), {.steps = 2}).weights);
  });
}

TEST_P(Numbers, OfASkippedStepAreNoneAndTheOthersGoOn) {
  for (const Fault fault : {Fault::loss, Fault::gradient}) {
    const Told told = run_toy(device(), {.steps = 6, .fault = fault, .at = 2}, {.most_skipped = 1});
    EXPECT_EQ(told.error, "");
    const auto lines = told.lines();
    ASSERT_EQ(lines.size(), 6U);
    EXPECT_TRUE(lines[2].starts_with("line 3: nan nan ")) << lines[2];
    EXPECT_EQ(told.weights, run_toy(device(), {.steps = 5}).weights);
  }
}

TEST_P(Numbers, OfAStepAreKeptWhenTheHostFailsInTheNextOne) {
  const TempDir dir;
  for (const Device where : {kCpu, device()}) {
    const RunFiles files{.directory = dir.path() / name(where.type)};
    const Told told = run_toy(where, {.fault = Fault::host, .at = 3}, files);
    EXPECT_NE(told.error.find("the host fails"), std::string::npos);
    const std::string lines = read_text(files.directory / "metrics.jsonl");
    EXPECT_EQ(std::ranges::count(lines, '\n'), 3) << lines;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Numbers, kTestDevices, device_name);

}  // namespace
}  // namespace tessera
