// Products at precision bf16 on every unit of this CPU and on every device: against double loops on
// rounded operands, against f32, and what must not change a bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/matmul.h"

namespace tessera {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor random(const Shape& shape, std::uint64_t seed, float size = 1) {
  Rng rng(seed);
  Tensor t = Tensor::empty(shape);
  for (float& x : t.span<float>()) {
    x = size * static_cast<float>(rng.normal());
  }
  return t;
}

double rounded(float x) { return static_cast<double>(static_cast<float>(bf16(x))); }

// Normwise.
double error(const std::vector<float>& got, const std::vector<double>& expected) {
  double off = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    off += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(off / std::max(size, 1e-30));
}
double error(const std::vector<float>& got, const std::vector<float>& expected) {
  return error(got, std::vector<double>(expected.begin(), expected.end()));
}

/// The CPU's units that this machine has, one after another; the best is put back at the end.
std::vector<Bf16Unit> units() {
  std::vector<Bf16Unit> all;
  for (const Bf16Unit unit : {Bf16Unit::dots, Bf16Unit::tiles}) {
    if (unit <= bf16_unit()) {
      all.push_back(unit);
    }
  }
  return all;
}
class UnitGuard {
 public:
  explicit UnitGuard(Bf16Unit unit) : before_(bf16_unit()) { set_bf16_unit(unit); }
  ~UnitGuard() { set_bf16_unit(before_); }
  UnitGuard(const UnitGuard&) = delete;
  UnitGuard& operator=(const UnitGuard&) = delete;

 private:
  Bf16Unit before_;
};

/// f(device, its name) on each CPU unit and on each other device that has the kernel.
template <class F>
void on_each(F f) {
  for (const Bf16Unit unit : units()) {
    const UnitGuard guard(unit);
    f(kCpu, std::string("cpu ") + name(unit));
  }
  for (const Device device : devices()) {
    if (device != kCpu) {
      f(device, name(device.type));
    }
  }
}

#define SKIP_WITHOUT_UNIT()                                \
  if (bf16_unit() == Bf16Unit::none) {                     \
    GTEST_SKIP() << "this CPU multiplies no bf16 (CPUID)"; \
  }

/// A matrix laid out with any strides; NaN lies between its elements.
struct Laid {
  std::vector<float> memory;
  Operand operand{};
};

Laid laid(const Tensor& t, std::int64_t row, std::int64_t col) {
  Laid m;
  const std::int64_t rows = t.shape(0), cols = t.shape(1);
  m.memory.assign(static_cast<std::size_t>(rows * row + cols * col + 1), kNan);
  const auto from = t.span<const float>();
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      m.memory[static_cast<std::size_t>(i * row + j * col)] =
          from[static_cast<std::size_t>(i * cols + j)];
    }
  }
  m.operand = {m.memory.data(), row, col};
  return m;
}

struct Sizes {
  std::int64_t m, k, n;
};
constexpr Sizes kSizes[] = {{1, 1, 1},    {31, 33, 17},  {33, 31, 65},   {15, 64, 32},
                            {257, 70, 5}, {14, 257, 33}, {48, 1100, 96}, {130, 1025, 40}};

// c = [c +] a b of rounded operands, in double.
std::vector<double> reference(const Tensor& a, const Tensor& b, const std::vector<float>& start) {
  const std::int64_t m = a.shape(0), k = a.shape(1), n = b.shape(1);
  const auto A = a.span<const float>(), B = b.span<const float>();
  std::vector<double> c(start.begin(), start.end());
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t l = 0; l < k; ++l) {
      const double x = rounded(A[static_cast<std::size_t>(i * k + l)]);
      for (std::int64_t j = 0; j < n; ++j) {
        c[static_cast<std::size_t>(i * n + j)] +=
            x * rounded(B[static_cast<std::size_t>(l * n + j)]);
      }
    }
  }
  return c;
}

// Every form of both operands: along the sum, across it, neither; rows of c apart, with NaN between
// that must neither come in nor go.
TEST(Bf16Gemm, MatchesTheDoubleReferenceOnRoundedOperandsForAnyStrides) {
  SKIP_WITHOUT_UNIT();
  for (const Bf16Unit unit : units()) {
    const UnitGuard guard(unit);
    for (const auto& [m, k, n] : kSizes) {
      const Tensor a = random({m, k}, 1), b = random({k, n}, 2), begin = random({m, n}, 3);
      const Tensor panels = Tensor::empty({gemm_workspace(k, n, Precision::bf16)});
      const auto start = begin.to_vector<float>();
      const auto expected = reference(a, b, start);
      for (const auto& [row, col] :
           {std::pair{k + 3, std::int64_t{1}}, {1, m + 2}, {2 * k + 1, 2}}) {
        const Laid left = laid(a, row, col);
        for (const auto& [brow, bcol] :
             {std::pair{n + 1, std::int64_t{1}}, {1, k + 5}, {3 * n, 3}}) {
          const Laid right = laid(b, brow, bcol);
          Laid c = laid(begin, n + 7, 1);
          const View<float, 2> view{c.memory.data(), {m, n}, {n + 7, 1}};
          cpu::gemm_bf16(left.operand, right.operand, view, k, {.accumulate = true},
                         panels.view<float, 1>(), Stream{});
          std::vector<float> got;
          for (std::int64_t i = 0; i < m; ++i) {
            got.insert(got.end(), view.row(i), view.row(i) + n);
            EXPECT_TRUE(std::isnan(view.row(i)[n])) << name(unit);
          }
          EXPECT_LE(error(got, expected), 1e-6)
              << name(unit) << " " << m << " " << k << " " << n << ", a " << row << " " << col
              << ", b " << brow << " " << bcol;
        }
      }
    }
  }
}

/// A linear layer and its gradients for an upstream gradient.
struct Linears {
  std::vector<float> y, dx, dw, db;
  bool operator==(const Linears&) const = default;
};

Linears run_linear(const Sizes& s, Activation act, Device device, Precision precision) {
  Tensor x = random({s.m, s.k}, 1).to(device);
  Tensor w = random({s.n, s.k}, 2, 1 / std::sqrt(static_cast<float>(s.k))).to(device);
  Tensor b = random({s.n}, 3).to(device);
  for (Tensor* p : {&x, &w, &b}) {
    p->set_requires_grad(true);
  }
  Tensor y;
  {
    const PrecisionScope scope(precision);
    y = linear(x, w, b, act);
  }
  const Tensor g = random({s.m, s.n}, 4).to(device);  // the backward runs outside of the scope
  backward(differentiable(Tensor::scalar(0), {y},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{g}; }));
  return {y.to_vector<float>(), x.grad().to_vector<float>(), w.grad().to_vector<float>(),
          b.grad().to_vector<float>()};
}

Tensor transposed(const Tensor& t) {
  Tensor out = Tensor::empty({t.shape(1), t.shape(0)});
  const auto from = t.span<const float>();
  const auto to = out.span<float>();
  for (std::int64_t i = 0; i < t.shape(0); ++i) {
    for (std::int64_t j = 0; j < t.shape(1); ++j) {
      to[static_cast<std::size_t>(j * t.shape(0) + i)] =
          from[static_cast<std::size_t>(i * t.shape(1) + j)];
    }
  }
  return out;
}

TEST(Bf16Linear, AndItsGradientsMatchTheDoubleReferenceOnRoundedOperands) {
  SKIP_WITHOUT_UNIT();
  for (const Sizes s :
       {Sizes{1, 1, 1}, {31, 33, 17}, {33, 31, 65}, {257, 64, 33}, {1100, 40, 31}}) {
    const Tensor x = random({s.m, s.k}, 1), g = random({s.m, s.n}, 4);
    const Tensor w = random({s.n, s.k}, 2, 1 / std::sqrt(static_cast<float>(s.k)));
    std::vector<float> bias;
    for (std::int64_t i = 0; i < s.m; ++i) {
      const auto row = random({s.n}, 3).to_vector<float>();
      bias.insert(bias.end(), row.begin(), row.end());
    }
    const auto zeros = [](std::int64_t n) {
      return std::vector<float>(static_cast<std::size_t>(n), 0.0F);
    };
    const auto y = reference(x, transposed(w), bias);
    const auto dx = reference(g, w, zeros(s.m * s.k));
    const auto dw = reference(transposed(g), x, zeros(s.n * s.k));
    on_each([&](Device device, const std::string& where) {
      const Linears got = run_linear(s, Activation::none, device, Precision::bf16);
      EXPECT_LE(error(got.y, y), 1e-6) << where << " " << s.m;
      EXPECT_LE(error(got.dx, dx), 1e-6) << where << " " << s.m;
      EXPECT_LE(error(got.dw, dw), 1e-6) << where << " " << s.m;
    });
  }
}

// 2e-2 normwise, and no less than bf16 rounds: else it was no bf16 product.
TEST(Bf16Linear, IsCloseToF32AndNotEqual) {
  SKIP_WITHOUT_UNIT();
  for (const Activation act :
       {Activation::none, Activation::relu, Activation::gelu, Activation::silu}) {
    for (const Sizes s : {Sizes{31, 33, 17}, {257, 64, 33}, {40, 1100, 35}, {1100, 33, 65}}) {
      // relu's slope is 0 or 1: a share of 1e-3 of the arguments change sign when rounded
      const double gradients = act == Activation::relu ? 6e-2 : 2e-2;
      on_each([&](Device device, const std::string& where) {
        const Linears exact = run_linear(s, act, device, Precision::f32);
        const Linears got = run_linear(s, act, device, Precision::bf16);
        EXPECT_LE(error(got.y, exact.y), 2e-2) << where;
        EXPECT_GE(error(got.y, exact.y), 1e-4) << where;
        for (const auto& [a, b] : {std::pair{&got.dx, &exact.dx}, {&got.dw, &exact.dw}}) {
          EXPECT_LE(error(*a, *b), gradients) << where;
          EXPECT_GE(error(*a, *b), 1e-4) << where;
        }
        EXPECT_LE(error(got.db, exact.db), gradients) << where;
      });
    }
  }
}

TEST(Bf16Linear, HasTheSameBitsForAnyThreadCountAndEachRepeat) {
  SKIP_WITHOUT_UNIT();
  for (const Bf16Unit unit : units()) {
    const UnitGuard guard(unit);
    for (const Sizes s : {Sizes{257, 65, 131}, {33, 1100, 300}, {2050, 33, 70}}) {
      std::vector<Linears> first;
      for (const int threads : {1, 2, 3, 4, 7, 8, 1}) {
        set_num_threads(threads);
        const Linears got = run_linear(s, Activation::gelu, kCpu, Precision::bf16);
        if (first.empty()) first.push_back(got);
        EXPECT_EQ(got, first[0]) << name(unit) << " " << threads;
      }
    }
  }
}

TEST(Bf16Linear, ARowDoesNotDependOnTheOthers) {
  SKIP_WITHOUT_UNIT();
  const PrecisionScope scope(Precision::bf16);
  on_each([](Device device, const std::string& where) {
    for (const auto& [k, n] : {std::pair<std::int64_t, std::int64_t>{40, 20}, {10, 20}, {40, 5}}) {
      const Tensor x = random({140, k}, 1), w = random({n, k}, 2).to(device);
      const Tensor bias = random({n}, 3).to(device);
      const auto all = linear(x.to(device), w, bias).to_vector<float>();
      for (const std::int64_t row : {0, 15, 33, 135, 139}) {
        const Tensor part = x.slice(0, row, row + 1).contiguous().to(device);
        const auto one = linear(part, w, bias).to_vector<float>();
        EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + row * n))
            << where << " k " << k << " n " << n << " row " << row;
      }
    }
  });
}

TEST(Bf16Linear, InfinityAndNanReachTheirRowsOnly) {
  SKIP_WITHOUT_UNIT();
  const PrecisionScope scope(Precision::bf16);
  on_each([](Device device, const std::string& where) {
    Tensor a = random({40, 20}, 1);
    a.span<float>()[3 * 20 + 7] = std::numeric_limits<float>::infinity();
    a.span<float>()[30 * 20 + 1] = kNan;
    const auto c = matmul(a.to(device), random({20, 12}, 2).to(device)).to_vector<float>();
    for (std::size_t i = 0; i < c.size(); ++i) {
      EXPECT_EQ(std::isfinite(c[i]), i / 12 != 3 && i / 12 != 30) << where << " row " << i / 12;
    }
  });
}

TEST(Bf16Linear, OfNoRowsIsEmpty) {
  SKIP_WITHOUT_UNIT();
  const PrecisionScope scope(Precision::bf16);
  EXPECT_EQ(linear(random({0, 4}, 1), random({3, 4}, 2), Tensor()).shape(), (Shape{0, 3}));
}

TEST(Bf16PackedWeights, ArePackedAnewWhereThePrecisionChanges) {
  SKIP_WITHOUT_UNIT();
  for (const std::int64_t k : {33, 300, 1200}) {
    const Tensor w = random({70, k}, 1), x = random({5, k}, 2), bias = random({70}, 3);
    const PackedWeights packed({w});
    for (const Precision p :
         {Precision::bf16, Precision::bf16, Precision::f32, Precision::bf16, Precision::f32}) {
      const PrecisionScope scope(p);
      EXPECT_EQ(linear(x, w, bias).to_vector<float>(),
                linear(x, w.clone(), bias).to_vector<float>());
    }
  }
}

/// The fused loss and its gradients.
Linears run_loss(const Sizes& s, Device device, Precision precision) {
  Tensor h = random({s.m, s.k}, 1).to(device);
  Tensor w = random({s.n, s.k}, 2, 1 / std::sqrt(static_cast<float>(s.k))).to(device);
  Tensor b = random({s.n}, 3).to(device);
  for (Tensor* p : {&h, &w, &b}) {
    p->set_requires_grad(true);
  }
  std::vector<std::int32_t> targets;
  for (std::int64_t i = 0; i < s.m; ++i) {
    targets.push_back(static_cast<std::int32_t>(i * 7 % s.n));
  }
  const PrecisionScope scope(precision);
  const Tensor loss = linear_cross_entropy(h, w, b, Tensor::from(targets, {s.m}));
  backward(loss);
  return {loss.to_vector<float>(), h.grad().to_vector<float>(), w.grad().to_vector<float>(),
          b.grad().to_vector<float>()};
}

TEST(Bf16CrossEntropy, IsCloseToF32AndNotEqual) {
  SKIP_WITHOUT_UNIT();
  for (const Sizes s : {Sizes{31, 33, 65}, {300, 64, 513}}) {
    on_each([&](Device device, const std::string& where) {
      const Linears exact = run_loss(s, device, Precision::f32);
      const Linears got = run_loss(s, device, Precision::bf16);
      EXPECT_LE(error(got.y, exact.y), 1e-3) << where;
      EXPECT_LE(error(got.dx, exact.dx), 2e-2) << where;
      EXPECT_GE(error(got.dx, exact.dx), 1e-4) << where;
      EXPECT_LE(error(got.dw, exact.dw), 2e-2) << where;
      EXPECT_GE(error(got.dw, exact.dw), 1e-4) << where;
      EXPECT_LE(error(got.db, exact.db), 2e-2) << where;
    });
  }
}

TEST(Bf16CrossEntropy, HasTheSameBitsForAnyThreadCount) {
  SKIP_WITHOUT_UNIT();
  for (const Bf16Unit unit : units()) {
    const UnitGuard guard(unit);
    std::vector<Linears> first;
    for (const int threads : {1, 2, 3, 8}) {
      set_num_threads(threads);
      const Linears got = run_loss({300, 64, 513}, kCpu, Precision::bf16);
      if (first.empty()) first.push_back(got);
      EXPECT_EQ(got, first[0]) << name(unit) << " " << threads;
    }
  }
}

// The reverse of the other tests: the backward of an f32 layer that runs inside a bf16 scope.
TEST(PrecisionScope, AnOpKeepsThePrecisionOfItsCallInTheBackward) {
  SKIP_WITHOUT_UNIT();
  Tensor x = random({31, 33}, 1), w = random({17, 33}, 2);
  x.set_requires_grad(true);
  const Tensor g = random({31, 17}, 4);
  const auto gradient = [&](Precision forward, Precision outside) {
    x.set_grad(Tensor());
    Tensor y;
    {
      const PrecisionScope scope(forward);
      y = linear(x, w, Tensor());
    }
    const PrecisionScope scope(outside);
    backward(differentiable(Tensor::scalar(0), {y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{g}; }));
    return x.grad().to_vector<float>();
  };
  const auto exact = gradient(Precision::f32, Precision::f32);
  const auto coarse = gradient(Precision::bf16, Precision::bf16);
  EXPECT_NE(exact, coarse);
  EXPECT_EQ(gradient(Precision::f32, Precision::bf16), exact);
  EXPECT_EQ(gradient(Precision::bf16, Precision::f32), coarse);
}

TEST(PrecisionScope, NestsAndBelongsToItsThread) {
  EXPECT_EQ(precision(), Precision::f32);
  {
    const PrecisionScope outer(Precision::bf16);
    EXPECT_EQ(precision(), Precision::bf16);
    {
      const PrecisionScope inner(Precision::f32);
      EXPECT_EQ(precision(), Precision::f32);
    }
    EXPECT_EQ(precision(), Precision::bf16);
    Precision elsewhere = Precision::bf16;
    std::thread([&] { elsewhere = precision(); }).join();
    EXPECT_EQ(elsewhere, Precision::f32);
  }
  EXPECT_EQ(precision(), Precision::f32);
}

TEST(Precision, IsRefusedInOneSentenceWhereTheCpuCannot) {
  const UnitGuard guard(Bf16Unit::none);
  const PrecisionScope scope(Precision::bf16);
  const Tensor x = random({2, 4}, 1), w = random({3, 4}, 2);
  const auto refused = [](const auto& f) {
    try {
      f();
      ADD_FAILURE() << "expected Error(usage)";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(e.message().find("AVX512-BF16"), std::string::npos) << e.message();
    }
  };
  refused([&] { linear(x, w, Tensor()); });
  refused([&] { matmul(x, random({4, 2}, 3)); });
  refused([&] { linear_cross_entropy(x, w, Tensor(), Tensor::from(std::vector{0, 1}, {2})); });
}

TEST(Precision, IsParsedByName) {
  EXPECT_EQ(parse_precision("f32"), Precision::f32);
  EXPECT_EQ(parse_precision("bf16"), Precision::bf16);
  EXPECT_THROW((void)parse_precision("fp16"), Error);
}

}  // namespace
}  // namespace tessera
