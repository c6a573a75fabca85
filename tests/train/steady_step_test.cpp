// What a training step in steady state asks of the heap: small objects of the tape, no buffers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <new>

#include "core/parallel.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "support/heap_count.h"
#include "train/trainer.h"

namespace tessera {
namespace {

using heap_count::Count;
using heap_count::kCountsAligned;
using heap_count::Watch;

/// Random jets of up to 32 particles, as many as the preset tiny has in a batch.
ParticleFeatures random_jets(std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::int32_t> lengths(64);
  std::ranges::generate(lengths, [&] { return static_cast<std::int32_t>(1 + rng.below(32)); });
  ParticleFeatures f{
      .segments = Segments::from_lengths(lengths), .core = {}, .pid = {}, .context = {}};
  const std::int64_t t = f.segments.total();
  f.core = normal_init({t, 3}, 1.0F, rng);
  f.context = normal_init({t, 9}, 1.0F, rng);
  std::vector<std::int32_t> pid(static_cast<std::size_t>(t));
  std::ranges::generate(pid, [&] { return static_cast<std::int32_t>(rng.below(8)); });
  f.pid = Tensor::from(pid, {t});
  return f;
}

/// The most of each number in one of the steps that follow three rounds over all batches.
Count most_of_a_step(std::size_t batches, const std::function<void(std::size_t)>& step) {
  Count most;
  for (std::size_t i = 0; i < 6 * batches; ++i) {
    const Watch watch;
    step(i % batches);
    const Count one = watch.count();
    if (i >= 3 * batches) {
      most.allocations = std::max(most.allocations, one.allocations);
      most.bytes = std::max(most.bytes, one.bytes);
      most.largest = std::max(most.largest, one.largest);
    }
  }
  return most;
}

std::vector<ParticleFeatures> batches() { return {random_jets(1), random_jets(2), random_jets(3)}; }

Count tokenizer_step() {
  Rng rng(1);
  const Tokenizer model(
      {.width = 32, .blocks = 1, .heads = 4, .codes = 512, .causal_decoder = true}, rng);
  Trainer trainer({{model.named_parameters()}}, {.steps = 1000});
  const auto data = batches();
  return most_of_a_step(data.size(), [&](std::size_t i) {
    trainer.step([&] { return model(data[i].core, data[i].segments).loss; });
  });
}

Count pretraining_step() {
  Rng rng(1);
  const Backbone backbone({.width = 64, .blocks = 2, .heads = 4, .registers = 2}, rng);
  const PretrainHead head(64, 4, {.codes = 512, .max_particles = 32}, rng);
  std::vector<NamedTensor> parameters = backbone.named_parameters("backbone.");
  const auto of_head = head.named_parameters("head.");
  parameters.insert(parameters.end(), of_head.begin(), of_head.end());
  Trainer trainer({{parameters}}, {.steps = 1000});
  const auto data = batches();
  std::vector<Tensor> codes;
  for (const ParticleFeatures& f : data) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(f.segments.total()));
    std::ranges::generate(ids, [&] { return static_cast<std::int32_t>(rng.below(512)); });
    codes.push_back(Tensor::from(ids, {f.segments.total()}));
  }
  return most_of_a_step(data.size(), [&](std::size_t i) {
    const auto hidden = choose_masks(data[i].segments, 0.4F, rng);
    trainer.step([&] { return head(backbone, data[i], data[i], codes[i], hidden).loss; });
  });
}

TEST(SteadyStep, CountsAreThoseOfThisHeap) {
  const Watch watch;
  void* volatile kept = std::malloc(100);  // volatile: a compiler drops allocations nobody sees
  std::free(kept);
  kept = ::operator new(4000);
  ::operator delete(kept);
  kept = std::aligned_alloc(64, 6400);
  std::free(kept);
  const Count c = watch.count();
  EXPECT_EQ(c.allocations, kCountsAligned ? 3 : 2);
  EXPECT_EQ(c.bytes, 100 + 4000 + (kCountsAligned ? 6400 : 0));
  EXPECT_EQ(c.largest, kCountsAligned ? 6400 : 4000);
}

/// What stands, with a tenth to spare for other standard libraries: one allocation more for each op
/// of the tape, or for each parameter, goes beyond it. The largest is what the heap serves from
/// lists of its own: no buffer is mapped, none is touched for the first time.
void expect_at_most(const Count& known, Count (*step)()) {
  const auto bound = [](std::int64_t n) { return n + n / 10; };
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    const Count c = step();
    EXPECT_LE(c.allocations, bound(known.allocations));
    EXPECT_LE(c.bytes, bound(known.bytes));
    EXPECT_LE(c.largest, bound(known.largest));
  }
}

// Of the tape: a handle, a node, a closure and short lists for each op. Of the batch: offsets and
// rows that the host works out. Tensors themselves are in the arena.
TEST(SteadyStep, OfTheTokenizerAllocatesSmallObjectsOnly) {
  expect_at_most({.allocations = 911, .bytes = 139'620, .largest = 4572}, tokenizer_step);
}

TEST(SteadyStep, OfPreTrainingAllocatesSmallObjectsOnly) {
  expect_at_most({.allocations = 2722, .bytes = 713'714, .largest = 16'384}, pretraining_step);
}

}  // namespace
}  // namespace tessera
