#include "kernels/layernorm/layernorm.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/executor.h"
#endif
#include "support/bf16_op.h"
#include "tests/kernels/layernorm_reference.h"

namespace tessera {
namespace {

std::vector<float> random(std::int64_t n, std::uint64_t seed, float scale = 1) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) {
    x = scale * static_cast<float>(1 + rng.normal());
  }
  return v;
}

struct Reference {
  std::vector<double> y, dx, dweight, dbias;
};

// Naive, in double; dx is the derivative of sum(dy * y) worked out for one row.
Reference reference(const std::vector<float>& x, const std::vector<float>& weight,
                    const std::vector<float>& bias, const std::vector<float>& dy) {
  const std::size_t d = weight.size(), n = x.size();
  Reference r{std::vector<double>(n), std::vector<double>(n), std::vector<double>(d),
              std::vector<double>(d)};
  for (std::size_t row = 0; row < n; row += d) {
    double mean = 0, variance = 0, g_mean = 0, gx_mean = 0;
    const auto size = static_cast<double>(d);
    for (std::size_t i = row; i < row + d; ++i) {
      mean += x[i] / size;
    }
    for (std::size_t i = row; i < row + d; ++i) {
      variance += (x[i] - mean) * (x[i] - mean) / size;
    }
    const double rstd = 1 / std::sqrt(variance + static_cast<double>(1e-5F));
    for (std::size_t i = row; i < row + d; ++i) {
      const double xhat = (x[i] - mean) * rstd, g = double{dy[i]} * weight[i - row];
      r.y[i] = xhat * weight[i - row] + bias[i - row];
      r.dweight[i - row] += dy[i] * xhat;
      r.dbias[i - row] += dy[i];
      g_mean += g / size;
      gx_mean += g * xhat / size;
    }
    for (std::size_t i = row; i < row + d; ++i) {
      const double xhat = (x[i] - mean) * rstd, g = double{dy[i]} * weight[i - row];
      r.dx[i] = rstd * (g - g_mean - xhat * gx_mean);
    }
  }
  return r;
}

double relative_error(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-30));
}

struct Inputs {
  Tensor x, weight, bias, dy;
};

Inputs inputs(std::int64_t t, std::int64_t d, Device device, float scale = 1) {
  Inputs in{Tensor::from(random(t * d, 1, scale), {t, d}, device),
            Tensor::from(random(d, 2), {d}, device), Tensor::from(random(d, 3), {d}, device),
            Tensor::from(random(t * d, 4), {t, d}, device)};
  return in;
}

struct Result {
  std::vector<float> y, dx, dweight, dbias;
  bool operator==(const Result&) const = default;
};

// Kernels called directly: no other op is needed on the device. Outputs start as NaN.
Result run(const Inputs& in) {
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::int64_t t = in.x.shape(0), d = in.x.shape(1);
  const auto out = [&](const Shape& shape) {
    const std::vector<float> nan(static_cast<std::size_t>(shape.size()), kNan);
    return Tensor::from(nan, shape, in.x.device());
  };
  const Tensor y = out({t, d}), mean = out({t}), rstd = out({t}), dx = out({t, d}), dw = out({d}),
               db = out({d}), partials = out({2, chunk_count(t, kLayerNormBlock), d});
  const auto call = [&](auto forward, auto backward, auto reduce) {
    forward(in.x.view<const float, 2>(), {}, in.weight.view<const float, 1>(),
            in.bias.view<const float, 1>(), 1e-5F, y.view<float, 2>(), mean.view<float, 1>(),
            rstd.view<float, 1>(), Stream{});
    backward(in.dy.view<const float, 2>(), {}, in.x.view<const float, 2>(),
             in.weight.view<const float, 1>(), mean.view<const float, 1>(),
             rstd.view<const float, 1>(), dx.view<float, 2>(), partials.view<float, 3>(), Stream{});
    reduce(partials.view<const float, 3>(), dw.view<float, 1>(), db.view<float, 1>(), Stream{});
  };
  switch (in.x.device().type) {
    case DeviceType::cpu:
      call(cpu::layernorm_forward, cpu::layernorm_backward, cpu::layernorm_reduce);
      break;
#ifdef TESSERA_BUILD_CUDA
    case DeviceType::cuda:
      call(cu::layernorm_forward, cu::layernorm_backward, cu::layernorm_reduce);
      break;
#endif
#ifdef TESSERA_BUILD_SIMT
    case DeviceType::simt:
      call(simt::layernorm_forward, simt::layernorm_backward, simt::layernorm_reduce);
      break;
#endif
    default:
      break;
  }
  return {y.to_vector<float>(), dx.to_vector<float>(), dw.to_vector<float>(),
          db.to_vector<float>()};
}

using Case = std::tuple<Device, int, int>;
class LayerNorm : public testing::TestWithParam<Case> {};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [device, t, d] = info.param;
  return std::string(name(device.type)) + "_" + std::to_string(t) + "x" + std::to_string(d);
}

TEST_P(LayerNorm, MatchesTheDoubleReference) {
  const auto& [device, t, d] = GetParam();
  const Inputs in = inputs(t, d, device);
  const Reference r = reference(random(t * d, 1), random(d, 2), random(d, 3), random(t * d, 4));
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(device == kCpu ? target : 0);
    const Result got = run(in);
    EXPECT_LT(relative_error(got.y, r.y), 1e-5);
    EXPECT_LT(relative_error(got.dweight, r.dweight), 1e-5);
    EXPECT_LT(relative_error(got.dbias, r.dbias), 1e-5);
    if (d > 1) {  // a row of one has dx = 0 but for rounding
      EXPECT_LT(relative_error(got.dx, r.dx), 1e-5);
    }
    EXPECT_EQ(run(in), got) << "a second run gave other bits";
    if (device != kCpu) {
      break;
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

INSTANTIATE_TEST_SUITE_P(Op, LayerNorm,
                         testing::Combine(testing::ValuesIn(devices()),
                                          testing::Values(0, 1, 31, 33, 257),
                                          testing::Values(1, 31, 32, 33, 128, 257, 1024)),
                         case_name);

TEST(LayerNormOp, GradientMatchesFiniteDifferencesOfTheReference) {
  const std::int64_t t = 3, d = 5;
  std::vector<float> x = random(t * d, 1);
  const std::vector<float> weight = random(d, 2), bias = random(d, 3), dy = random(t * d, 4);
  const Reference r = reference(x, weight, bias, dy);
  const auto loss = [&] {
    const std::vector<double> y = reference(x, weight, bias, dy).y;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      sum += y[i] * dy[i];
    }
    return sum;
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float keep = x[i], h = 1.0F / 512;
    x[i] = keep + h;
    const double above = loss();
    x[i] = keep - h;
    const double below = loss();
    x[i] = keep;
    EXPECT_NEAR((above - below) / (2 * double{h}), r.dx[i], 1e-3);
  }
}

TEST(LayerNormOp, TapeGivesTheGradientsOfEveryInputThatNeedsOne) {
  for (const bool needs_x : {false, true}) {
    Inputs in = inputs(4, 6, kCpu);
    in.weight.set_requires_grad(true);
    in.x.set_requires_grad(needs_x);
    const Tensor y = layer_norm(in.x, in.weight, in.bias);
    // loss = y[0, 0]: pick one element through free views.
    backward(y.slice(0, 0, 1).slice(1, 0, 1).reshape({}));
    EXPECT_TRUE(in.weight.grad().defined());
    EXPECT_EQ(in.x.grad().defined(), needs_x);
    EXPECT_FALSE(in.bias.grad().defined());
  }
}

TEST(LayerNormOp, BitsDoNotDependOnTheNumberOfThreads) {
  const Inputs in = inputs(1031, 48, kCpu);
  const int before = num_threads();
  const Result expected = run(in);
  for (const int threads : {1, 2, 3, 4, 7, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(run(in), expected) << threads << " threads";
  }
  set_num_threads(before);
}

TEST(LayerNormOp, LargeOffsetsKeepTheVariance) {
  // E[x^2] - m^2 would lose every digit here.
  std::vector<float> x{10000, 10001, 10002, 10003};
  const Tensor y = layer_norm(Tensor::from(x, {1, 4}), Tensor::full({4}, 1), Tensor::full({4}, 0));
  EXPECT_NEAR(y.to_vector<float>()[3], 1.3416, 1e-3);
}

TEST(LayerNormOp, ANanStaysInItsRow) {
  for (const Device device : devices()) {
    std::vector<float> x = random(4 * 8, 1);
    x[9] = std::numeric_limits<float>::quiet_NaN();
    Inputs in = inputs(4, 8, device);
    in.x = Tensor::from(x, {4, 8}, device);
    const Result got = run(in);
    for (std::size_t i = 0; i < got.y.size(); ++i) {
      EXPECT_EQ(std::isnan(got.y[i]), i / 8 == 1) << name(device.type) << " " << i;
    }
  }
}

#ifdef TESSERA_BUILD_SIMT
TEST(LayerNormSimt, BitsDoNotDependOnTheSchedule) {
  const Inputs in = inputs(300, 40, {DeviceType::simt, 0});
  const Result expected = run(in);
  const simt::ScheduleGuard reverse({simt::Order::reverse, 0});
  EXPECT_EQ(run(in), expected);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const simt::ScheduleGuard guard({simt::Order::random, seed});
    EXPECT_EQ(run(in), expected) << "seed " << seed;
  }
}

TEST(LayerNormSimt, ForwardReadsEachRowOnceInWholeSectors) {
  const std::int64_t t = 64, d = 256;
  const Inputs in = inputs(t, d, {DeviceType::simt, 0});
  const auto out = [&](const Shape& s) { return Tensor::empty(s, DType::f32, in.x.device()); };
  const Tensor y = out({t, d}), mean = out({t}), rstd = out({t});
  simt::layernorm_forward(in.x.view<const float, 2>(), {}, in.weight.view<const float, 1>(),
                          in.bias.view<const float, 1>(), 1e-5F, y.view<float, 2>(),
                          mean.view<float, 1>(), rstd.view<float, 1>(), Stream{});
  // x once, weight and bias once for every four rows.
  EXPECT_EQ(simt::last_launch().sectors_read,
            static_cast<std::uint64_t>((t + 2 * (t / 4)) * d * 4 / 32));
  EXPECT_EQ(simt::last_launch().sectors_written,
            static_cast<std::uint64_t>(t * d * 4 / 32 + 2 * (t / 4)));
  EXPECT_EQ(simt::last_launch().collectives, static_cast<std::uint64_t>(10 * t));
}
#endif

Tensor plain(std::int64_t n, const Shape& shape, std::uint64_t seed, float scale = 1) {
  return Tensor::from(random(n, seed, scale), shape);
}

// Widths with and without whole quads, with one to eight of them a lane; scales over six decades.
TEST(LayerNormBf16, MatchesTheDoubleReferenceOnRoundedRows) {
  const auto op = [](const auto& x) { return layer_norm(x[0], x[1], x[2]); };
  float scale = 1e-2F;
  for (const std::int64_t d : {2, 31, 32, 33, 132, 257}) {
    for (const std::int64_t t : {1, 5}) {
      testing_support::check_bf16_op(
          op, testing_support::normed_rows(d),
          {plain(t * d, {t, d}, 1, scale), plain(d, {d}, 2), plain(d, {d}, 3)}, 1);
    }
    scale *= 10;
  }
}

TEST(LayerNormBf16, NoRowsAndManyWideRowsAgreeWithTheCpu) {
  using testing_support::bf16_answers_on, testing_support::values_of;
  const auto op = [](const auto& x) { return layer_norm(x[0], x[1], x[2]); };
  for (const auto& [t, d] : {std::pair<std::int64_t, std::int64_t>{0, 8}, {31, 513}, {257, 40}}) {
    const std::vector<Tensor> in{testing_support::rounded(plain(t * d, {t, d}, 1)),
                                 plain(d, {d}, 2), plain(d, {d}, 3)};
    const Tensor up = testing_support::rounded(plain(t * d, {t * d}, 4));
    const auto expected = bf16_answers_on(op, in, 1, up, kCpu);
    for (const Device device : devices()) {
      const auto got = bf16_answers_on(op, in, 1, up, device);
      EXPECT_LE(testing_support::relative_error(values_of(got.y), values_of(expected.y)), 1e-4);
      for (std::size_t k = 0; k < 3; ++k) {  // sums of f32 but for the rounding of dx
        EXPECT_LE(testing_support::relative_error(values_of(got.gradients[k]),
                                                  values_of(expected.gradients[k])),
                  k == 0 ? 1e-3 : 1e-5)
            << d << " gradient " << k;
      }
    }
  }
}

TEST(LayerNormBf16, ANanStaysInItsRow) {
  for (const Device device : devices()) {
    std::vector<float> x = random(4 * 8, 1);
    x[9] = std::numeric_limits<float>::quiet_NaN();
    const Tensor y = layer_norm(Tensor::from(x, {4, 8}).to(DType::bf16).to(device),
                                Tensor::full({8}, 1, DType::f32, device),
                                Tensor::zeros({8}, DType::f32, device));
    const auto got = testing_support::values_of(y);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(std::isnan(got[i]), i / 8 == 1) << name(device.type) << " " << i;
    }
  }
}

#ifdef TESSERA_BUILD_SIMT
TEST(LayerNormBf16, StatisticsAreF32) {
  constexpr Device kSimt{DeviceType::simt, 0};
  const std::int64_t t = 9, d = 200;
  const Tensor x = testing_support::rounded(plain(t * d, {t, d}, 1, 30));
  const auto weight = plain(d, {d}, 2).to(kSimt), bias = plain(d, {d}, 3).to(kSimt);
  const Tensor rows = x.to(DType::bf16).to(kSimt);
  const Tensor y = Tensor::empty({t, d}, DType::bf16, kSimt);
  const Tensor mean = Tensor::empty({t}, DType::f32, kSimt),
               rstd = Tensor::empty({t}, DType::f32, kSimt);
  simt::layernorm_forward_bf16(rows.view<const bf16, 2>(), {}, weight.view<const float, 1>(),
                               bias.view<const float, 1>(), 1e-5F, y.view<bf16, 2>(),
                               mean.view<float, 1>(), rstd.view<float, 1>(), Stream{});
  const auto means = mean.to_vector<float>(), slopes = rstd.to_vector<float>();
  const auto v = x.to_vector<float>();
  for (std::size_t row = 0; row < means.size(); ++row) {
    double m = 0, square = 0;
    for (std::size_t i = row * 200; i < (row + 1) * 200; ++i) m += v[i] / 200.0;
    for (std::size_t i = row * 200; i < (row + 1) * 200; ++i) square += std::pow(v[i] - m, 2) / 200;
    EXPECT_NEAR(means[row], m, 1e-5 * std::abs(m));
    EXPECT_NEAR(slopes[row] * std::sqrt(square + 1e-5), 1, 1e-5);
  }
}
#endif

TEST(LayerNormOp, RejectsShapesThatDoNotFit) {
  const Tensor x = Tensor::zeros({2, 3}), three = Tensor::zeros({3}), four = Tensor::zeros({4});
  EXPECT_THROW(layer_norm(three, three, three), Error);
  EXPECT_THROW(layer_norm(x, four, three), Error);
  EXPECT_THROW(layer_norm(x, three, four), Error);
}

}  // namespace
}  // namespace tessera
