// The nearest code on every device: bit-equal to the canonical score written out here.
#include <gtest/gtest.h>

#include <cmath>
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
  [[nodiscard]] std::vector<std::int32_t> run(Device device) const {
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
    const auto call = [&](auto nearest) {
      nearest(dz.view<const float, 2>(), dt.view<const float, 2>(), dh.view<const float, 1>(),
              out.view<std::int32_t, 1>(), Stream{});
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
    return out.to_vector<std::int32_t>();
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

INSTANTIATE_TEST_SUITE_P(Op, VqNearest,
                         testing::Combine(testing::ValuesIn(devices()),
                                          testing::Values(0, 1, 127, 129),
                                          testing::Values(1, 15, 16, 17, 257),
                                          testing::Values(1, 4, 8, 31, 32, 33, 64)),
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

#ifdef TESSERA_BUILD_SIMT
TEST(VqNearestSimt, CodesDoNotDependOnTheSchedule) {
  const Problem p(200, 40, 40);
  const std::vector<std::int32_t> expected = p.expected();
  const simt::ScheduleGuard reverse({simt::Order::reverse, 0});
  EXPECT_EQ(p.run({DeviceType::simt, 0}), expected);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const simt::ScheduleGuard guard({simt::Order::random, seed});
    EXPECT_EQ(p.run({DeviceType::simt, 0}), expected) << "seed " << seed;
  }
}

TEST(VqNearestSimt, ReadsRowsOnceAndTheCodebookOncePerBlockOfRows) {
  const Problem p(256, 64, 8);  // two blocks of 128 rows
  EXPECT_EQ(p.run({DeviceType::simt, 0}), p.expected());
  const std::uint64_t rows = 4 * 256 * 8, codebook = 4 * (64 * 8 + 64);
  EXPECT_EQ(simt::last_launch().bytes_read, rows + 2 * codebook);
  EXPECT_EQ(simt::last_launch().bytes_written, 4U * 256U);
}
#endif

}  // namespace
}  // namespace tessera
