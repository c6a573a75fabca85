#include "core/storage.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/rng.h"
#include "core/tensor.h"

namespace tessera {
namespace {

const float* data(const Tensor& t) { return t.span<const float>().data(); }

TEST(StepArena, AReturnedBlockServesTheNextTensorOfItsSizeClass) {
  StepArena arena;
  const ArenaScope scope(arena);
  const Tensor kept = Tensor::empty({1000});
  const float* first = data(Tensor::empty({1000}));
  const float* larger = data(Tensor::empty({9000}));
  EXPECT_NE(first, larger);
  EXPECT_EQ(data(Tensor::empty({1000})), first);
  EXPECT_EQ(data(Tensor::empty({1001})), first) << "1000 and 1001 floats are one class";
  EXPECT_NE(data(Tensor::empty({1000})), data(kept));
}

// Random sizes and lifetimes; the bytes of each tensor must stay what was written.
TEST(StepArena, LivingTensorsAreAlignedAndDoNotOverlap) {
  StepArena arena;
  const ArenaScope scope(arena);
  Rng rng(1);
  std::vector<Tensor> alive;
  for (int i = 0; i < 2000; ++i) {
    const auto size = static_cast<std::int64_t>(rng.below(i % 50 == 0 ? 3'000'000 : 3000));
    Tensor t = Tensor::full({size}, static_cast<float>(i));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data(t)) % 64, 0U);
    alive.push_back(std::move(t));
    if (alive.size() > 20) {
      const auto which = static_cast<std::ptrdiff_t>(rng.below(alive.size()));
      const auto values = alive[static_cast<std::size_t>(which)].span<const float>();
      EXPECT_TRUE(std::ranges::all_of(values, [&](float x) { return x == values[0]; }));
      alive.erase(alive.begin() + which);
    }
  }
}

TEST(StepArena, StepsOfVaryingLengthDoNotMakeItGrow) {
  StepArena arena;
  Rng rng(2);
  std::size_t after_ten = 0;
  for (int step = 0; step < 200; ++step) {
    {
      const ArenaScope scope(arena);
      const auto rows = static_cast<std::int64_t>(4000 + rng.below(400));
      Tensor h = Tensor::empty({rows, 64});
      for (int layer = 0; layer < 100; ++layer) {
        h = Tensor::empty({rows, 64});
      }
    }
    arena.reset();
    after_ten = step == 10 ? arena.capacity() : after_ten;
  }
  EXPECT_EQ(arena.capacity(), after_ten);
  EXPECT_LE(arena.capacity(), std::size_t{32} << 20) << "a chain needs two tensors at a time";
}

TEST(StepArena, SlabsOfAnArenaThatIsGoneServeTheNext) {
  const float* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    StepArena arena;
    const ArenaScope scope(arena);
    const float* p = data(Tensor::empty({1000}));
    EXPECT_TRUE(first == nullptr || p == first);
    first = p;
  }
}

}  // namespace
}  // namespace tessera
