// The nearest code on every device: bit-equal to the canonical score written out here.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/vq/vq.h"
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/executor.h"
#endif

namespace tessera {
namespace {

std::vector<float> random(int n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) {
    x = static_cast<float>(rng.normal());
  }
  return v;
}

struct Problem {
  int n, k, d;
  std::vector<float> z, codes, half_norm;  // (n, d), (k, d), (k)

  Problem(int rows, int code_count, int dims)
      : n(rows), k(code_count), d(dims), z(random(n * d, 1)), codes(random(k * d, 2)) {
    set_norms();
  }
  void set_norms() {
    half_norm.assign(static_cast<std::size_t>(k), 0.0F);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < d; ++j) {
        const float e = at(codes, i, j);
        half_norm[static_cast<std::size_t>(i)] =
            std::fma(e, e, half_norm[static_cast<std::size_t>(i)]);
      }
      half_norm[static_cast<std::size_t>(i)] *= 0.5F;
    }
  }
  [[nodiscard]] float at(const std::vector<float>& v, int row, int column) const {
    return v[static_cast<std::size_t>(row * d + column)];
  }
  // s = -h_k, then fma over d ascending; the largest wins, ties to the smaller index, NaN gives 0.
  [[nodiscard]] std::vector<std::int32_t> expected() const {
    std::vector<std::int32_t> winners;
    for (int row = 0; row < n; ++row) {
      float best = -std::numeric_limits<float>::infinity();
      std::int32_t winner = 0;
      for (int i = 0; i < k; ++i) {
        float s = -half_norm[static_cast<std::size_t>(i)];
        for (int j = 0; j < d; ++j) {
          s = std::fma(at(z, row, j), at(codes, i, j), s);
        }
        if (s > best) {
          best = s;
          winner = i;
        }
      }
      winners.push_back(winner);
    }
    return winners;
  }
  // Runs the kernel on copies with padded rows; codes start at -1.
  [[nodiscard]] std::vector<std::int32_t> run(Device device,
                                              std::vector<std::int32_t>* counters = nullptr,
                                              const Tensor* rows = nullptr) const {
    std::vector<float> transposed(codes.size());
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < d; ++j) {
        transposed[static_cast<std::size_t>(j * k + i)] = at(codes, i, j);
      }
    }
    const Tensor dz = Tensor::from(z, {n, d}, device),
                 dt = Tensor::from(transposed, {d, k}, device),
                 dh = Tensor::from(half_norm, {k}, device);
    const std::vector<std::int32_t> nothing(static_cast<std::size_t>(n), -1);
    const Tensor out = Tensor::from(nothing, {n}, device);
    const Tensor scratch = Tensor::empty({VqScratch(n, k, d).size}, DType::i32, device);
    const auto call = [&](auto nearest) {
      nearest((rows == nullptr ? dz : *rows).view<const float, 2>(), dt.view<const float, 2>(),
              dh.view<const float, 1>(), out.view<std::int32_t, 1>(),
              scratch.view<std::int32_t, 1>(), Stream{});
    };
    switch (device.type) {
      case DeviceType::cpu:
        call(cpu::vq_nearest);
        break;
#ifdef TESSERA_BUILD_CUDA
      case DeviceType::cuda:
        call(cu::vq_nearest);
        break;
#endif
#ifdef TESSERA_BUILD_SIMT
      case DeviceType::simt:
        call(simt::vq_nearest);
        break;
#endif
      default:
        break;
    }
    if (counters != nullptr) {
      *counters = scratch.slice(0, 0, VqScratch::kCounters).to_vector<std::int32_t>();
    }
    return out.to_vector<std::int32_t>();
  }
  void expect_canonical(const std::string& what) const {
    const std::vector<std::int32_t> want = expected();
    for (const Device device : devices()) {
      EXPECT_EQ(run(device), want) << what << " on " << name(device.type);
    }
  }
};

using Case = std::tuple<Device, int, int, int>;
class VqNearest : public testing::TestWithParam<Case> {};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [device, n, k, d] = info.param;
  return std::string(name(device.type)) + "_N" + std::to_string(n) + "_K" + std::to_string(k) +
         "_D" + std::to_string(d);
}

TEST_P(VqNearest, EqualsTheCanonicalScoreBitForBit) {
  const auto& [device, n, k, d] = GetParam();
  const Problem p(n, k, d);
  EXPECT_EQ(p.run(device), p.expected());
}

// Around a fragment, a block of rows and a tile of codes; each width of the search and its edges.
INSTANTIATE_TEST_SUITE_P(Op, VqNearest,
                         testing::Combine(testing::ValuesIn(devices()),
                                          testing::Values(0, 1, 33, 257),
                                          testing::Values(1, 15, 64, 65, 257),
                                          testing::Values(1, 3, 4, 8, 16, 31, 32, 64, 70, 130)),
                         case_name);

TEST(VqNearestOp, TiesGoToTheSmallerIndex) {
  for (const Device device : devices()) {
    Problem p(33, 64, 4);
    for (int i = 0; i < 64; ++i) {  // every code occurs four times
      for (int j = 0; j < 4; ++j) {
        p.codes[static_cast<std::size_t>(i * 4 + j)] =
            p.codes[static_cast<std::size_t>(i % 16 * 4 + j)];
      }
    }
    p.set_norms();
    const std::vector<std::int32_t> got = p.run(device);
    EXPECT_EQ(got, p.expected()) << name(device.type);
    for (const std::int32_t code : got) {
      EXPECT_LT(code, 16) << name(device.type);
    }
  }
}

TEST(VqNearestOp, ANanRowGivesIndexZeroAndLeavesTheOthersAlone) {
  for (const Device device : devices()) {
    Problem p(33, 40, 8);
    const std::vector<std::int32_t> clean = p.expected();
    p.z[17 * 8 + 3] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<std::int32_t> got = p.run(device);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i], i == 17 ? 0 : clean[i]) << name(device.type) << " row " << i;
    }
  }
}

void scale_by(std::vector<float>& v, float factor) {
  for (float& x : v) {
    x *= factor;
  }
}

// Down to scores that underflow and rows of subnormal numbers, up to norms that overflow.
TEST(VqNearestOp, AnyScaleOfRowsAndCodesGivesTheCanonicalIndex) {
  for (const int d : {3, 8, 16, 33}) {
    for (const float rows : {1e-41F, 1e-30F, 1e-18F, 1e-3F, 1e3F, 1e16F, 1e25F}) {
      for (const float codes : {1e-41F, 1e-20F, 1e-3F, 1e3F, 1e10F, 1e17F, 1e20F}) {
        Problem p(20, 70, d);
        scale_by(p.z, rows);
        scale_by(p.codes, codes);
        p.set_norms();
        p.expect_canonical(std::to_string(d) + " dimensions, rows " + std::to_string(rows) +
                           ", codes " + std::to_string(codes));
      }
    }
  }
}

// Every score has neighbours a few last bits away: bf16 cannot tell them apart.
TEST(VqNearestOp, NearTiesAreDecidedByTheCanonicalScore) {
  for (const int d : {1, 4, 8, 16, 32, 64}) {
    for (const float step : {0x1p-23F, 0x1p-18F, 0x1p-12F, 0x1p-8F}) {
      Problem p(70, 200, d);
      for (std::size_t i = 0; i < p.codes.size(); ++i) {
        const std::size_t code = i / static_cast<std::size_t>(d), of = code % 20;
        p.codes[i] = p.codes[of * static_cast<std::size_t>(d) + i % static_cast<std::size_t>(d)] *
                     (1 + step * static_cast<float>(code / 20));
      }
      p.set_norms();
      p.expect_canonical(std::to_string(d) + " dimensions, step " + std::to_string(step));
    }
  }
}

// Codebooks that stay in shared memory and those that pass through it, from 33 dimensions on.
TEST(VqNearestOp, CodebooksOfEverySizeGiveTheCanonicalIndex) {
  for (const int d : {5, 6, 33, 64}) {
    for (const int k : {511, 512, 513, 640}) {
      Problem(40, k, d).expect_canonical(std::to_string(k) + " codes of " + std::to_string(d) +
                                         " dimensions");
    }
  }
}

// Two codes around the middle between two numbers of the operands' format, which rounds all of one
// up and all of the other down, and rows there too: the coarse scores favour the first by nearly
// all that they can be wrong, the canonical ones are about equal.
TEST(VqNearestOp, TheWorstRoundingOfOperandsHidesNoWinner) {
  for (const int d : {5, 8, 16, 32, 64}) {
    for (const auto& [up, down] : {std::pair{17, 201}, {201, 17}, {17, 18}, {40, 41}, {0, 599}}) {
      Problem p(48, 600, d);
      const float middle = d <= 8 ? 0x1p-11F : 0x1p-8F;
      for (std::size_t i = 0; i < p.z.size(); ++i) {
        p.z[i] = 1 + middle * (1 + 0.05F * p.z[i]);
      }
      for (float& x : p.codes) {  // far from all rows
        x = x > 0 ? -1.0F : 0.5F;
      }
      for (int j = 0; j < d; ++j) {
        p.codes[static_cast<std::size_t>(up * d + j)] = 1 + middle * 1.01F;
        p.codes[static_cast<std::size_t>(down * d + j)] = 1 + middle * 0.99F;
      }
      p.set_norms();
      p.expect_canonical(std::to_string(d) + " dimensions, codes " + std::to_string(up) + " and " +
                         std::to_string(down));
    }
  }
}

// Small integers: scores are exact and ties are everywhere, also between groups and lanes.
TEST(VqNearestOp, LatticesTieEverywhereAndTheSmallestIndexWins) {
  for (const int d : {1, 3, 8, 16, 64}) {
    Problem p(70, 300, d);
    for (float& x : p.z) {
      x = std::round(x);
    }
    for (float& x : p.codes) {
      x = std::round(x);
    }
    p.set_norms();
    p.expect_canonical(std::to_string(d) + " dimensions");
  }
}

// Every code of +-1 scores alike there: more candidates than are ever scored again.
TEST(VqNearestOp, RowsThatAreEqualInBf16AreToldApart) {
  for (const int d : {12, 32, 64}) {
    Problem p(70, 300, d);
    for (float& x : p.z) {
      x = 1 + 0x1p-11F * x;
    }
    for (int at = 0; at < p.k * d; at += 2) {  // as many of either sign in each code
      const auto first = static_cast<std::size_t>(at);
      p.codes[first] = p.codes[first] > 0 ? 1.0F : -1.0F;
      p.codes[first + 1] = -p.codes[first];
    }
    p.set_norms();
    p.expect_canonical(std::to_string(d) + " dimensions");
  }
}

// Of four codes in a row, rows near them: neither coarse nor refined scores can tell which.
TEST(VqNearestOp, CodesThatAreEqualInBf16AreToldApart) {
  for (const int d : {12, 32, 64}) {
    Problem p(300, 300, d);
    const auto bf16 = [](float x) {
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xffff0000U);
    };
    for (int i = 0; i < p.k * d; ++i) {
      const auto first = static_cast<std::size_t>(i / (4 * d) * 4 * d + i % d);
      p.codes[static_cast<std::size_t>(i)] =
          bf16(p.codes[first]) * (1 + 0x1p-11F * p.codes[static_cast<std::size_t>(i)]);
    }
    p.set_norms();
    for (int i = 0; i < p.n * d; ++i) {
      p.z[static_cast<std::size_t>(i)] =
          0.05F * p.z[static_cast<std::size_t>(i)] + p.codes[static_cast<std::size_t>(i)];
    }
    p.expect_canonical(std::to_string(d) + " dimensions");
  }
}

TEST(VqNearestOp, CodesThatAreNotFiniteOrZeroHideNoOther) {
  for (const int d : {4, 8, 16, 64}) {
    Problem p(40, 130, d);
    const auto set = [&](int code, float value) {
      for (int j = 0; j < d; ++j) {
        p.codes[static_cast<std::size_t>(code * d + j)] = value;
      }
    };
    set(0, 0.0F);
    set(3, std::numeric_limits<float>::quiet_NaN());
    set(64, std::numeric_limits<float>::infinity());
    set(65, -std::numeric_limits<float>::infinity());
    set(129, 0.0F);
    p.set_norms();
    p.expect_canonical(std::to_string(d) + " dimensions");
    set(7, 1e18F);  // finite, but beyond what the coarse search trusts
    p.set_norms();
    p.expect_canonical(std::to_string(d) + " dimensions, one far away");
  }
}

TEST(VqNearestOp, OnlyCodesThatAreNoNumbersGiveIndexZero) {
  Problem p(5, 3, 4);
  p.codes.assign(12, std::numeric_limits<float>::quiet_NaN());
  p.set_norms();
  p.expect_canonical("all codes NaN");
}

// A row's index does not depend on what stands before it in memory: rows need not be aligned.
TEST(VqNearestOp, RowsMayHaveAnyStride) {
  for (const Device device : devices()) {
    const Problem p(33, 40, 8);
    std::vector<float> wide;
    for (int row = 0; row < p.n; ++row) {
      for (int j = 0; j < 11; ++j) {
        wide.push_back(j < 3 ? std::numeric_limits<float>::quiet_NaN() : p.at(p.z, row, j - 3));
      }
    }
    const Tensor z = Tensor::from(wide, {33, 11}, device).slice(1, 3, 11);
    EXPECT_EQ(p.run(device, nullptr, &z), p.expected()) << name(device.type);
  }
}

#ifdef TESSERA_BUILD_SIMT
TEST(VqNearestSimt, CodesDoNotDependOnTheSchedule) {
  const Problem p(200, 300, 40);
  const std::vector<std::int32_t> expected = p.expected();
  const simt::ScheduleGuard reverse({simt::Order::reverse, 0});
  EXPECT_EQ(p.run({DeviceType::simt, 0}), expected);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const simt::ScheduleGuard guard({simt::Order::random, seed});
    EXPECT_EQ(p.run({DeviceType::simt, 0}), expected) << "seed " << seed;
  }
}

// How the search decided the rows of the last run on simt.
TEST(VqNearestSimt, MostRowsNeedOneCandidateAndHardlyAnyAFullScan) {
  for (const int d : {4, 8, 16, 32, 64}) {
    const Problem p(256, 1000, d);
    std::vector<std::int32_t> counters;
    EXPECT_EQ(p.run({DeviceType::simt, 0}, &counters), p.expected());
    const int scanned = counters[VqScratch::kScanned], contested = counters[VqScratch::kContested];
    EXPECT_LE(scanned, d <= 8 ? 0 : 13) << d;
    EXPECT_LE(contested, d <= 8 ? 13 : 80) << d;
    RecordProperty("scanned_D" + std::to_string(d), scanned);
    RecordProperty("contested_D" + std::to_string(d), contested);
  }
}

TEST(VqNearestSimt, RowsThatMoreCodesShareThanCanBeKeptAreScanned) {
  Problem p(40, 600, 8);
  for (std::size_t i = 0; i < p.codes.size(); ++i) {
    p.codes[i] = p.codes[i % 8];
  }
  p.set_norms();
  std::vector<std::int32_t> counters;
  EXPECT_EQ(p.run({DeviceType::simt, 0}, &counters), std::vector<std::int32_t>(40, 0));
  EXPECT_EQ(counters[VqScratch::kScanned], 40);
}
#endif

}  // namespace
}  // namespace tessera
