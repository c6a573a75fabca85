// Counters of attention on simt against formulas in terms of shapes: n = ceil(L / 16), T tokens, H
// heads of D, d = H D, an element of 2 bytes. Predicted times are those of the counters, scaled to
// 1000 jets, not measured ones.
#include "support/roofline.h"

#include "core/autograd.h"
#include "core/rng.h"
#include "kernels/attention/attention.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using testing_support::random;

constexpr Device kSimt{DeviceType::simt, 0};

struct Jets {
  std::vector<std::int32_t> lengths;
  std::int64_t heads, width;
  bool causal = false;

  [[nodiscard]] double tokens() const {
    double t = 0;
    for (const std::int32_t l : lengths) t += l;
    return t;
  }
  [[nodiscard]] double dims() const { return static_cast<double>(heads * width); }
  // H times the blocks of 16 x 16 scores.
  [[nodiscard]] std::uint64_t blocks() const {
    std::uint64_t sum = 0;
    for (const std::int32_t l : lengths) {
      const auto n = static_cast<std::uint64_t>((l + 15) / 16);
      sum += causal ? n * (n + 1) / 2 : n * n;
    }
    return sum * static_cast<std::uint64_t>(heads);
  }
  [[nodiscard]] std::uint64_t depth() const {
    return static_cast<std::uint64_t>((width + 15) / 16);
  }
  [[nodiscard]] std::uint64_t columns() const { return static_cast<std::uint64_t>(width / 8); }
};

struct Passes {
  simt::LaunchStats forward, backward;
};

// Without the tape's own copies.
simt::LaunchStats attention_of(std::vector<simt::Launched> launches) {
  std::erase_if(launches, [](const auto& l) { return !l.kernel.starts_with("attention"); });
  return total_of(launches);
}

Passes run(const Jets& jets, DType dtype = DType::bf16) {
  const Segments s = Segments::from_lengths(jets.lengths);
  Tensor x = random({s.total(), 3, jets.heads, jets.width}, 1).to(dtype).to(kSimt);
  const Tensor up = random({s.total(), jets.heads, jets.width}, 2).to(dtype).to(kSimt);
  x.set_requires_grad(true);
  Tensor y;
  Passes p;
  p.forward = attention_of(launches_of([&] { y = attention(x, s, {.causal = jets.causal}); }));
  p.backward = attention_of(launches_of([&] {
    backward(differentiable(Tensor::scalar(0), {y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
  }));
  return p;
}

// Classes of 32, 64 and 128 rows, and windows.
const std::vector<Jets> kShapes{{{30, 30, 31, 32}, 8, 32}, {{50, 50, 47, 33}, 8, 32},
                                {{128, 128}, 8, 32},       {{128, 70}, 8, 32, true},
                                {{64, 50}, 8, 16},         {{128, 100}, 8, 8},
                                {{100, 128}, 4, 64}};

TEST(AttentionRoofline, MmaAndExponentialsEqualTheFormulas) {
  for (const Jets& jets : kShapes) {
    const Passes p = run(jets);
    const std::uint64_t n = jets.blocks(), dk = jets.depth(), d8 = jets.columns();
    EXPECT_EQ(p.forward.mma, n * (2 * dk + d8)) << "D " << jets.width;
    EXPECT_EQ(p.forward.exponentials, 256 * n) << "D " << jets.width;
    EXPECT_EQ(p.backward.mma, n * (8 * dk + 3 * d8)) << "D " << jets.width;
    EXPECT_EQ(p.backward.exponentials, 512 * n) << "D " << jets.width;
  }
}

// Three products of tf32, which has half the depth of bf16: six times the tensor cores' time.
// (Three times while f32 was the sum of two bf16, whose products were exact to 4e-6 only.)
TEST(AttentionRoofline, F32TakesThreeProductsOfTf32) {
  for (const Jets& jets : {Jets{{50, 33}, 2, 32}, Jets{{100, 20}, 4, 16}, Jets{{64, 30}, 4, 8},
                           Jets{{128, 40}, 1, 64}, Jets{{150}, 1, 32}}) {
    const Passes p = run(jets, DType::f32);
    const std::uint64_t n = jets.blocks(), d8 = jets.columns();
    EXPECT_EQ(p.forward.mma, 3 * n * (2 * d8 + 2 * d8)) << "D " << jets.width;
    EXPECT_EQ(p.backward.mma, 3 * n * (8 * d8 + 3 * 2 * d8)) << "D " << jets.width;
    EXPECT_EQ(p.forward.mma_k8 + p.backward.mma_k8, 0U) << "D " << jets.width;
    expect_few_wavefronts(p.forward);
    expect_few_wavefronts(p.backward);
  }
}

// 1.15: the places of blocks in the batch, and the edges of what lies by head.
TEST(AttentionRoofline, EveryTensorPassesOnceInWholeSectors) {
  for (const Jets& jets : kShapes) {
    SCOPED_TRACE("D " + std::to_string(jets.width));
    const Passes p = run(jets);
    const double row = 2 * jets.tokens() * jets.dims();
    const double lse = 4 * jets.tokens() * static_cast<double>(jets.heads);
    expect_dram_bytes(p.forward, 3 * row, row + lse, 1.15);
    expect_dram_bytes(p.backward, 5 * row + lse, 3 * row, 1.15);
    EXPECT_EQ(static_cast<double>(p.forward.async_bytes), 3 * row);
    EXPECT_EQ(static_cast<double>(p.backward.async_bytes), 4 * row);
    if (jets.width >= 16) {  // a strip of a narrower head fills no sector; its neighbour does
      expect_coalesced(p.forward, 1.15);
      expect_coalesced(p.backward, 1.15);
    }
  }
}

TEST(AttentionRoofline, SharedMemoryMeetsNoBankTwice) {
  for (const Jets& jets : kShapes) {
    const Passes p = run(jets);
    expect_few_wavefronts(p.forward);
    expect_few_wavefronts(p.backward);
  }
}

// Heads share a block: as many as fill its eight warps.
TEST(AttentionRoofline, BlocksMeetOnceForwardAndTwiceBackward) {
  const auto blocks = [](std::int32_t length, std::uint64_t heads) {
    const std::uint64_t together = length <= 32 ? 4 : length <= 64 ? 2 : 1;
    return 4 * heads / together;
  };
  for (const std::int32_t length : {20, 64, 128}) {
    const Passes p = run({{length, length, length, length}, 8, 32});
    EXPECT_EQ(p.forward.barriers, blocks(length, 8)) << length;
    EXPECT_EQ(p.backward.barriers, 2 * blocks(length, 8)) << length;
  }
}

TEST(AttentionRoofline, PredictedTimesAreNearTheFloorsOfDram) {
  for (const std::int32_t length : {30, 50, 128}) {
    const Jets jets{{length, length}, 8, 32};
    const Passes p = run(jets);
    const double tokens = 1000.0 * length, d = jets.dims(), lse = 4 * tokens * 8;
    const double floor[2] = {(8 * tokens * d + lse) / kH100.dram,
                             (16 * tokens * d + lse) / kH100.dram};
    const simt::LaunchStats* pass[2] = {&p.forward, &p.backward};
    for (int i = 0; i < 2; ++i) {
      const Prediction two = predicted_time(*pass[i], kH100);
      const double seconds = two.busy * 500 + kH100.launch_overhead;
      EXPECT_LE(seconds, 1.3 * floor[i]) << length << " pass " << i << " by " << two.bound;
      RecordProperty("L" + std::to_string(length) + (i == 0 ? "_forward" : "_backward"),
                     std::to_string(1e6 * seconds) + " us by " + two.bound + ", floor " +
                         std::to_string(1e6 * floor[i]));
    }
  }
}

}  // namespace
}  // namespace tessera
