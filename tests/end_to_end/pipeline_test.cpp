// A training on a device as a pipeline: the next batch travels while the device computes on this
// one. On simt a stream's work runs as late, and as interleaved with others, as the schedule likes.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "core/stream_scope.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"
#include "train/batch_feed.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

simt::Schedule schedule_of(std::uint64_t seed) {
  return {seed == 0   ? simt::Order::forward
          : seed == 1 ? simt::Order::reverse
                      : simt::Order::random,
          seed};
}

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

FeedConfig three_tables(std::int64_t steps, Device device = kSimt) {
  return {.device = device, .tables = {Table::core, Table::pid}, .steps = steps};
}

TEST(BatchFeed, StandsWhereTheNextBatchIsHoweverFarAheadItDrew) {
  for (const Device device : {kCpu, kSimt}) {
    BatchFeed feed(three_tables(3, device), constants());
    EXPECT_EQ(feed.cursors().front(), (Cursor{0, 0}));
    for (std::int64_t step = 0; step < 3; ++step) {
      EXPECT_EQ(feed.next(step).rows.core[0], static_cast<float>(step + 1));
      EXPECT_EQ(feed.cursors().front(), (Cursor{0, static_cast<std::uint64_t>(step) + 1}));
    }
  }
}

TEST(BatchFeed, GivesTheTablesOfTheHostOnTheDeviceInOneHandle) {
  BatchFeed feed(three_tables(2), constants());
  const Batch batch = feed.next(0);
  const ParticleFeatures here = particle_features(batch, false),
                         there = particle_features(batch, false, kSimt);
  EXPECT_EQ(there.core.device(), kSimt);
  EXPECT_EQ(there.core.to_vector<float>(), here.core.to_vector<float>());
  EXPECT_EQ(there.pid.to_vector<std::int32_t>(), here.pid.to_vector<std::int32_t>());
  EXPECT_EQ(core_features(batch, kSimt).impl(), there.core.impl());
  EXPECT_EQ(there.segments.on(kSimt).impl(), segments_of(batch).on(kSimt).impl());
}

// In forward order only the stream that is awaited runs: the batch is there, the work is not done.
TEST(BatchFeed, TheNextBatchArrivesBeforeTheWorkOnThisOneIsDone) {
  const simt::ScheduleGuard schedule({simt::Order::forward, 0});
  BatchFeed feed(three_tables(3), constants());
  const OwnedStream compute(kSimt), other(kSimt);
  const StreamEvent worked(kSimt);
  const Tensor total = Tensor::zeros({3, 3}, DType::f32, kSimt);
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
std::vector<float> sum_of_batches(const std::function<Batch(std::int64_t)>& next) {
  const StreamScope compute(kSimt);
  const Tensor total = Tensor::zeros({3, 3}, DType::f32, kSimt);
  for (std::int64_t step = 0; step < 5; ++step) {
    accumulate(total, core_features(next(step), kSimt));
  }
  return total.to_vector<float>();
}

TEST(BatchFeed, WorkFindsItsBatchAtEverySchedule) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::ScheduleGuard schedule(schedule_of(seed));
    BatchFeed feed(three_tables(5), constants());
    EXPECT_EQ(sum_of_batches([&](std::int64_t step) { return feed.next(step); }),
              std::vector<float>(9, 15.0F))
        << "schedule " << seed;
  }
  EXPECT_EQ(simt::take_memory_fault(), nullptr);
}

// The same without the wait of the feed.
TEST(BatchFeed, WorkThatDoesNotWaitForItsBatchIsCaught) {
  const simt::ScheduleGuard schedule({simt::Order::forward, 0});
  const OwnedStream copies(kSimt);
  const auto unawaited = [&](std::int64_t step) {
    Batch batch = constant_batch(step);
    const StreamGuard copying(copies);
    send_tables(batch, three_tables(5).tables, kSimt);
    return batch;
  };
  EXPECT_THROW(sum_of_batches(unawaited), Error);
}

/// What a run leaves: weights, and the lines of metrics.jsonl.
struct Left {
  std::string weights, lines;
  friend bool operator==(const Left&, const Left&) = default;
};

/// The three trainings on a handful of jets, with evaluations and a checkpoint on the way.
class Trainings : public ::testing::Test {
 protected:
  Trainings() {
    tokenizer_.freeze();
    tokenizer_.to(kSimt);
    const auto where = dir_.path() / "data";
    std::filesystem::create_directory(where);
    write_dataset(where, {random_lengths(12, 3)});
    const auto set = std::make_shared<const Dataset>(where);
    data_ = {set, set, set, {.max_constituents = 6}};
    unlabelled_ = {.train = {set, set}, .validation = {set}, .features = data_.features};
  }
  ~Trainings() override { EXPECT_EQ(simt::take_memory_fault(), nullptr); }

  Left tokenizing(const RunFiles& files) {
    const TokenizerJob job{.model = tiny::kTokenizer,
                           .trainer = kTrainer,
                           .batch = 4,
                           .files = files,
                           .device = kSimt};
    return left(*train_tokenizer(job, unlabelled_, {}), files);
  }
  Left pretraining(const RunFiles& files) {
    const PretrainJob job{.backbone = tiny::kBackbone,
                          .objective = tiny::kObjective,
                          .trainer = kTrainer,
                          .batch = 4,
                          .files = files,
                          .device = kSimt,
                          .selection = {.evaluations = 2}};
    return left(*pretrain(job, tokenizer_, unlabelled_, {}), files);
  }
  Left finetuning(const RunFiles& files) {
    FinetuneJob job = tiny::finetune_job(Strategy::full, files);
    job.model.backbone.dropout = 0.2F;
    job.trainer = kTrainer;
    job.batch = 3;
    job.train_jets = 12;
    job.evaluations = 2;
    job.device = kSimt;
    return left(*finetune(job, data_, {tiny::backbone_weights(), {}}, {}).model, files);
  }
  RunFiles fresh() {
    return {.directory = dir_.path() / std::to_string(++runs_), .checkpoint_every = 3};
  }

  using Job = Left (Trainings::*)(const RunFiles&);
  static constexpr std::pair<const char*, Job> kJobs[] = {{"tokenizer", &Trainings::tokenizing},
                                                          {"pretrain", &Trainings::pretraining},
                                                          {"finetune", &Trainings::finetuning}};

 private:
  static constexpr TrainerConfig kTrainer{.lr = 2e-3F, .steps = 5, .warmup = 1};

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

TEST_F(Trainings, HaveTheSameBitsAndLinesAtEverySchedule) {
  for (const auto& [name, job] : kJobs) {
    const Left first = (this->*job)(fresh());
    EXPECT_EQ(std::ranges::count(first.lines, '\n'), 5) << first.lines;
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const simt::ScheduleGuard schedule(schedule_of(seed));
      EXPECT_TRUE((this->*job)(fresh()) == first) << name << ", schedule " << seed;
    }
  }
}

// The batch that was drawn ahead is drawn again.
TEST_F(Trainings, StoppedAfterAnyStepGoOnWithTheSameBitsAndLines) {
  const simt::ScheduleGuard schedule(schedule_of(3));
  for (const auto& [name, job] : kJobs) {
    const Left whole = (this->*job)(fresh());
    for (const std::int64_t stop : {1, 2, 4}) {
      const RunFiles rest = fresh();
      RunFiles files = rest;
      files.stop = [asked = std::int64_t{0}, stop]() mutable { return ++asked == stop; };
      EXPECT_THROW((this->*job)(files), Error);
      EXPECT_TRUE((this->*job)(rest) == whole) << name << ", stopped after " << stop;
    }
  }
}

}  // namespace
}  // namespace tessera
