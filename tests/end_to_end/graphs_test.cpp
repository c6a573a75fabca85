// Bodies of work that are queued as one graph, each recorded anew: whole training steps among them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "core/graph.h"
#include "core/graph_memory.h"
#include "core/simt/memory.h"
#include "core/stream_scope.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/deep_sets.h"
#include "support/schedules.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

std::vector<Device> devices_with_graphs() {
  std::vector<Device> all = devices();
  std::erase(all, kCpu);
  return all;
}

/// A stream of a device, current while it lives, and its graphs.
struct Recorder {
  explicit Recorder(Device device) : scope(device), graphs(device, current_stream(device)) {}
  StreamScope scope;
  GraphQueue graphs;
};

Tensor full(std::int64_t n, float value, Device device) {
  return Tensor::full({n}, value, DType::f32, device);
}

// f(Recorder&, Device) on every device, on simt at some schedules.
void on_devices(const std::function<void(Recorder&, Device)>& f) {
  for (const Device device : devices_with_graphs()) {
    for (std::uint64_t seed = 0; seed < (device == kSimt ? 4U : 1U); ++seed) {
      const simt::ScheduleGuard schedule(schedule_of(seed));
      SCOPED_TRACE(::testing::Message() << name(device.type) << ", schedule " << seed);
      Recorder recorder(device);
      f(recorder, device);
    }
  }
  EXPECT_EQ(simt::take_memory_fault(), nullptr);
}

// Nobody waits between the bodies: what one uploads must be there until it has run.
TEST(Graphs, EveryBodyHasItsOwnSizesArgumentsAndUploads) {
  on_devices([](Recorder& r, Device device) {
    std::vector<Tensor> results;
    const std::vector<std::int64_t> sizes{1, 31, 257, 33, 4096, 257};
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto value = static_cast<float>(i + 1);
      std::vector<float> host(static_cast<std::size_t>(sizes[i]), value);
      r.graphs.run([&] {
        const Tensor x = Tensor::from(host, {sizes[i]}, device);
        results.push_back(scale(mul(add(x, x), x), value));
      });
      std::ranges::fill(host, -1.0F);
    }
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto v = static_cast<float>(i + 1);
      EXPECT_EQ(results[i].to_vector<float>(),
                std::vector<float>(static_cast<std::size_t>(sizes[i]), 2 * v * v * v));
    }
    EXPECT_EQ(r.graphs.counts().made, 1) << "the same chain each time";
    EXPECT_EQ(r.graphs.counts().updated, 5);
    EXPECT_EQ(r.graphs.counts().nodes, 4U) << "a copy and three kernels";
  });
}

TEST(Graphs, WorkIsInTheOrderOfTheStreamWithWhatIsQueuedDirectly) {
  on_devices([](Recorder& r, Device device) {
    const Tensor x = full(257, 1, device);
    for (int i = 0; i < 5; ++i) {
      r.graphs.run([&] { accumulate(x, x); });
      accumulate(x, full(257, 1, device));
    }
    EXPECT_EQ(x.to_vector<float>(), std::vector<float>(257, 63.0F));
  });
}

TEST(Graphs, TheLastBodyIsRepeatedOnItsAddresses) {
  on_devices([](Recorder& r, Device device) {
    const Tensor x = full(257, 1, device);
    EXPECT_THROW(r.graphs.repeat(), Error);
    std::vector<float> host(257, 2.0F);
    r.graphs.run([&] { accumulate(x, Tensor::from(host, {257}, device)); });
    std::ranges::fill(host, -1.0F);
    r.graphs.repeat();
    r.graphs.repeat();
    r.graphs.run([&] { accumulate(x, x); });
    EXPECT_EQ(x.to_vector<float>(), std::vector<float>(257, 14.0F));
  });
}

// Once the body has run, its uploads would be free for the next one's.
TEST(Graphs, ARepeatedBodyFindsItsUploadsThoughAnotherOneWasRecordedSince) {
  on_devices([](Recorder& r, Device device) {
    const Tensor x = full(3, 0, device);
    const auto add_uploaded = [&](float value) {
      r.graphs.run([&] { accumulate(x, Tensor::from(std::vector<float>(3, value), {3}, device)); });
    };
    add_uploaded(1);
    wait_for(device, r.graphs.stream());
    r.graphs.repeat();
    add_uploaded(100);
    EXPECT_EQ(x.to_vector<float>(), std::vector<float>(3, 102.0F));
  });
}

TEST(Graphs, PinnedMemoryIsTakenAgainOnceItWasRead) {
  const OwnedStream stream(kSimt);
  GraphMemory memory(kSimt, stream);
  const auto upload = [&] {
    memory.begin_run();
    std::byte* place = memory.pinned(100);
    EXPECT_NE(memory.pinned(5'000'000), nullptr) << "a slab of its own";
    memory.end_run(true);
    return place;
  };
  std::byte* first = upload();
  std::byte* second = upload();
  EXPECT_NE(first, second) << "the first was not read yet";
  stream.synchronize();
  EXPECT_EQ(upload(), first);
  EXPECT_EQ(upload(), second);
}

TEST(Graphs, TensorsThatDieInABodyLiveUntilItHasRun) {
  on_devices([](Recorder& r, Device device) {
    const Tensor sum = full(3, 0, device);
    Tensor x = full(3, 5, device);
    for (int i = 0; i < 3; ++i) {
      r.graphs.run([&] {
        accumulate(sum, x);
        x = Tensor();
        x = full(3, static_cast<float>(i), device);  // of this body, for the next one
      });
    }
    EXPECT_EQ(sum.to_vector<float>(), std::vector<float>(3, 6.0F));
  });
}

TEST(Graphs, NothingRunsOfABodyThatThrows) {
  on_devices([](Recorder& r, Device device) {
    const Tensor x = full(3, 1, device);
    const Segments jets = Segments::from_lengths(std::vector<std::int32_t>{2, 1});
    const auto failing = [&](const std::function<void()>& fault) {
      return [&, fault] {
        accumulate(x, x);
        (void)jets.on(device);
        fault();
      };
    };
    EXPECT_THROW(r.graphs.run(failing([&] { (void)x.to_vector<float>(); })), Error) << "a read";
    EXPECT_THROW(r.graphs.run(failing([&] { wait_for(device, r.graphs.stream()); })), Error);
    EXPECT_THROW(r.graphs.run(failing([] { TESSERA_FAIL(ErrorKind::data, "no more"); })), Error);
    EXPECT_EQ(jets.on(device).to_vector<std::int32_t>(), (std::vector<std::int32_t>{0, 2, 3}))
        << "sent again";
    r.graphs.run([&] { accumulate(x, x); });
    EXPECT_EQ(x.to_vector<float>(), std::vector<float>(3, 2.0F)) << "the stream goes on";
  });
}

TEST(Graphs, AreKeptForTheLastChainsAndReplacedWhereKindsDiffer) {
  on_devices([](Recorder& r, Device device) {
    const Tensor x = full(3, 1, device);
    const auto chain = [&](std::size_t length) {
      r.graphs.run([&] {
        for (std::size_t i = 0; i < length; ++i) {
          fill(x, static_cast<float>(length));
        }
      });
    };
    for (std::size_t length = 1; length <= GraphQueue::kKept + 1; ++length) {
      chain(length);
    }
    EXPECT_EQ(r.graphs.counts().made, 9);
    chain(2);  // kept
    EXPECT_EQ(r.graphs.counts().updated, 1);
    chain(1);  // not kept; the third goes for it, as the second was used last
    chain(2);
    EXPECT_EQ(r.graphs.counts().made, 10);
    EXPECT_EQ(r.graphs.counts().updated, 2);
    r.graphs.run([&] {
      copy_into(x, Tensor::from(std::vector<float>{1, 2, 3}, {3}));
      fill(x.slice(0, 0, 1), 7);
    });
    EXPECT_EQ(r.graphs.counts().made, 11) << "two nodes, but one of them is a copy";
    EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{7, 2, 3}));
  });
}

TEST(Graphs, MemoryIsTakenAgainAndGivenBackWhenNobodyWantsItAnyMore) {
  const std::size_t allocations = simt::live_allocations();
  {
    Recorder r(kSimt);
    const auto run = [&](std::int64_t n) {
      for (const std::int64_t size : {n, n + n / 16}) {
        r.graphs.run([&] { (void)add(full(size, 1, kSimt), full(size, 2, kSimt)); });
      }
    };
    run(10'000);
    const std::size_t small = simt::live_bytes();
    run(10'000);
    EXPECT_EQ(simt::live_bytes(), small);
    run(100'000);
    EXPECT_GT(simt::live_bytes(), small + 800'000);
    for (int i = 0; i < 40; ++i) {
      run(10'000);
    }
    wait_for(kSimt, current_stream(kSimt));
    EXPECT_EQ(simt::live_bytes(), small);
  }
  wait_for(kSimt, Stream{});
  EXPECT_EQ(simt::live_allocations(), allocations) << "graphs leak";
  EXPECT_EQ(simt::take_memory_fault(), nullptr);
}

TEST(Graphs, AFullDeviceSaysWhoAskedAndTheQueueGoesOn) {
  Recorder r(kSimt);
  const Tensor x = full(3, 1, kSimt);
  {
    const simt::MemoryLimit limit(simt::live_bytes() + 5000);
    try {
      r.graphs.run([&] { accumulate(x, sum(full(10'000, 1, kSimt))); });
      ADD_FAILURE() << "expected Error(resource)";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::resource);
      EXPECT_NE(e.message().find("requested on simt by "), std::string::npos) << e.message();
    }
  }
  r.graphs.run([&] { accumulate(x, x); });
  EXPECT_EQ(x.to_vector<float>(), std::vector<float>(3, 2.0F));
}

TEST(Graphs, NeedAStreamOfTheirOwn) {
  EXPECT_THROW(GraphQueue(kCpu, Stream{}), Error);
  EXPECT_THROW(GraphQueue(kSimt, Stream{}), Error);
  const OwnedStream stream(kSimt);
  GraphQueue graphs(kSimt, stream);
  EXPECT_THROW(graphs.run([] {}), Error) << "another stream is current";
}

/// Losses and weights of some steps on batches of other lengths each.
struct Trained {
  std::vector<float> losses;
  std::vector<std::vector<float>> weights;
  friend bool operator==(const Trained&, const Trained&) = default;
};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

Trained train(Device device, int steps, GraphQueue::Counts* counts = nullptr) {
  Rng rng(2);
  DeepSetsConfig config = DeepSetsConfig::pfn(13, 2);
  config.phi = {20, 33};
  config.f = {17};
  DeepSets model(config, rng);
  model.to(device);
  Trainer trainer({{.parameters = model.named_parameters()}}, {.lr = 1e-2F, .warmup = 1});
  Trained t;
  for (int i = 0; i < steps; ++i) {
    const auto seed = static_cast<std::uint64_t>(10 + i);
    const Segments jets = Segments::from_lengths(std::vector<std::int32_t>{i, 1, 7, 0, 19 - i});
    t.losses.push_back(trainer.step([&] {
      const Tensor x = random({jets.total(), 13}, seed).to(device);
      return mean(squared_error(model(x, jets), random({5, 2}, 100 + seed).to(device)));
    }));
  }
  for (const auto& [name, tensor] : model.named_parameters()) {
    t.weights.push_back(tensor.to_vector<float>());
  }
  if (counts != nullptr) {
    *counts = trainer.graphs();
  }
  return t;
}

TEST(Graphs, TrainingStepsHaveTheBitsOfThoseQueuedKernelByKernel) {
  for (const Device device : devices_with_graphs()) {
    GraphQueue::Counts direct;
    const Trained expected = train(device, 4, &direct);
    EXPECT_EQ(direct.made, 0) << "the default stream is not recorded";
    EXPECT_NE(expected.losses[0], expected.losses[1]);
    const std::size_t allocations = simt::live_allocations();
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const simt::ScheduleGuard schedule(schedule_of(seed));
      GraphQueue::Counts counts;
      {
        const StreamScope stream(device);
        EXPECT_TRUE(train(device, 4, &counts) == expected) << "schedule " << seed;
      }
      EXPECT_EQ(counts.made, 1) << "one chain of " << counts.nodes << " nodes for all lengths";
      EXPECT_EQ(counts.updated, 2) << "the first step is no graph";
    }
    wait_for(device, Stream{});
    EXPECT_EQ(simt::live_allocations(), allocations) << "graphs leak";
  }
  EXPECT_EQ(simt::take_memory_fault(), nullptr);
}

TEST(Graphs, CanBeTurnedOff) {
  const StreamScope stream(kSimt);
  GraphQueue::Counts counts;
  setenv("TESSERA_GRAPH", "off", 1);
  const Trained direct = train(kSimt, 2, &counts);
  unsetenv("TESSERA_GRAPH");
  EXPECT_EQ(counts.made, 0);
  EXPECT_TRUE(train(kSimt, 2, &counts) == direct);
  EXPECT_EQ(counts.made, 1);
}

}  // namespace
}  // namespace tessera
