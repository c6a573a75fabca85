#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <tuple>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/executor.h"
#endif

namespace tessera {
namespace {

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  Tensor t = Tensor::empty(shape);
  for (float& x : t.span<float>()) {
    x = static_cast<float>(rng.normal());
  }
  return t;
}

double activate(double x, Activation a) {
  switch (a) {
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::gelu:
      return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::none:
      break;
  }
  return x;
}

double slope(double x, Activation a) {
  const double h = 1e-5;
  return a == Activation::relu ? (x > 0) : (activate(x + h, a) - activate(x - h, a)) / (2 * h);
}

// Normwise; the floor is for single elements, which may sit on a zero of the slope.
double relative_error(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-2));
}

using Case = std::tuple<int, int, int, Activation>;
class Linear : public testing::TestWithParam<Case> {};

// The reference: loops in double. Gradients for the upstream gradient w: dz = w act'(z).
TEST_P(Linear, MatchesTheDoubleReferenceOnEverySimdLevel) {
  const auto [t, i, o, act] = GetParam();
  Tensor x = random({t, i}, 1), weight = random({o, i}, 2), bias = random({o}, 3);
  for (float& w :
       weight
           .span<float>()) {  // z of order one: gelu's far tail multiplies the rounding of z by |z|
    w /= std::sqrt(static_cast<float>(i));
  }
  const Tensor upstream = random({t, o}, 4);
  const auto X = x.to_vector<float>(), W = weight.to_vector<float>(), B = bias.to_vector<float>(),
             G = upstream.to_vector<float>();
  const auto at = [](int r, int c, int columns) {
    return static_cast<std::size_t>(r * columns + c);
  };
  std::vector<double> y(at(t, 0, o)), dx(at(t, 0, i)), dw(at(o, 0, i)),
      db(static_cast<std::size_t>(o));
  for (int r = 0; r < t; ++r) {
    for (int c = 0; c < o; ++c) {
      double z = B[static_cast<std::size_t>(c)];
      for (int k = 0; k < i; ++k) {
        z += static_cast<double>(X[at(r, k, i)]) * static_cast<double>(W[at(c, k, i)]);
      }
      y[at(r, c, o)] = activate(z, act);
      const double dz = static_cast<double>(G[at(r, c, o)]) * slope(z, act);
      db[static_cast<std::size_t>(c)] += dz;
      for (int k = 0; k < i; ++k) {
        dx[at(r, k, i)] += dz * static_cast<double>(W[at(c, k, i)]);
        dw[at(c, k, i)] += dz * static_cast<double>(X[at(r, k, i)]);
      }
    }
  }
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (Tensor* p : {&x, &weight, &bias}) {
      p->set_requires_grad(true);
      p->set_grad(Tensor());
    }
    const Tensor out = linear(x, weight, bias, act);
    EXPECT_LE(relative_error(out.to_vector<float>(), y), 1e-5) << hwy::TargetName(target);
    const Tensor weighted = differentiable(Tensor::scalar(0), {out}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{upstream};
    });
    backward(weighted);
    EXPECT_LE(relative_error(x.grad().to_vector<float>(), dx), 1e-5) << hwy::TargetName(target);
    EXPECT_LE(relative_error(weight.grad().to_vector<float>(), dw), 1e-5)
        << hwy::TargetName(target);
    EXPECT_LE(relative_error(bias.grad().to_vector<float>(), db), 1e-5) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

INSTANTIATE_TEST_SUITE_P(Ragged, Linear,
                         testing::Combine(testing::Values(1, 15, 33, 257),
                                          testing::Values(1, 31, 64), testing::Values(1, 17, 33),
                                          testing::Values(Activation::none, Activation::relu,
                                                          Activation::gelu, Activation::silu)));

// K beyond one stretch: the sums wait in C between stretches, the epilogue comes after the last.
INSTANTIATE_TEST_SUITE_P(LongSums, Linear,
                         testing::Values(Case{1100, 33, 65, Activation::none},
                                         Case{129, 1100, 35, Activation::gelu},
                                         Case{2050, 130, 260, Activation::relu},
                                         Case{15, 1025, 1, Activation::silu}));

// c + a b for both plans and both forms of a.
TEST(Matmul, AccumulatesOntoWhatTheResultHolds) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const std::int64_t k : {1, 17, 300, 1500}) {
      const std::int64_t m = 37, n = 45;
      const Tensor a = random({m, k}, 1), at = random({k, m}, 2), b = random({k, n}, 3);
      const Tensor panels = Tensor::empty({gemm_workspace(k, n)});
      Tensor c = random({m, n}, 4);
      const auto A = a.to_vector<float>(), AT = at.to_vector<float>(), B = b.to_vector<float>(),
                 C = c.to_vector<float>();
      std::vector<double> expected(C.begin(), C.end());
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          for (std::int64_t l = 0; l < k; ++l) {
            const double both = static_cast<double>(A[static_cast<std::size_t>(i * k + l)]) +
                                static_cast<double>(AT[static_cast<std::size_t>(l * m + i)]);
            expected[static_cast<std::size_t>(i * n + j)] +=
                both * static_cast<double>(B[static_cast<std::size_t>(l * n + j)]);
          }
        }
      }
      const Operand right{b.span<const float>().data(), n, 1};
      for (const Operand left : {Operand{a.span<const float>().data(), k, 1},
                                 Operand{at.span<const float>().data(), 1, m}}) {
        cpu::gemm(left, right, c.view<float, 2>(), k, {.accumulate = true}, panels.view<float, 1>(),
                  Stream{});
      }
      EXPECT_LE(relative_error(c.to_vector<float>(), expected), 1e-5)
          << hwy::TargetName(target) << " k " << k;
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

struct Linears {
  std::vector<float> y, dx, dw, db;
  bool operator==(const Linears&) const = default;
};

// A linear layer and its gradients for the upstream gradient g, on a device.
Linears run_linear(std::int64_t t, std::int64_t i, std::int64_t o, Activation act, Device device,
                   float size = 1) {
  Tensor x0 = random({t, i}, 1);
  for (float& v : x0.span<float>()) v *= size;
  Tensor x = x0.to(device), w = random({o, i}, 2).to(device), b = random({o}, 3).to(device);
  for (Tensor* p : {&x, &w, &b}) p->set_requires_grad(true);
  const Tensor y = linear(x, w, b, act), g = random({t, o}, 4).to(device);
  backward(differentiable(Tensor::scalar(0), {y},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{g}; }));
  return {y.to_vector<float>(), x.grad().to_vector<float>(), w.grad().to_vector<float>(),
          b.grad().to_vector<float>()};
}

double device_error(const std::vector<float>& got, const std::vector<float>& expected) {
  return relative_error(got, {expected.begin(), expected.end()});
}

// Below and above a tile of 16, a step of 32 and a block's 128 x 64; every form of the operands
// occurs in forward and the two gradients. Thin ones are left to the fp32 kernel; the sum over 3000
// rows is cut in parts.
TEST(MatmulDevices, LinearAndItsGradientsAreThoseOfTheCpu) {
  struct Sizes {
    std::int64_t t, i, o;
  };
  for (const auto& [t, i, o] :
       {Sizes{1, 1, 1}, Sizes{15, 17, 7}, Sizes{16, 16, 16}, Sizes{33, 31, 65}, Sizes{129, 40, 70},
        Sizes{17, 130, 9}, Sizes{3000, 16, 16}}) {
    for (const float size : {1e-3F, 1.0F, 1e3F}) {
      const Linears expected = run_linear(t, i, o, Activation::none, kCpu, size);
      for (const Device device : devices()) {
        const Linears got = run_linear(t, i, o, Activation::none, device, size);
        EXPECT_LE(device_error(got.y, expected.y), 1e-5) << name(device.type) << " " << t;
        EXPECT_LE(device_error(got.dx, expected.dx), 1e-5) << name(device.type) << " " << t;
        EXPECT_LE(device_error(got.dw, expected.dw), 1e-5) << name(device.type) << " " << t;
        EXPECT_LE(device_error(got.db, expected.db), 1e-5) << name(device.type) << " " << t;
      }
    }
  }
}

TEST(MatmulDevices, ARowOfAProductDoesNotDependOnTheOtherRows) {
  for (const auto& [k, n] : {std::pair<std::int64_t, std::int64_t>{40, 20}, {10, 20}, {40, 5}}) {
    const Tensor a = random({140, k}, 1), b = random({k, n}, 2);
    for (const Device device : devices()) {
      const auto all = matmul(a.to(device), b.to(device)).to_vector<float>();
      const auto one =
          matmul(a.slice(0, 135, 136).contiguous().to(device), b.to(device)).to_vector<float>();
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + 135 * n))
          << name(device.type) << " k " << k << " n " << n;
    }
  }
}

TEST(MatmulDevices, PlansCutLongSumsOfSmallResultsOnly) {
  EXPECT_EQ(GemmPlan(16, 16, 3000).parts, 2);
  EXPECT_EQ(GemmPlan(16, 16, 2047).parts, 1);
  EXPECT_EQ(GemmPlan(768, 256, 51200).parts, 6);  // 24 tiles
  EXPECT_EQ(GemmPlan(768, 256, 51200).depth % GemmPlan::kStep, 0);
  EXPECT_EQ(GemmPlan(51200, 768, 4096).parts, 1);
  EXPECT_EQ(GemmPlan(0, 16, 3000).workspace(0, 16), 0);
}

TEST(MatmulDevices, ActivationsAreThoseOfTheCpu) {
  for (const Activation act : {Activation::relu, Activation::gelu, Activation::silu}) {
    const Linears expected = run_linear(33, 20, 35, act, kCpu);
    for (const Device device : devices()) {
      const Linears got = run_linear(33, 20, 35, act, device);
      EXPECT_LE(device_error(got.y, expected.y), 1e-5) << name(device.type);
      EXPECT_LE(device_error(got.dx, expected.dx), 1e-5) << name(device.type);
      EXPECT_LE(device_error(got.dw, expected.dw), 1e-5) << name(device.type);
    }
  }
}

TEST(MatmulDevices, InfinityAndNanReachTheirRowsOnly) {
  for (const Device device : devices()) {
    Tensor a = random({40, 20}, 1);
    a.span<float>()[3 * 20 + 7] = std::numeric_limits<float>::infinity();
    a.span<float>()[30 * 20 + 1] = std::nanf("");
    const auto c = matmul(a.to(device), random({20, 12}, 2).to(device)).to_vector<float>();
    for (std::size_t i = 0; i < c.size(); ++i) {
      EXPECT_EQ(std::isfinite(c[i]), i / 12 != 3 && i / 12 != 30)
          << name(device.type) << " row " << i / 12;
    }
  }
}

// ---- f32 means f32 ----

/// Operands of a product over k, and how hard they are.
struct Operands {
  const char* name;
  std::vector<float> a, b;  // (m, k), (k, n)
};

std::vector<float> numbers(std::int64_t n, std::uint64_t seed) {
  return random({n}, seed).to_vector<float>();
}

// Random; without sign, so that roundings of one direction would add up; one number in 50 twenty
// times as large; and pairs of terms that cancel but for a thousandth.
std::vector<Operands> hard_operands(std::int64_t m, std::int64_t k, std::int64_t n) {
  std::vector<Operands> all{{"random", numbers(m * k, 1), numbers(k * n, 2)}};
  Operands positive = all[0], outliers = all[0], cancelling = all[0];
  positive.name = "positive", outliers.name = "outliers", cancelling.name = "cancelling";
  for (std::vector<float>* v : {&positive.a, &positive.b}) {
    for (float& x : *v) x = std::abs(x);
  }
  for (std::size_t i = 0; i < outliers.a.size(); i += 50) outliers.a[i] *= 20;
  for (std::size_t i = 7; i < outliers.b.size(); i += 50) outliers.b[i] *= 20;
  for (std::size_t i = 1; i < cancelling.a.size(); i += 2) {
    cancelling.a[i] = -cancelling.a[i - 1] * (1 + 1e-3F * cancelling.a[i]);
  }
  const auto columns = static_cast<std::size_t>(n);
  for (std::size_t i = columns; i < cancelling.b.size(); ++i) {
    if (i / columns % 2 == 1) cancelling.b[i] = cancelling.b[i - columns];
  }
  all.push_back(positive);
  all.push_back(outliers);
  all.push_back(cancelling);
  return all;
}

/// |got - expected| in parts of what the terms amount to: |a| |b|, both normwise.
double backward_error(const std::vector<float>& got, const Operands& o, std::int64_t m,
                      std::int64_t k, std::int64_t n) {
  double error = 0, size = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0, terms = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        const double term = static_cast<double>(o.a[static_cast<std::size_t>(i * k + l)]) *
                            static_cast<double>(o.b[static_cast<std::size_t>(l * n + j)]);
        sum += term;
        terms += term * term;
      }
      error += std::pow(static_cast<double>(got[static_cast<std::size_t>(i * n + j)]) - sum, 2);
      size += terms;
    }
  }
  return std::sqrt(error / size);
}

using Product = std::array<std::int64_t, 3>;  // m, k, n

// The bound is that of one fma after the other.
void expect_f32_product(const Product& size, const Operands& o) {
  const auto [m, k, n] = size;
  const Tensor a = Tensor::from(o.a, {m, k}), b = Tensor::from(o.b, {k, n});
  const double cpu = backward_error(matmul(a, b).to_vector<float>(), o, m, k, n);
  for (const Device device : devices()) {
    const auto c = matmul(a.to(device), b.to(device)).to_vector<float>();
    EXPECT_LE(backward_error(c, o, m, k, n), 2 * cpu + 1e-7)
        << name(device.type) << " " << o.name << " over " << k;
  }
}

TEST(MatmulDevices, F32ProductsAreAsExactAsThoseOfTheCpu) {
  for (const Product& size : {Product{17, 16, 24}, {16, 100, 8}, {3, 1000, 8}}) {
    for (const Operands& o : hard_operands(size[0], size[1], size[2])) {
      expect_f32_product(size, o);
    }
  }
}

#ifdef TESSERA_BUILD_SIMT
// Tensor cores cut their sums off: over a thousand terms their own sum would be off by 1e-5.
TEST(MatmulSimt, F32ProductsAreAsExactWhereTensorCoresCutTheirSumsOff) {
  const simt::Noise noise(1);
  for (const Product& size :
       {Product{5, 64, 8}, {3, 2500, 8}}) {  // the sums of 2500 have two parts
    for (const Operands& o : hard_operands(size[0], size[1], size[2])) {
      expect_f32_product(size, o);
    }
  }
}
#endif

#ifdef TESSERA_BUILD_SIMT
TEST(MatmulSimt, BitsDoNotDependOnTheSchedule) {
  const Device device{DeviceType::simt, 0};
  std::vector<Linears> first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::ScheduleGuard guard({seed == 0   ? simt::Order::forward
                                     : seed == 1 ? simt::Order::reverse
                                                 : simt::Order::random,
                                     seed});
    const Linears got = run_linear(130, 40, 70, Activation::gelu, device);
    if (first.empty()) first.push_back(got);
    EXPECT_EQ(got, first[0]) << "seed " << seed;
  }
}

// A block of c reads its rows of a and columns of b once, in whole sectors.
TEST(MatmulSimt, OperandsAreReadOnceABlockInWholeSectors) {
  const Device device{DeviceType::simt, 0};
  const std::int64_t m = 256, n = 128, k = 64;
  matmul(random({m, k}, 1).to(device), random({k, n}, 2).to(device));
  const auto blocks = static_cast<std::uint64_t>(m / 128 * (n / 64));
  EXPECT_EQ(simt::last_launch().sectors_read,
            blocks * static_cast<std::uint64_t>((128 + 64) * k * 4 / 32));
  EXPECT_EQ(simt::last_launch().sectors_written, static_cast<std::uint64_t>(m * n * 4 / 32));
}
#endif

// A NaN is not hidden, an infinity has its limit, the far tail keeps its sign.
TEST(Matmul, ActivationsOfExtremeInputs) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values{std::nanf(""), inf, -5.0F, -40.0F, 40.0F, 0.0F};
  const Tensor z = Tensor::from(values, {6});
  Tensor y = Tensor::empty({6});
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const Activation act : {Activation::gelu, Activation::silu}) {
      cpu::activation_forward(z.view<const float, 1>(), y.view<float, 1>(), act, Stream{});
      const auto v = y.to_vector<float>();
      EXPECT_TRUE(std::isnan(v[0]));
      EXPECT_EQ(v[1], inf);
      const double tail = activate(-5, act);
      EXPECT_NEAR(v[2], tail, 4e-6 * std::abs(tail)) << hwy::TargetName(target);
      EXPECT_LE(std::abs(v[3]), 1e-15F);
      EXPECT_EQ(v[4], 40.0F);
      EXPECT_EQ(v[5], 0.0F);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(Matmul, IsTheSameForAnyThreadCount) {
  const Tensor a = random({257, 65}, 5), b = random({65, 131}, 6);
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 4, 7, 8}) {
    set_num_threads(threads);
    const auto c = matmul(a, b).to_vector<float>();
    if (first.empty()) {
      first = c;
    }
    EXPECT_EQ(c, first);
  }
}

// Rows of a transposed operand are copied side by side before the tile walks them.
TEST(Matmul, GradientsOfManyRowsAreTheSameForAnyThreadCount) {
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    Tensor x = random({300, 65}, 5), w = random({257, 65}, 6);
    w.set_requires_grad(true);
    const Tensor y = linear(x, w, Tensor());
    backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{y.detach()};
    }));
    const auto g = w.grad().to_vector<float>();
    if (first.empty()) {
      first = g;
    }
    EXPECT_EQ(g, first);
  }
}

TEST(PackedWeights, GiveTheSameBitsAtEachUseAndForgetWritesOnly) {
  for (const std::int64_t k : {1, 33, 300, 1200}) {
    const Tensor w = random({70, k}, 1), other = random({70, k}, 2), bias = random({70}, 3);
    const PackedWeights packed({w});
    for (const std::int64_t rows : {0, 1, 31, 0, 257, 5}) {
      const Tensor x = random({rows, k}, 4);
      EXPECT_EQ(linear(x, w, bias).to_vector<float>(),
                linear(x, w.clone(), bias).to_vector<float>());
      EXPECT_EQ(linear(x, other, bias).to_vector<float>(),
                linear(x, other.clone(), bias).to_vector<float>());
    }
    copy_into(w, other);
    const Tensor x = random({3, k}, 5);
    EXPECT_EQ(linear(x, w, bias).to_vector<float>(), linear(x, other, bias).to_vector<float>());
  }
}

TEST(PackedWeights, OutliveTheArenaOfAStepAndEndWithTheirScope) {
  const Tensor w = random({70, 33}, 1), x = random({3, 33}, 2);
  const auto expected = linear(x, w, Tensor()).to_vector<float>();
  {
    const PackedWeights packed({w});
    StepArena arena;
    for (int step = 0; step < 3; ++step) {
      {
        const ArenaScope scope(arena);
        EXPECT_EQ(linear(x, w, Tensor()).to_vector<float>(), expected);
      }
      arena.reset();
    }
    EXPECT_NE(PackedWeights::find(w), nullptr);
  }
  EXPECT_EQ(PackedWeights::find(w), nullptr);
}

TEST(PackedWeights, LeaveGradientsAlone) {
  Tensor w = random({7, 5}, 1);
  w.set_requires_grad(true);
  const PackedWeights packed({w});
  const Tensor y = linear(random({3, 5}, 2), w, Tensor());
  EXPECT_TRUE(y.requires_grad());
  EXPECT_FALSE(PackedWeights::find(w)->panels.defined());
}

TEST(Matmul, EmptyRowsGiveEmptyResults) {
  EXPECT_EQ(linear(random({0, 4}, 1), random({3, 4}, 2), Tensor()).shape(), (Shape{0, 3}));
}

TEST(Matmul, RejectsShapesThatDoNotFit) {
  EXPECT_THROW(linear(random({2, 4}, 1), random({3, 5}, 2), Tensor()), Error);
  EXPECT_THROW(matmul(random({2, 4}, 1), random({3, 4}, 2)), Error);
}

}  // namespace
}  // namespace tessera
