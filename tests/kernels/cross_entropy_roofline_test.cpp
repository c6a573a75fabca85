// The loss of devices that stores no logits: its values against a double reference, and its
// counters against formulas in terms of shapes.
#include <cmath>

#include "bench/gpu/training_loss.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/precision.h"
#include "tests/kernels/cross_entropy_reference.h"
#include "tests/support/roofline.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

constexpr Device kSimt{DeviceType::simt, 0};

struct Problem : CrossEntropyProblem {
  using CrossEntropyProblem::CrossEntropyProblem;

  [[nodiscard]] std::vector<float> losses(const Tensor& rows, Precision precision) const {
    const bool bf16 = precision == Precision::bf16;
    const Tensor loss = Tensor::full({t}, NAN, DType::f32, kSimt);
    const LossScratch shape(v, d, bf16 ? PackedRows::kBf16Depth : PackedRows::kF32Depth);
    const Tensor scratch = Tensor::empty({shape.size}, DType::f32, kSimt);
    (bf16 ? simt::cross_entropy_loss_bf16 : simt::cross_entropy_loss)(
        rows.view<const float, 2>(), weight.to(kSimt).view<const float, 2>(),
        bias.to(kSimt).view<const float, 1>(),
        Tensor::from(y, {t}, kSimt).view<const std::int32_t, 1>(),
        row_weight.to(kSimt).view<const float, 1>(), loss.view<float, 1>(),
        scratch.view<float, 1>(), Stream{});
    return loss.to_vector<float>();
  }
  [[nodiscard]] std::vector<float> losses(Precision precision) const {
    return losses(h.to(kSimt), precision);
  }
  // Of operands as they are multiplied.
  void expect_close(Precision precision) const {
    const auto got = losses(precision);
    EXPECT_LE(
        relative_error({got.begin(), got.end()}, expected(precision == Precision::bf16).losses),
        precision == Precision::f32 ? 1e-6 : 1e-5)
        << t << " " << v << " " << d << " " << name(precision);
    EXPECT_EQ(got, losses(precision));
  }
};

constexpr Precision kBoth[] = {Precision::f32, Precision::bf16};

// Around fragments, blocks of rows, halves of a tile, tiles and units of the depth.
TEST(CrossEntropyLoss, MatchesTheDoubleReferenceRowByRow) {
  for (const auto& [t, v, d] : {std::tuple{1, 1, 1},
                                {1, 2, 1},
                                {17, 129, 3},
                                {33, 128, 16},
                                {129, 300, 33},
                                {40, 514, 64},
                                {130, 40, 129},
                                {16, 257, 256}}) {
    for (const Precision precision : kBoth) {
      Problem(t, v, d).expect_close(precision);
    }
  }
  for (const std::int64_t d : {257, 511, 512}) {
    Problem(18, 130, d).expect_close(Precision::bf16);
  }
}

TEST(CrossEntropyLoss, BitsDoNotDependOnTheScheduleNorOnOtherRows) {
  for (const Precision precision : kBoth) {
    const Problem p(40, 300, 40);
    const auto expected = p.losses(precision);
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const simt::ScheduleGuard guard(
          {seed == 0 ? simt::Order::reverse : simt::Order::random, seed});
      EXPECT_EQ(p.losses(precision), expected) << "seed " << seed;
    }
    const Tensor poisoned = p.h.clone();
    poisoned.span<float>()[17 * 40 + 5] = NAN;
    const auto got = p.losses(poisoned.to(kSimt), precision);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(i == 17 ? std::isnan(got[i]) : got[i] == expected[i]) << i;
    }
  }
}

TEST(CrossEntropyLoss, RowsMayHaveAnyStride) {
  const Problem p(20, 30, 8);
  const Tensor wide = Tensor::full({20, 11}, NAN);
  copy_into(wide.slice(1, 3, 11), p.h);
  for (const Precision precision : kBoth) {
    EXPECT_EQ(p.losses(wide.to(kSimt).slice(1, 3, 11), precision), p.losses(precision));
  }
}

TEST(CrossEntropyLoss, LargeLogitsDoNotOverflow) {
  Problem p(5, 100, 8);
  p.h = random({5, 8}, 1, 1e4);
  for (const Precision precision : kBoth) {
    p.expect_close(precision);
  }
}

// Evaluation and training agree, whether the width fits in shared memory and registers or not.
TEST(CrossEntropyLoss, WithoutATapeNoLogitsAreStoredAndTheLossIsThatOfTraining) {
  for (const auto& [precision, d, widest] : {std::tuple{Precision::f32, 24, 256},
                                             {Precision::f32, 257, 256},
                                             {Precision::bf16, 24, 512},
                                             {Precision::bf16, 257, 512},
                                             {Precision::bf16, 513, 512}}) {
    const PrecisionScope scope(precision);
    const Tensor h = random({50, d}, 1, 0.1).to(kSimt), b = random({60}, 3).to(kSimt);
    Tensor w = random({60, d}, 2).to(kSimt);
    const Tensor y = Tensor::from(CrossEntropyProblem(50, 60, 1).y, {50});
    float loss = 0;
    bool stored = false;
    for (const simt::Launched& one :
         launches_of([&] { loss = linear_cross_entropy(h, w, b, y).item(); })) {
      stored = stored || one.kernel == "softmax_cross_entropy";
    }
    EXPECT_EQ(stored, d > widest);
    w.set_requires_grad(true);
    EXPECT_NEAR(loss / linear_cross_entropy(h, w, b, y).item(), 1, 1e-6);
  }
}

simt::LaunchStats launch_of(const char* kernel, const Problem& p, Precision precision) {
  const Tensor h = p.h.to(kSimt);
  simt::LaunchStats sum;
  for (const simt::Launched& one : launches_of([&] { (void)p.losses(h, precision); })) {
    if (one.kernel == kernel) {
      sum += one.stats;
    }
  }
  return sum;
}

/// In mma on bf16: of f32 three products on tf32, which has half the depth.
double products(Precision p) { return p == Precision::bf16 ? 1 : 6; }
double operand_bytes(Precision p) { return p == Precision::bf16 ? 2 : 4; }
double depth_step(Precision p) { return p == Precision::bf16 ? 32 : 16; }

TEST(CrossEntropyRoofline, ProductsExponentialsAndBarriersAreThoseOfTheShape) {
  for (const Precision precision : kBoth) {
    for (const auto& [t, v, d] :
         {std::tuple{1, 2, 16}, {17, 129, 32}, {129, 300, 48}, {40, 514, 64}}) {
      const simt::LaunchStats s = launch_of("cross_entropy_loss", Problem(t, v, d), precision);
      const double fragments = std::ceil(t / 16.0), classes = 128 * std::ceil(v / 128.0);
      const double steps = std::ceil(d / depth_step(precision));
      // One rescaling for 32 logits of a lane, and the merging of four lanes and two halves of a
      // row.
      EXPECT_EQ(static_cast<double>(s.mma),
                products(precision) * fragments * classes / 8 * steps * depth_step(precision) / 16);
      EXPECT_EQ(static_cast<double>(s.exponentials),
                16 * fragments * classes * (1 + 1.0 / 32) + 16 * fragments * 8 + 2 * t);
      EXPECT_EQ(static_cast<double>(s.barriers),
                std::ceil(t / 128.0) * (std::ceil(v / 256.0) * steps + 1));
    }
  }
}

TEST(CrossEntropyRoofline, RowsComeOnceTheWeightOncePerBlockAndLossesGo) {
  for (const auto& [precision, t, v, d] : {std::tuple{Precision::f32, 256, 512, 64},
                                           {Precision::f32, 128, 256, 256},
                                           {Precision::bf16, 256, 512, 64},
                                           {Precision::bf16, 128, 256, 512}}) {
    const Problem p(t, v, d);
    const simt::LaunchStats s = launch_of("cross_entropy_loss", p, precision);
    const double rows = 4.0 * t * d, operands = operand_bytes(precision) * v * d;
    expect_dram_bytes(s, rows + operands + 4.0 * v + 8.0 * t, 4.0 * t, 1.15);
    EXPECT_EQ(static_cast<double>(s.async_bytes), t / 128 * operands);
    EXPECT_LE(32.0 * static_cast<double>(s.sectors_read),
              1.15 * (rows + t / 128 * operands + t / 32 * 4.0 * v + 8.0 * t));
    expect_few_wavefronts(s);
    const simt::LaunchStats pack = launch_of("cross_entropy_pack", p, precision);
    expect_dram_bytes(pack, 4.0 * v * d + 4.0 * v, operands + 4.0 * v, 1.15);
    expect_coalesced(pack, 1.15);
  }
}

// Of the design: T = 51,200 and d = 256; one unit of the bf16 rate of mma.sync, and six for the
// three products of f32: 2.1 ms for 8192 classes. (Three units and 1.06 ms while f32 was the sum of
// two bf16, whose products were exact to 4e-6 only.)
TEST(CrossEntropyRoofline, ThePredictedTimeOfLossesIsNearTheUnitsOfMmaSync) {
  for (const Precision precision : kBoth) {
    for (const double v : {8192.0, 32768.0}) {
      const double seconds =
          bench::predicted_loss_time(bench::loss_launches({51200, v, false, precision}), kH100);
      const double floor = products(precision) * 2 * 51200 * v * 256 / 610e12;
      EXPECT_LE(seconds, 1.3 * floor) << name(precision) << " V = " << v;
      EXPECT_GE(seconds, floor);
      RecordProperty(std::string(name(precision)) + "V" + std::to_string(static_cast<int>(v)),
                     std::to_string(1e6 * seconds) + " us, floor " + std::to_string(1e6 * floor));
    }
  }
}

}  // namespace
}  // namespace tessera
