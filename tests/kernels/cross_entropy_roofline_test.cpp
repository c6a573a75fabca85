// The loss of devices that stores no logits: its values against a double reference, and its
// counters against formulas in terms of shapes.
#include <cmath>

#include "kernels/cross_entropy/cross_entropy.h"
#include "support/gradcheck.h"
#include "tests/support/roofline.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

constexpr Device kSimt{DeviceType::simt, 0};

/// A problem of t rows, v classes and width d, and its losses in double.
struct Problem {
  std::int64_t t, v, d;
  Tensor h, weight, bias, row_weight;
  std::vector<std::int32_t> y;

  Problem(std::int64_t rows, std::int64_t classes, std::int64_t width)
      : t(rows),
        v(classes),
        d(width),
        h(random({rows, width}, 1)),
        weight(random({classes, width}, 2)),
        bias(random({classes}, 3)),
        row_weight(random({rows}, 4)) {
    for (std::int64_t i = 0; i < t; ++i) {
      y.push_back(static_cast<std::int32_t>((7919 * i + 3) % v));
    }
  }
  [[nodiscard]] std::vector<double> expected() const {
    const auto H = doubles(h), W = doubles(weight), B = doubles(bias), R = doubles(row_weight);
    std::vector<double> losses;
    for (std::size_t i = 0; i < y.size(); ++i) {
      std::vector<double> z(B);
      for (std::size_t k = 0; k < z.size(); ++k) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(d); ++j) {
          z[k] += H[i * static_cast<std::size_t>(d) + j] * W[k * static_cast<std::size_t>(d) + j];
        }
      }
      double sum = 0;
      const double top = *std::max_element(z.begin(), z.end());
      for (const double each : z) {
        sum += std::exp(each - top);
      }
      losses.push_back(R[i] * (std::log(sum) + top - z[static_cast<std::size_t>(y[i])]));
    }
    return losses;
  }
  [[nodiscard]] std::vector<float> losses(const Tensor& rows) const {
    const Tensor loss = Tensor::full({t}, NAN, DType::f32, kSimt);
    const Tensor scratch = Tensor::empty({LossScratch(v, d).size}, DType::f32, kSimt);
    simt::cross_entropy_loss(rows.view<const float, 2>(), weight.to(kSimt).view<const float, 2>(),
                             bias.to(kSimt).view<const float, 1>(),
                             Tensor::from(y, {t}, kSimt).view<const std::int32_t, 1>(),
                             row_weight.to(kSimt).view<const float, 1>(), loss.view<float, 1>(),
                             scratch.view<float, 1>(), Stream{});
    return loss.to_vector<float>();
  }
  [[nodiscard]] std::vector<float> losses() const { return losses(h.to(kSimt)); }
};

// Around fragments, blocks of rows, halves of a tile, tiles and steps of the depth.
TEST(CrossEntropyLoss, MatchesTheDoubleReferenceRowByRow) {
  for (const auto& [t, v, d] : {std::tuple{1, 1, 1},
                                {1, 2, 1},
                                {17, 129, 3},
                                {33, 128, 16},
                                {129, 300, 33},
                                {40, 514, 64},
                                {130, 40, 129},
                                {16, 257, 256}}) {
    const Problem p(t, v, d);
    const auto got = p.losses(), again = p.losses();
    EXPECT_LE(relative_error({got.begin(), got.end()}, p.expected()), 1e-5)
        << t << " " << v << " " << d;
    EXPECT_EQ(got, again);
  }
}

TEST(CrossEntropyLoss, BitsDoNotDependOnTheScheduleNorOnOtherRows) {
  const Problem p(40, 300, 40);
  const auto expected = p.losses();
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const simt::ScheduleGuard guard({seed == 0 ? simt::Order::reverse : simt::Order::random, seed});
    EXPECT_EQ(p.losses(), expected) << "seed " << seed;
  }
  const Tensor poisoned = p.h.clone();
  poisoned.span<float>()[17 * 40 + 5] = NAN;
  const auto got = p.losses(poisoned.to(kSimt));
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(i == 17 ? std::isnan(got[i]) : got[i] == expected[i]) << i;
  }
}

TEST(CrossEntropyLoss, RowsMayHaveAnyStride) {
  const Problem p(20, 30, 8);
  const Tensor wide = Tensor::full({20, 11}, NAN);
  copy_into(wide.slice(1, 3, 11), p.h);
  EXPECT_EQ(p.losses(wide.to(kSimt).slice(1, 3, 11)), p.losses());
}

TEST(CrossEntropyLoss, LargeLogitsDoNotOverflow) {
  Problem p(5, 100, 8);
  p.h = random({5, 8}, 1, 1e4);
  const auto got = p.losses();
  EXPECT_LE(relative_error({got.begin(), got.end()}, p.expected()), 1e-5);
}

// Evaluation and training agree, whether the width fits in shared memory or not.
TEST(CrossEntropyLoss, WithoutATapeNoLogitsAreStoredAndTheLossIsThatOfTraining) {
  for (const std::int64_t d : {24, 257}) {
    const Tensor h = random({50, d}, 1, 0.1).to(kSimt), b = random({60}, 3).to(kSimt);
    Tensor w = random({60, d}, 2).to(kSimt);
    const Tensor y = Tensor::from(Problem(50, 60, 1).y, {50});
    float loss = 0;
    bool stored = false;
    for (const simt::Launched& one :
         launches_of([&] { loss = linear_cross_entropy(h, w, b, y).item(); })) {
      stored = stored || one.kernel == "softmax_cross_entropy";
    }
    EXPECT_EQ(stored, d > LossScratch::kWidest);
    w.set_requires_grad(true);
    EXPECT_NEAR(loss / linear_cross_entropy(h, w, b, y).item(), 1, 1e-6);
  }
}

simt::LaunchStats launch_of(const char* kernel, const Problem& p) {
  const Tensor h = p.h.to(kSimt);
  simt::LaunchStats sum;
  for (const simt::Launched& one : launches_of([&] { (void)p.losses(h); })) {
    if (one.kernel == kernel) {
      sum += one.stats;
    }
  }
  return sum;
}

TEST(CrossEntropyRoofline, ProductsAndExponentialsAreThoseOfTheShape) {
  for (const auto& [t, v, d] :
       {std::tuple{1, 2, 16}, {17, 129, 32}, {129, 300, 48}, {40, 514, 64}}) {
    const simt::LaunchStats s = launch_of("cross_entropy_loss", Problem(t, v, d));
    const double fragments = std::ceil(t / 16.0), classes = 128 * std::ceil(v / 128.0);
    // Three products of split operands; one rescaling for 32 logits of a lane, and the merging of
    // four lanes and two halves of a row.
    EXPECT_EQ(static_cast<double>(s.mma), 3 * fragments * classes / 8 * std::ceil(d / 16.0));
    EXPECT_EQ(static_cast<double>(s.exponentials),
              16 * fragments * classes * (1 + 1.0 / 32) + 16 * fragments * 8 + 2 * t);
  }
}

TEST(CrossEntropyRoofline, RowsComeOnceTheWeightOncePerBlockAndLossesGo) {
  for (const auto& [t, v, d] : {std::tuple{256, 512, 64}, {128, 256, 256}}) {
    const simt::LaunchStats s = launch_of("cross_entropy_loss", Problem(t, v, d));
    const double rows = 4.0 * t * d, operands = 4.0 * v * d;
    expect_dram_bytes(s, rows + operands + 4.0 * v + 8.0 * t, 4.0 * t, 1.15);
    EXPECT_EQ(static_cast<double>(s.async_bytes), t / 128 * operands);
    EXPECT_LE(32.0 * static_cast<double>(s.sectors_read),
              1.15 * (rows + t / 128 * operands + t / 32 * 4.0 * v + 8.0 * t));
    expect_few_wavefronts(s);
    const simt::LaunchStats pack = launch_of("cross_entropy_pack", Problem(t, v, d));
    expect_dram_bytes(pack, operands + 4.0 * v, operands + 4.0 * v, 1.15);
    expect_coalesced(pack, 1.15);
  }
}

// Of the design: T = 51,200 and d = 256; f32 takes three products, so three units on mma.sync.
// Blocks of rows and tiles of classes are alike, so that 128 rows and 512 classes tell the rest.
TEST(CrossEntropyRoofline, ThePredictedTimeIsNearThreeUnitsOfMmaSync) {
  const simt::LaunchStats one = launch_of("cross_entropy_loss", Problem(128, 512, 256));
  for (const double v : {8192.0, 32768.0}) {
    const double t = 51200, d = 256, scale = t / 128 * v / 512;
    simt::LaunchStats s = one;
    for (auto* counter : {&s.sectors_read, &s.sectors_written, &s.mma, &s.extrema, &s.exponentials,
                          &s.special_functions, &s.wavefronts}) {
      *counter = static_cast<std::uint64_t>(static_cast<double>(*counter) * scale);
    }
    s.unique_sectors_read = static_cast<std::uint64_t>((t + v) * d / 8);
    const Prediction p = predicted_time(s, kH100);
    const double floor = 3 * 2 * t * v * d / kH100.tensor;
    EXPECT_LE(p.busy, 1.3 * floor) << p.bound;
    RecordProperty("V" + std::to_string(static_cast<int>(v)),
                   std::to_string(1e6 * p.busy) + " us by " + p.bound + ", floor " +
                       std::to_string(1e6 * floor) + " us");
  }
}

}  // namespace
}  // namespace tessera
