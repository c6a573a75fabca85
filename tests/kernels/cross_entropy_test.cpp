#include "kernels/cross_entropy/cross_entropy.h"

#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/reduce/reduce.h"
#include "support/golden.h"
#include "support/gradcheck.h"
#include "tests/kernels/cross_entropy_reference.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT
using In = const std::vector<std::vector<double>>&;

std::vector<std::int32_t> targets(std::int64_t n, std::int64_t classes) {
  std::vector<std::int32_t> y;
  for (std::int64_t i = 0; i < n; ++i)
    y.push_back(static_cast<std::int32_t>((7 * i + 3) % classes));
  return y;
}

std::vector<double> rows(const std::vector<double>& logits, const std::vector<std::int32_t>& y) {
  const std::size_t c = logits.size() / y.size();
  std::vector<double> out;
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < c; ++j) sum += std::exp(logits[i * c + j]);
    out.push_back(std::log(sum) - logits[i * c + static_cast<std::size_t>(y[i])]);
  }
  return out;
}

TEST(CrossEntropy, MatchesTheDoubleReferencePerRow) {
  for (const std::int64_t c : {2, 31, 33}) {
    const auto y = targets(9, c);
    check_op([&](const auto& x) { return cross_entropy(x[0], Tensor::from(y, {9})); },
             [&](In x) { return rows(x[0], y); }, {random({9, c}, 1)});
  }
}

TEST(CrossEntropy, FusedWithTheLinearLayerMatchesTheDoubleReference) {
  const std::int64_t t = 19, v = 37, d = 5;
  const auto y = targets(t, v);
  const DoubleFunction reference = [&](In x) {
    std::vector<double> logits(static_cast<std::size_t>(t * v));
    for (std::size_t i = 0; i < 19; ++i) {
      for (std::size_t k = 0; k < 37; ++k) {
        logits[i * 37 + k] = x[2][k];
        for (std::size_t j = 0; j < 5; ++j) logits[i * 37 + k] += x[0][i * 5 + j] * x[1][k * 5 + j];
      }
    }
    double total = 0;
    for (const double l : rows(logits, y)) total += l;
    return std::vector<double>{total / static_cast<double>(t)};
  };
  check_op(
      [&](const auto& x) { return linear_cross_entropy(x[0], x[1], x[2], Tensor::from(y, {t})); },
      reference, {random({t, d}, 1), random({v, d}, 2), random({v}, 3)});
}

// A lane's, a warp's and a block's share of a row, and more than a block holds.
TEST(CrossEntropy, RowsOfAnyWidthHaveTheClosedFormOnEveryDevice) {
  for (const std::int64_t c : {129, 1025, 8200}) {
    const Tensor z = random({2, c}, 1, 3), weights = random({2}, 2), up = random({2}, 3);
    const auto y = targets(2, c);
    const auto Z = doubles(z), expected = rows(Z, y), w = doubles(weights), g = doubles(up);
    std::vector<double> loss, slope;
    for (std::size_t i = 0; i < 2; ++i) {
      const auto width = static_cast<std::size_t>(c), at = static_cast<std::size_t>(y[i]);
      const double lse = expected[i] + Z[i * width + at];
      loss.push_back(w[i] * expected[i]);
      for (std::size_t j = 0; j < width; ++j) {
        slope.push_back(g[i] * w[i] * (std::exp(Z[i * width + j] - lse) - (j == at ? 1 : 0)));
      }
    }
    on_every_device([&](Device device, const std::string& level) {
      Tensor x = z.clone().to(device);
      x.set_requires_grad(true);
      const Tensor got = cross_entropy(x, Tensor::from(y, {2}), weights.to(device));
      EXPECT_LE(relative_error(doubles(got), loss), 1e-5) << level << " classes " << c;
      backward(differentiable(Tensor::scalar(0), {got}, [&](std::span<const Tensor>) {
        return std::vector<Tensor>{up.to(device)};
      }));
      EXPECT_LE(relative_error(doubles(x.grad()), slope), 1e-5) << level << " classes " << c;
    });
  }
}

// Relative errors of the fused loss and of its gradients.
std::vector<double> fused_errors(const CrossEntropyProblem& p, const CrossEntropyAnswers& expected,
                                 Device device) {
  Tensor h = p.h.clone().to(device), w = p.weight.clone().to(device), b = p.bias.clone().to(device);
  for (Tensor* leaf : {&h, &w, &b}) leaf->set_requires_grad(true);
  const Tensor loss = linear_cross_entropy(h, w, b, Tensor::from(p.y, {p.t}),
                                           p.row_weight.to(device), static_cast<double>(p.t));
  backward(loss);
  double total = 0;
  for (const double each : expected.losses) total += each / static_cast<double>(p.t);
  return {std::abs(static_cast<double>(loss.item()) / total - 1),
          relative_error(doubles(h.grad()), expected.dh),
          relative_error(doubles(w.grad()), expected.dw),
          relative_error(doubles(b.grad()), expected.db)};
}

// Flat and sharp distributions, with outliers, and long sums over rows.
TEST(CrossEntropy, F32LossAndGradientsAreAsExactOnDevicesAsOnTheCpu) {
  for (const auto& [t, v, d, sigma] :
       {std::tuple{40, 50, 32, 0.1}, {33, 130, 100, 1.0}, {300, 24, 16, 0.3}}) {
    CrossEntropyProblem p(t, v, d);
    p.h = random({t, d}, 1, sigma);
    for (std::size_t i = 0; i < p.h.span<float>().size(); i += 61) p.h.span<float>()[i] *= 20;
    const CrossEntropyAnswers expected = p.expected(false, 1.0 / t);
    const auto cpu = fused_errors(p, expected, kCpu);
    on_wanted_devices([&](Device device) {
      const auto got = fused_errors(p, expected, device);
      const char* names[] = {"loss", "dh", "dw", "db"};
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LE(got[i], 3 * cpu[i] + 3e-7)
            << names[i] << " of " << t << " " << v << " " << d << ", cpu " << cpu[i];
      }
    });
  }
}

Tensor golden_tensor(const test::GoldenFile& file, const std::string& name) {
  const auto& t = file.at(name);
  Shape shape{t.shape[0]};
  if (t.shape.size() == 2) {
    shape = {t.shape[0], t.shape[1]};
  }
  return Tensor::from(file.floats(name), shape);
}

TEST(CrossEntropy, FusedLossAndGradientsAreThoseOfTheGoldenFile) {
  const test::GoldenFile file("ce_linear");
  const auto y = file.ints("in/targets");
  on_every_device([&](Device device, const std::string& level) {
    Tensor h = golden_tensor(file, "in/hidden").to(device),
           w = golden_tensor(file, "in/weight").to(device),
           b = golden_tensor(file, "in/bias").to(device);
    for (Tensor* leaf : {&h, &w, &b}) leaf->set_requires_grad(true);
    const Tensor loss = linear_cross_entropy(h, w, b, Tensor::from(y, {33}),
                                             golden_tensor(file, "in/weights").to(device), 1.0);
    EXPECT_NEAR(static_cast<double>(loss.item()) / file.scalar("out/loss.f64"), 1, 1e-6) << level;
    backward(loss);
    EXPECT_LE(relative_error(doubles(h.grad()), file.at("grad_in/hidden").values), 1e-5) << level;
    EXPECT_LE(relative_error(doubles(w.grad()), file.at("grad_in/weight").values), 1e-5) << level;
    EXPECT_LE(relative_error(doubles(b.grad()), file.at("grad_in/bias").values), 1e-5) << level;
  });
}

TEST(CrossEntropy, FusedEqualsUnfusedAcrossChunksWithWeightsAndWithoutBias) {
  // 512: the rows of logits have a gap between them
  for (const auto& [t, v] : {std::pair{1, 41}, {255, 41}, {256, 41}, {257, 512}, {600, 41}}) {
    const Tensor h = random({t, 17}, 1), w = random({v, 17}, 2), weights = random({t}, 3);
    const Tensor y = Tensor::from(targets(t, v), {t});
    Tensor h1 = h.clone(), w1 = w.clone(), h2 = h.clone(), w2 = w.clone();
    for (Tensor* leaf : {&h1, &w1, &h2, &w2}) leaf->set_requires_grad(true);
    const Tensor fused = linear_cross_entropy(h1, w1, Tensor(), y, weights, 7);
    const Tensor plain = scale(sum(cross_entropy(linear(h2, w2, Tensor()), y, weights)), 1.0F / 7);
    EXPECT_NEAR(fused.item(), plain.item(), 1e-4) << t;
    backward(fused);
    backward(plain);
    EXPECT_LE(relative_error(doubles(h1.grad()), doubles(h2.grad())), 1e-5) << t;
    EXPECT_LE(relative_error(doubles(w1.grad()), doubles(w2.grad())), 1e-5) << t;
  }
}

#ifdef TESSERA_BUILD_SIMT
constexpr Device kSimt{DeviceType::simt, 0};

TEST(CrossEntropySimt, ChunksAreAddedInOrderAndEqualTheCpu) {
  const std::int64_t t = 260, v = 300, d = 2;  // two chunks of 256 rows: the logits are wide
  const Tensor h0 = random({t, d}, 1), w0 = random({v, d}, 2), y = Tensor::from(targets(t, v), {t});
  const auto gradients = [&](Device device) {
    Tensor h = h0.clone().to(device), w = w0.clone().to(device);
    h.set_requires_grad(true);
    w.set_requires_grad(true);
    const Tensor loss = linear_cross_entropy(h, w, Tensor(), y);
    backward(loss);
    auto all = doubles(h.grad());
    const auto dw = doubles(w.grad());
    all.insert(all.end(), dw.begin(), dw.end());
    all.push_back(static_cast<double>(loss.item()));
    return all;
  };
  const auto expected = gradients(kCpu), forward = gradients(kSimt);
  EXPECT_LE(relative_error(forward, expected), 1e-5);
  const simt::ScheduleGuard guard({simt::Order::random, 3});
  EXPECT_EQ(gradients(kSimt), forward);
}

// A narrow row is read once and its slopes written once: V floats each, in whole sectors.
TEST(CrossEntropySimt, RowsMoveOnceInWholeSectors) {
  const std::int64_t rows = 16, classes = 512;
  Tensor z = random({rows, classes}, 1).to(kSimt);
  const Tensor y = Tensor::from(targets(rows, classes), {rows}).to(kSimt);
  const Tensor loss = Tensor::empty({rows}, DType::f32, kSimt);
  simt::softmax_cross_entropy(z.view<const float, 2>(), y.view<const std::int32_t, 1>(),
                              Tensor::empty({0}, DType::f32, kSimt).view<const float, 1>(), 1.0F,
                              loss.view<float, 1>(), z.view<float, 2>(), Stream{});
  const auto sectors = static_cast<std::uint64_t>(rows * classes * 4 / 32);
  const auto extra = static_cast<std::uint64_t>(rows);  // a target is read and a loss written
  EXPECT_EQ(simt::last_launch().sectors_read, sectors + extra);
  EXPECT_EQ(simt::last_launch().sectors_written, sectors + extra);
}
#endif

TEST(CrossEntropy, WithoutATapeTheLossHasTheSameBits) {
  Tensor h = random({300, 16}, 1), w = random({33, 16}, 2);
  const Tensor b = random({33}, 3), y = Tensor::from(targets(300, 33), {300});
  const float plain = linear_cross_entropy(h, w, b, y).item();
  h.set_requires_grad(true);
  const Tensor loss = linear_cross_entropy(h, w, b, y);
  EXPECT_EQ(loss.item(), plain);
  backward(loss);  // the weight is frozen
  EXPECT_FALSE(w.grad().defined());
}

TEST(CrossEntropy, NoRowsGiveZero) {
  for (const Device device : devices()) {
    Tensor h = random({0, 4}, 1).to(device), w = random({5, 4}, 2).to(device);
    w.set_requires_grad(true);
    const Tensor loss = linear_cross_entropy(h, w, Tensor(), Tensor::from(targets(0, 5), {0}));
    EXPECT_EQ(loss.item(), 0.0F);
    backward(loss);
    for (const float g : w.grad().to_vector<float>()) EXPECT_EQ(g, 0.0F);
  }
}

TEST(CrossEntropy, ChunksGiveTheSameBitsForAnyThreadCount) {
  const auto y = targets(700, 129);
  std::vector<float> first;
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    Tensor h = random({700, 16}, 1), w = random({129, 16}, 2), b = random({129}, 3);
    w.set_requires_grad(true);
    backward(linear_cross_entropy(h, w, b, Tensor::from(y, {700})));
    const auto g = w.grad().to_vector<float>();
    if (first.empty()) first = g;
    EXPECT_EQ(g, first);
  }
}

TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  for (const Device device : devices()) {
    const auto loss =
        cross_entropy(random({5, 100}, 1, 1e4).to(device), Tensor::from(targets(5, 100), {5}))
            .to_vector<float>();
    for (const float l : loss) EXPECT_TRUE(std::isfinite(l)) << name(device.type);
  }
}

TEST(CrossEntropy, SlopesOfHopelessClassesAreExactlyZeroNotDenormal) {
  for (const Device device : devices()) {
    Tensor z = Tensor::from(std::vector<float>{0, -95, -60}, {1, 3}, device);
    z.set_requires_grad(true);
    backward(sum(cross_entropy(z, Tensor::from(std::vector<std::int32_t>{0}, {1}))));
    EXPECT_EQ(z.grad().to_vector<float>()[1], 0.0F);
    EXPECT_EQ(z.grad().to_vector<float>()[2], 0.0F);
  }
}

TEST(CrossEntropy, NanAndMaskedClassesStayInTheirRows) {
  const std::vector<float> z{-INFINITY, 1, 2, 0, NAN, 1, 3, 2, 1};
  for (const Device device : devices()) {
    Tensor x = Tensor::from(z, {3, 3}, device);
    x.set_requires_grad(true);
    const Tensor loss = cross_entropy(x, Tensor::from(std::vector<std::int32_t>{2, 2, 2}, {3}));
    const auto got = loss.to_vector<float>();
    EXPECT_NEAR(got[0], std::log(1 + std::exp(-1.0)), 1e-6) << name(device.type);
    EXPECT_TRUE(std::isnan(got[1])) << name(device.type);
    EXPECT_TRUE(std::isfinite(got[2])) << name(device.type);
    backward(sum(loss));
    EXPECT_EQ(x.grad().to_vector<float>()[0], 0.0F) << name(device.type);
  }
}

TEST(CrossEntropy, RejectsTargetsOutsideTheClasses) {
  EXPECT_THROW(cross_entropy(random({1, 3}, 1), Tensor::from(std::vector<std::int32_t>{3}, {1})),
               Error);
}

}  // namespace
}  // namespace tessera
