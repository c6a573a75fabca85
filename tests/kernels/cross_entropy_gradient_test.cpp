// Losses and gradients of devices at precision bf16, which store no logits: against a double
// reference on rounded operands, what must not change a bit, and the counters against formulas in
// terms of shapes.
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
constexpr float kFactor = 0.125F;

struct Got {
  std::vector<float> losses, dh, dw, db;
  bool operator==(const Got&) const = default;
};

/// Which gradients are asked for.
struct Wanted {
  bool dh = true, dw = true, db = true;
};

Got run(const CrossEntropyProblem& p, const Tensor& rows, Wanted wanted = {}) {
  const auto poisoned = [](const Shape& shape) {
    return Tensor::full(shape, NAN, DType::f32, kSimt);
  };
  const Tensor loss = poisoned({p.t}), dh = poisoned({wanted.dh ? p.t : 0, p.d}),
               dw = poisoned({wanted.dw ? p.v : 0, p.d}), db = poisoned({wanted.db ? p.v : 0});
  const Tensor scratch = Tensor::empty({GradientScratch(p.t, p.v, p.d).size}, DType::f32, kSimt);
  simt::cross_entropy_gradients(rows.view<const float, 2>(),
                                p.weight.to(kSimt).view<const float, 2>(),
                                p.bias.to(kSimt).view<const float, 1>(),
                                Tensor::from(p.y, {p.t}, kSimt).view<const std::int32_t, 1>(),
                                p.row_weight.to(kSimt).view<const float, 1>(), kFactor,
                                loss.view<float, 1>(), dh.view<float, 2>(), dw.view<float, 2>(),
                                db.view<float, 1>(), scratch.view<float, 1>(), Stream{});
  return {loss.to_vector<float>(), dh.to_vector<float>(), dw.to_vector<float>(),
          db.to_vector<float>()};
}
Got run(const CrossEntropyProblem& p, Wanted wanted = {}) { return run(p, p.h.to(kSimt), wanted); }

double off(const std::vector<float>& got, const std::vector<double>& expected) {
  return relative_error({got.begin(), got.end()}, expected);
}

// |error| <= 2^-6 (|expected| + rms) in each element
void expect_each_near(const std::vector<float>& got, const std::vector<double>& expected) {
  double squares = 0;
  for (const double e : expected) {
    squares += e * e;
  }
  const double rms = std::sqrt(squares / static_cast<double>(expected.size()));
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(std::abs(static_cast<double>(got[i]) - expected[i]),
              (std::abs(expected[i]) + rms) / 64)
        << i;
  }
}

void expect_close(const CrossEntropyProblem& p) {
  SCOPED_TRACE(std::to_string(p.t) + " " + std::to_string(p.v) + " " + std::to_string(p.d));
  const Got got = run(p);
  const CrossEntropyAnswers expected = p.expected(true, static_cast<double>(kFactor));
  EXPECT_LE(off(got.losses, expected.losses), 1e-5);
  EXPECT_LE(off(got.db, expected.db), 1e-5);
  EXPECT_LE(off(got.dh, expected.dh), 1e-2);
  EXPECT_LE(off(got.dw, expected.dw), 1e-2);
  expect_each_near(got.dh, expected.dh);
  expect_each_near(got.dw, expected.dw);
}

// Around fragments, blocks, tiles, halves of tiles, units of the depth.
TEST(CrossEntropyGradients, MatchTheDoubleReference) {
  for (const auto& [t, v, d] : {std::tuple{1, 2, 1},
                                {1, 31, 33},
                                {17, 129, 3},
                                {31, 33, 31},
                                {33, 64, 32},
                                {129, 65, 33},
                                {65, 300, 64},
                                {70, 40, 129},
                                {16, 257, 256}}) {
    expect_close({t, v, d});
  }
}

TEST(CrossEntropyGradients, OfALoneClassAreZero) {
  const Got got = run({5, 1, 7});
  for (const auto& values : {got.losses, got.dh, got.dw, got.db}) {
    for (const float x : values) {
      EXPECT_EQ(x, 0.0F);
    }
  }
}

// More than a thousand rows for few classes: dw and db are sums of parts.
TEST(CrossEntropyGradients, PartsOfTheRowsAreAdded) {
  const CrossEntropyProblem p(1090, 40, 8);
  EXPECT_EQ(GradientScratch(p.t, p.v, p.d).parts, 2);
  EXPECT_EQ(GradientScratch(1024, p.v, p.d).parts, 1);
  expect_close(p);
}

TEST(CrossEntropyGradients, BitsDoNotDependOnTheSchedule) {
  const CrossEntropyProblem p(70, 150, 40);
  const Got expected = run(p);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const simt::ScheduleGuard guard({seed == 0 ? simt::Order::reverse : simt::Order::random, seed});
    EXPECT_EQ(run(p), expected) << "seed " << seed;
  }
}

TEST(CrossEntropyGradients, ARowWithNanTouchesNoOtherRow) {
  const CrossEntropyProblem p(40, 100, 24);
  const Got expected = run(p);
  const Tensor poisoned = p.h.clone();
  poisoned.span<float>()[17 * 24 + 5] = NAN;
  const Got got = run(p, poisoned.to(kSimt));
  for (std::size_t i = 0; i < got.dh.size(); ++i) {
    EXPECT_TRUE(i / 24 == 17 ? std::isnan(got.dh[i]) : got.dh[i] == expected.dh[i]) << i;
  }
  for (std::size_t i = 0; i < got.losses.size(); ++i) {
    EXPECT_TRUE(i == 17 ? std::isnan(got.losses[i]) : got.losses[i] == expected.losses[i]) << i;
  }
}

// The slope of a target is 1 - p, which f32 would lose beside 1.
TEST(CrossEntropyGradients, OfRowsThatAreAlmostCertainKeepTheirPrecision) {
  CrossEntropyProblem p(20, 50, 16);
  p.y.assign(20, 3);
  p.weight = random({50, 16}, 2, 0.2);
  p.bias = Tensor::full({50}, 0.0F);
  p.bias.span<float>()[3] = 20;
  const Got got = run(p);
  const CrossEntropyAnswers expected = p.expected(true, static_cast<double>(kFactor));
  EXPECT_LE(off(got.db, expected.db), 1e-5);
  EXPECT_LE(off(got.dh, expected.dh), 1e-2);
  EXPECT_LE(off(got.dw, expected.dw), 1e-2);
  for (const double slope : expected.db) {
    EXPECT_LT(std::abs(slope), 1e-6);
  }
}

TEST(CrossEntropyGradients, LargeLogitsDoNotOverflow) {
  CrossEntropyProblem p(5, 100, 8);
  p.h = random({5, 8}, 1, 1e3);
  expect_close(p);
}

TEST(CrossEntropyGradients, RowsWithoutWeightAddExactZeros) {
  const CrossEntropyProblem p(40, 33, 8);
  const Tensor huge = p.h.clone();
  for (std::size_t i = 0; i < 40; i += 3) {
    p.row_weight.span<float>()[i] = 0;
    for (std::size_t j = 0; j < 8; ++j) {
      huge.span<float>()[8 * i + j] = 3e4F;
    }
  }
  const Got got = run(p);
  for (std::size_t i = 0; i < got.dh.size(); ++i) {
    EXPECT_TRUE(i / 8 % 3 != 0 || got.dh[i] == 0.0F) << i;
  }
  const Got with_huge_rows = run(p, huge.to(kSimt));
  EXPECT_EQ(with_huge_rows.dw, got.dw);
  EXPECT_EQ(with_huge_rows.db, got.db);
}

TEST(CrossEntropyGradients, RowsMayHaveAnyStrideAndGradientsBeLeftOut) {
  const CrossEntropyProblem p(20, 30, 9);
  const Tensor wide = Tensor::full({20, 12}, NAN);
  copy_into(wide.slice(1, 3, 12), p.h);
  const Got all = run(p);
  EXPECT_EQ(run(p, wide.to(kSimt).slice(1, 3, 12)), all);
  EXPECT_EQ(run(p, {.dh = true, .dw = false, .db = false}).dh, all.dh);
  EXPECT_EQ(run(p, {.dh = false, .dw = true, .db = false}).dw, all.dw);
  EXPECT_EQ(run(p, {.dh = false, .dw = false, .db = true}).db, all.db);
  EXPECT_EQ(run(p, {.dh = false, .dw = true, .db = false}).losses, all.losses);
}

// The op takes these kernels where their sums fit in registers.
TEST(CrossEntropyGradients, AreThoseOfTheOpAtPrecisionBf16) {
  const CrossEntropyProblem p(40, 70, 24);
  const Got expected = run(p);
  Tensor h = p.h.to(kSimt), w = p.weight.to(kSimt), b = p.bias.to(kSimt);
  for (Tensor* leaf : {&h, &w, &b}) {
    leaf->set_requires_grad(true);
  }
  const PrecisionScope scope(Precision::bf16);
  const auto stores_logits = [](const auto& launches) {
    return std::ranges::any_of(
        launches, [](const auto& one) { return one.kernel == "softmax_cross_entropy"; });
  };
  EXPECT_FALSE(stores_logits(launches_of([&] {
    backward(linear_cross_entropy(h, w, b, Tensor::from(p.y, {p.t}), p.row_weight.to(kSimt), 8));
  })));
  EXPECT_EQ(h.grad().to_vector<float>(), expected.dh);
  EXPECT_EQ(w.grad().to_vector<float>(), expected.dw);
  EXPECT_EQ(b.grad().to_vector<float>(), expected.db);
  const CrossEntropyProblem wide(3, 20, GradientScratch::kWidest + 1);
  Tensor rows = wide.h.to(kSimt);
  rows.set_requires_grad(true);
  EXPECT_TRUE(stores_logits(launches_of([&] {
    (void)linear_cross_entropy(rows, wide.weight.to(kSimt), Tensor(), Tensor::from(wide.y, {3}));
  })));
}

// ---- counters ----

simt::LaunchStats launch_of(const char* kernel, const CrossEntropyProblem& p) {
  simt::LaunchStats sum;
  for (const simt::Launched& one : launches_of([&] { (void)run(p); })) {
    if (one.kernel == kernel) {
      sum += one.stats;
    }
  }
  return sum;
}

/// A shape in whole tiles.
struct Tiles {
  double rows, classes, depth;      ///< of 64, 64 and 32
  double row_blocks, class_blocks;  ///< of 128
  explicit Tiles(const CrossEntropyProblem& p)
      : rows(std::ceil(static_cast<double>(p.t) / 64)),
        classes(std::ceil(static_cast<double>(p.v) / 64)),
        depth(std::ceil(static_cast<double>(p.d) / 32)),
        row_blocks(std::ceil(static_cast<double>(p.t) / 128)),
        class_blocks(std::ceil(static_cast<double>(p.v) / 128)) {}
  /// mma of two products of 128 x 64 x 32.
  static constexpr double kProducts = 2.0 * (128 / 16) * (64 / 8) * (32 / 16);
  /// Bytes of 64 rows.
  [[nodiscard]] double tile_bytes() const { return 64 * 2 * 32 * depth; }
};

const std::tuple<int, int, int> kCounted[] = {{1, 2, 16}, {17, 129, 32}, {129, 300, 48}};

TEST(CrossEntropyRoofline, TheRowsPassHasTheProductsExponentialsAndBarriersOfItsShape) {
  for (const auto& [t, v, d] : kCounted) {
    const CrossEntropyProblem p(t, v, d);
    const Tiles n(p);
    const simt::LaunchStats s = launch_of("cross_entropy_rows", p);
    const double visits = n.row_blocks * n.classes;
    EXPECT_EQ(static_cast<double>(s.mma), visits * n.depth * Tiles::kProducts);
    // One rescaling for 8 logits of a lane; at the end two for each row in eight lanes and in one.
    EXPECT_EQ(static_cast<double>(s.exponentials), visits * 128 * 64 * (1 + 1.0 / 8) + 18 * t);
    // A block's for each tile, two of each pair of warps, and one at the end.
    EXPECT_EQ(static_cast<double>(s.barriers), visits * (1 + 2 * 4) + n.row_blocks * 4);
    EXPECT_EQ(static_cast<double>(s.async_bytes), (2 * n.row_blocks + visits) * n.tile_bytes());
  }
}

TEST(CrossEntropyRoofline, TheClassesPassHasTheProductsExponentialsAndBarriersOfItsShape) {
  for (const auto& [t, v, d] : kCounted) {
    const CrossEntropyProblem p(t, v, d);
    const Tiles n(p);
    const simt::LaunchStats s = launch_of("cross_entropy_classes", p);
    const double visits = n.class_blocks * n.rows;
    EXPECT_EQ(static_cast<double>(s.mma), visits * n.depth * Tiles::kProducts);
    EXPECT_EQ(static_cast<double>(s.exponentials), visits * 128 * 64 - t);  // but for the targets
    EXPECT_EQ(static_cast<double>(s.barriers), visits * (1 + 4) + n.class_blocks * 2);
    EXPECT_EQ(static_cast<double>(s.async_bytes),
              2 * n.class_blocks * n.tile_bytes() + visits * (n.tile_bytes() + 64 * 16));
  }
}

TEST(CrossEntropyRoofline, EachPassReadsItsOwnRowsOnceAndTheOthersOncePerBlock) {
  const CrossEntropyProblem p(256, 256, 64);
  const double t = 256, v = 256, d = 64, operands = 2 * (t + v) * d;
  const simt::LaunchStats rows = launch_of("cross_entropy_rows", p);
  // The weight of each target comes as f32.
  expect_dram_bytes(rows, operands + 4 * v * d + 4 * v + 8 * t, 4 * t * d + 20 * t, 1.15);
  const simt::LaunchStats classes = launch_of("cross_entropy_classes", p);
  expect_dram_bytes(classes, operands + 4 * v + 16 * t, 4 * v * d + 4 * v, 1.15);
  for (const simt::LaunchStats& s : {rows, classes, launch_of("cross_entropy_pack", p)}) {
    expect_coalesced(s, 1.15);
    expect_few_wavefronts(s);
  }
}

TEST(CrossEntropyRoofline, PartsAreReadOnceAndTheirSumWrittenOnce) {
  const CrossEntropyProblem p(1090, 40, 8);
  const simt::LaunchStats s = launch_of("cross_entropy_add_parts", p);
  const double bytes = 4.0 * 40 * 9;
  expect_dram_bytes(s, 2 * bytes, bytes, 1.15);
  expect_coalesced(s, 1.15);
}

// Of the design: T = 51,200 and d = 256, tiles that are made again take four units of mma.sync.
TEST(CrossEntropyRoofline, ThePredictedTimeOfAllGradientsIsNearFourUnitsOfMmaSync) {
  for (const double v : {8192.0, 32768.0}) {
    const double seconds =
        bench::predicted_loss_time(bench::loss_launches({51200, v, true, Precision::bf16}), kH100);
    const double floor = 4 * 2 * 51200 * v * 256 / 610e12;
    EXPECT_LE(seconds, 1.3 * floor) << "V = " << v;
    EXPECT_GE(seconds, floor);
    RecordProperty("V" + std::to_string(static_cast<int>(v)),
                   std::to_string(1e6 * seconds) + " us, floor " + std::to_string(1e6 * floor));
  }
}

}  // namespace
}  // namespace tessera
