// Work that the host does not wait for: whole training steps in a stream of their own, uploads
// beside them, and what a full device says. On simt a stream's work runs as late,
// and as interleaved with other streams, as the schedule likes.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/autograd.h"
#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "core/staging.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/deep_sets.h"
#include "nn/models/generation.h"
#include "nn/models/tokenizer.h"
#include "support/test_devices.h"
#include "train/pretrain_job.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

const Segments& jets() {
  static const Segments s = Segments::from_lengths(std::vector<std::int32_t>{0, 1, 7, 0, 19, 2});
  return s;
}

DeepSets small_model() {
  Rng rng(2);
  DeepSetsConfig config = DeepSetsConfig::pfn(13, 2);
  config.phi = {20, 33};
  config.f = {17};
  return DeepSets(config, rng);
}

Tensor loss_of(const DeepSets& model, const Tensor& x, const Tensor& y) {
  return mean(squared_error(model(x, jets()), y));
}

/// Losses and weights of some steps.
struct Trained {
  std::vector<float> losses;
  std::vector<std::vector<float>> weights;
  friend bool operator==(const Trained&, const Trained&) = default;
};

Trained train(Device device, int steps) {
  DeepSets model = small_model();
  model.to(device);
  Trainer trainer({{.parameters = model.named_parameters()}}, {.lr = 1e-2F, .warmup = 1});
  Trained t;
  for (int i = 0; i < steps; ++i) {
    const auto seed = static_cast<std::uint64_t>(10 + i);
    t.losses.push_back(trainer.step([&] {
      return loss_of(model, random({jets().total(), 13}, seed).to(device),
                     random({6, 2}, 100 + seed).to(device));
    }));
  }
  for (const auto& [name, tensor] : model.named_parameters()) {
    t.weights.push_back(tensor.to_vector<float>());
  }
  return t;
}

class Streams : public OnDevice {};

TEST_P(Streams, StepsInAStreamOfTheirOwnHaveTheBitsOfTheDefaultOne) {
  const Trained expected = train(device(), 3);
  const std::size_t allocations = simt::live_allocations();
  at_schedules(6, [&](std::uint64_t) {
    {
      const OwnedStream stream(device());
      const StreamGuard guard(stream);
      EXPECT_TRUE(train(device(), 3) == expected);
    }
    EXPECT_TRUE(train(device(), 3) == expected) << "in the default stream";
    wait_for(device(), Stream{});
    EXPECT_EQ(simt::live_allocations(), allocations) << "device memory leaks";
  });
}

/// Sums batches that are uploaded in one stream while another adds up the ones before.
std::vector<float> sum_of_uploads(Device device, bool waits) {
  const OwnedStream copies(device), compute(device);
  const StreamEvent uploaded(device);
  const StreamGuard guard(compute);
  const Tensor total = Tensor::zeros({257}, DType::f32, device);
  std::vector<float> host(257);
  for (int batch = 1; batch <= 5; ++batch) {
    std::ranges::fill(host, static_cast<float>(batch));  // the last copy may not have run yet
    Tensor values;
    {
      const StreamGuard copying(copies);
      values = Tensor::from(host, {257}, device);
    }
    if (waits) {
      uploaded.record(copies);
      uploaded.wait(compute);
    }
    accumulate(total, values);
  }
  return total.to_vector<float>();
}

TEST_P(Streams, UploadsRunBesideTheStreamThatWaitsForThem) {
  at_schedules(6, [&](std::uint64_t) {
    EXPECT_EQ(sum_of_uploads(device(), true), std::vector<float>(257, 15.0F));
  });
}

// A GPU may be fast enough to hide it.
TEST(StreamsOfSimt, AMissingWaitIsCaught) {
  const simt::ScheduleGuard schedule({simt::Order::forward, 0});
  EXPECT_THROW(sum_of_uploads(kSimt, false), Error);
}

// As on cuda, where streams of their own are non-blocking, the default stream and others do not
// wait for each other.
TEST(StreamsOfSimt, TheDefaultStreamIsNotAwaitedByOthersUnlessTheyAsk) {
  const simt::ScheduleGuard schedule({simt::Order::reverse, 0});
  for (const bool waits : {true, false}) {
    const OwnedStream stream(kSimt);
    const Tensor t = Tensor::full({3}, 2.0F, DType::f32, kSimt);  // queued in the default stream
    const auto read = [&] {
      const StreamGuard guard(stream);
      if (waits) {
        queue_behind(kSimt, stream, Stream{});
      }
      const Tensor twice = scale(t, 2.0F);
      // awaited alone: in this order the others would go first
      const simt::ScheduleGuard alone({simt::Order::forward, 0});
      return twice.to_vector<float>();
    };
    if (waits) {
      EXPECT_EQ(read(), std::vector<float>(3, 4.0F));
    } else {
      EXPECT_THROW(read(), Error);
    }
  }
}

// The block may be at work for whoever had it before until the default stream gets to giving it
// out.
TEST(StreamsOfSimt, WhatIsWrittenBeforeAnAllocationsTurnIsLost) {
  const simt::ScheduleGuard schedule({simt::Order::reverse, 0});
  const OwnedStream stream(kSimt);
  const Tensor t = Tensor::empty({3}, DType::f32, kSimt);
  const std::vector<float> values{1, 2, 3};
  stream.copy(t.impl()->storage->data(), values.data(), 12);
  {
    const simt::ScheduleGuard alone({simt::Order::forward, 0});
    stream.synchronize();
  }
  EXPECT_THROW(static_cast<void>(scale(t, 2.0F).to_vector<float>()), Error);
}

// A copy that is queued by hand reads the host when it runs: what upload() is for.
TEST(StreamsOfSimt, AStagingBufferThatIsReusedEarlyShows) {
  const OwnedStream stream(kSimt);
  const StreamGuard guard(stream);
  const Tensor t = Tensor::zeros({3}, DType::f32, kSimt), u = Tensor::zeros({3}, DType::f32, kSimt);
  std::vector<float> host{1, 2, 3};
  stream.copy(t.impl()->storage->data(), host.data(), 12);
  upload(kSimt, u.impl()->storage->data(), host.data(), 12);
  host = {4, 5, 6};
  EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{4, 5, 6}));
  EXPECT_EQ(u.to_vector<float>(), (std::vector<float>{1, 2, 3}));
}

// More than all the slabs hold: full ones come back once their copies are done.
TEST_P(Streams, StagingMemoryIsReusedWithoutHarm) {
  const OwnedStream stream(device());
  const StreamGuard guard(stream);
  std::vector<Tensor> all;
  constexpr std::int64_t kFloats = 700'000;
  for (int i = 0; i < 30; ++i) {
    all.push_back(
        Tensor::from(std::vector<float>(kFloats, static_cast<float>(i)), {kFloats}, device()));
  }
  for (int i = 0; i < 30; ++i) {
    const auto got = all[static_cast<std::size_t>(i)].to_vector<float>();
    EXPECT_TRUE(std::ranges::all_of(got, [&](float x) { return x == static_cast<float>(i); })) << i;
  }
}

TEST_P(Streams, AReadbackIsOfWhatStoodThereWhenItWasStarted) {
  at_schedules(4, [&](std::uint64_t) {
    const OwnedStream stream(device());
    const StreamGuard guard(stream);
    const Tensor t = Tensor::full({3}, 1.0F, DType::f32, device());
    Readback read(device(), 3);
    const std::uint64_t waits = device_waits();
    read.start(t);
    fill(t, 2.0F);
    EXPECT_EQ(device_waits(), waits);
    EXPECT_EQ(read.get(), std::vector<float>(3, 1.0F));
    EXPECT_EQ(t.to_vector<float>(), std::vector<float>(3, 2.0F));
  });
}

INSTANTIATE_TEST_SUITE_P(Devices, Streams, kTestDevices, device_name);

TEST(FullDevice, SaysWhatWasAskedForByWhomAndWhatLivesThere) {
  const Trained expected = train(kSimt, 1);
  DeepSets model = small_model();
  model.to(kSimt);
  Trainer trainer({{.parameters = model.named_parameters()}}, {.lr = 1e-2F, .warmup = 1});
  const auto step = [&] {
    return trainer.step([&] {
      return loss_of(model, random({jets().total(), 13}, 10).to(kSimt),
                     random({6, 2}, 110).to(kSimt));
    });
  };
  for (const std::size_t room : {std::size_t{0}, std::size_t{5000}, std::size_t{9000}}) {
    const simt::MemoryLimit limit(simt::live_bytes() + room);
    try {
      step();
      ADD_FAILURE() << "expected Error(resource) with " << room << " bytes left";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::resource);
      EXPECT_EQ(e.message().rfind("memory: ", 0), 0U) << e.message();
      EXPECT_NE(e.message().find("requested on simt by "), std::string::npos) << e.message();
      EXPECT_NE(e.message().find("nn/module.cpp:"), std::string::npos)
          << "the flat parameters live there; " << e.message();
    }
    EXPECT_EQ(trainer.steps_done(), 0);
  }
  EXPECT_EQ(step(), expected.losses[0]) << "nothing has changed";
}

// The same random numbers and logits that agree to rounding: the same jets.
class GenerationOnADevice : public OnDevice {};

TEST_P(GenerationOnADevice, DrawsTheJetsOfTheCpu) {
  Rng rng(3);
  Tokenizer tokenizer({.width = 16, .blocks = 1, .heads = 2, .codes = 13, .causal_decoder = true},
                      rng);
  PretrainModel model({.width = 16, .blocks = 1, .heads = 2, .registers = 1},
                      {.codes = 13, .max_particles = 9}, rng);
  for (const Module* m : {static_cast<Module*>(&tokenizer), static_cast<Module*>(&model)}) {
    for (const NamedTensor& p : m->named_parameters()) {
      copy_into(p.tensor, uniform_init(p.tensor.shape(), 0.4F, rng));
    }
  }
  const std::vector<std::uint64_t> uids{3, 5, 8, 13, 21};
  const GenerateOptions options{.max_particles = 9, .slots = 3, .seed = 4};
  const auto draw = [&] {
    return generate(model.backbone, model.head, tokenizer, uids, options, {});
  };
  const auto cpu = draw();
  tokenizer.to(device());
  model.to(device());
  const auto there = draw();
  std::size_t particles = 0;
  for (std::size_t i = 0; i < uids.size(); ++i) {
    EXPECT_EQ(there[i].codes, cpu[i].codes);
    EXPECT_EQ(there[i].pids, cpu[i].pids);
    EXPECT_NEAR(there[i].log_likelihood, cpu[i].log_likelihood, 1e-3);
    particles += cpu[i].codes.size();
  }
  EXPECT_GT(particles, 5U);
}

INSTANTIATE_TEST_SUITE_P(Devices, GenerationOnADevice, kTestDevices, device_name);

}  // namespace
}  // namespace tessera
