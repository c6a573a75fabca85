// The search for the nearest code against its roofline: counters of the simt device and formulas in
// terms of shapes. Blocks of rows are alike, so one of them at full codebook size tells a launch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/vq/vq.h"
#include "tests/support/roofline.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(shape.size()));
  for (float& x : v) {
    x = static_cast<float>(rng.normal());
  }
  return Tensor::from(v, shape, kSimt);
}

// Rows near codes, as a trained encoder gives them, or as far from them as codes from each other.
enum class Rows : std::uint8_t { near, far };

Tensor rows_for(const Tensor& codes, std::int64_t n, Rows kind) {
  const std::int64_t k = codes.shape(0), d = codes.shape(1);
  std::vector<float> z = random({n, d}, 1).to_vector<float>();
  const std::vector<float> e = codes.to_vector<float>();
  for (std::int64_t i = 0; kind == Rows::near && i < n * d; ++i) {
    const std::int64_t code = i / d * 7919 % k;
    const auto at = static_cast<std::size_t>(i);
    z[at] = 0.05F * z[at] + e[static_cast<std::size_t>(code * d + i % d)];
  }
  return Tensor::from(z, {n, d}, kSimt);
}

/// Launches of one assignment of n rows to k codes of d dimensions, by name.
struct Assignment {
  double n, k, d;
  simt::LaunchStats search, scan, prepare;

  Assignment(std::int64_t rows, std::int64_t codes, std::int64_t dims, Rows kind = Rows::far)
      : n(static_cast<double>(rows)), k(static_cast<double>(codes)), d(static_cast<double>(dims)) {
    const Tensor e = random({codes, dims}, 2), z = rows_for(e, rows, kind);
    for (const simt::Launched& one : launches_of([&] { (void)vq_assign(z, e); })) {
      (one.kernel == "vq_nearest" ? search : one.kernel == "vq_scan" ? scan : prepare) += one.stats;
    }
  }
  // bf16 slots of a sum: three products of split operands and the half norm up to 4 dimensions; a
  // dimension of tf32 has the size and the time of two.
  [[nodiscard]] double slots() const { return 16 * std::ceil(d / 16); }
  [[nodiscard]] double scores() const { return 16 * std::ceil(n / 16) * 64 * std::ceil(k / 64); }
};

TEST(VqRoofline, ProductsAreThoseOfTheShapeAlone) {
  for (const auto& [n, k, d] : {std::tuple{1, 1, 4},
                                {17, 65, 3},
                                {257, 130, 8},
                                {40, 64, 16},
                                {300, 200, 31},
                                {16, 513, 64}}) {
    const Assignment a(n, k, d);
    const double parts = 8 * std::ceil(a.k / 64);
    EXPECT_EQ(static_cast<double>(a.search.mma), std::ceil(a.n / 16) * parts * a.slots() / 16)
        << n << " " << k << " " << d;
    EXPECT_EQ(a.search.exponentials, 0U);
  }
}

TEST(VqRoofline, RowsAndCodebookComeOnceFromMemoryAndIndicesGoThere) {
  for (const int d : {4, 8, 16, 32, 64}) {
    const Assignment a(1024, 512, d, Rows::near);
    // Operands, and codes with half norms for the exact scores.
    const double start = a.d > 4 ? 4 * a.k : 0;
    const double rows = 4 * a.n * a.d, operands = 2 * a.k * a.slots() + start;
    const double exact = a.k * (4 * a.d + 4);
    EXPECT_GE(32.0 * static_cast<double>(a.search.unique_sectors_read), rows + operands);
    EXPECT_LE(32.0 * static_cast<double>(a.search.unique_sectors_read),
              1.15 * (rows + operands + exact));
    EXPECT_LE(32.0 * static_cast<double>(a.search.sectors_read),
              1.15 * static_cast<double>(a.search.bytes_read));
    expect_few_wavefronts(a.search);
    EXPECT_EQ(static_cast<double>(a.search.async_bytes), rows + a.n / 256 * operands);
    // Indices, and at most a sector for each atomic and each row of the list.
    EXPECT_GE(32.0 * static_cast<double>(a.search.unique_sectors_written), 4 * a.n);
    EXPECT_LE(32.0 * static_cast<double>(a.search.sectors_written),
              4 * a.n + 64.0 * static_cast<double>(a.search.atomics));
  }
}

// Far from all codes, where more is scored again.
TEST(VqRoofline, CodesThatAreReadAgainComeInFullSectorsAndMeetNoBankTwice) {
  for (const auto& [k, d] : {std::pair{512, 64}, {2048, 32}, {2048, 16}, {8192, 64}}) {
    const Assignment a(256, k, d, Rows::far);
    EXPECT_LE(32.0 * static_cast<double>(a.search.sectors_read),
              1.15 * static_cast<double>(a.search.bytes_read))
        << k << " codes, " << d << " dimensions";
    expect_few_wavefronts(a.search);
  }
}

TEST(VqRoofline, AScoreCostsAboutOneMaximum) {
  for (const auto& [d, most] : {std::pair{4, 1.2}, {8, 1.2}, {16, 1.25}, {32, 1.7}, {64, 2.4}}) {
    const Assignment a(256, 2048, d);
    EXPECT_LE(static_cast<double>(a.search.extrema) / a.scores(), most) << d;
  }
}

/// A shape of the design.
struct Case {
  int n, k, d;
};
constexpr Case kCases[] = {{51200, 8192, 4},    {51200, 8192, 8},   {50000, 512, 64},
                           {1000000, 2048, 32}, {5000000, 8192, 8}, {5000000, 8192, 64}};

// Of the design: maxima at 0.94 a score, products on mma.sync, memory.
double floor_of(double n, double k, double d, double slots) {
  const double maxima = 0.94 * n * k / kH100.extrema;
  const double products = 2 * n * k * slots / kH100.tensor;
  const double memory = (4 * n * d + k * (2 * slots + 4 * d) + 4 * n) / kH100.dram;
  return std::max({maxima, products, memory});
}

// Of n rows: those of a block at a time, the codebook from memory once.
Prediction predicted(const Case& c, Rows kind) {
  const Assignment one(256, c.k, c.d, kind);
  const double blocks = std::ceil(c.n / 256.0);
  simt::LaunchStats s = one.search;
  const std::uint64_t codebook = s.unique_sectors_read - static_cast<std::uint64_t>(32 * c.d);
  for (auto* counter : {&s.sectors_read, &s.sectors_written, &s.mma, &s.extrema, &s.fused,
                        &s.wavefronts, &s.unique_sectors_written}) {
    *counter = static_cast<std::uint64_t>(static_cast<double>(*counter) * blocks);
  }
  s.unique_sectors_read = codebook + static_cast<std::uint64_t>(blocks * 32 * c.d);
  return predicted_time(s, kH100);
}

// Both before the few microseconds of a launch. Far from all codes, where a row's two best are
// often within what bf16 tells apart, more is scored exactly.
TEST(VqRoofline, PredictedTimesAreWithinThreeTenthsOfTheFloorsOfTheDesign) {
  for (const Case& c : kCases) {
    const double floor = floor_of(c.n, c.k, c.d, 16 * std::ceil(c.d / 16.0));
    for (const auto& [kind, name] : {std::pair{Rows::near, "near"}, {Rows::far, "far"}}) {
      const Prediction p = predicted(c, kind);
      EXPECT_LE(p.busy, 1.3 * floor) << c.n << " rows " << name << ", " << c.k << " codes, " << c.d
                                     << " dimensions: " << p.bound << ", floor " << floor;
      RecordProperty("N" + std::to_string(c.n) + "_K" + std::to_string(c.k) + "_D" +
                         std::to_string(c.d) + "_" + name,
                     std::to_string(1e6 * p.busy) + " us by " + p.bound + ", floor " +
                         std::to_string(1e6 * floor) + " us");
    }
  }
}

}  // namespace
}  // namespace tessera
