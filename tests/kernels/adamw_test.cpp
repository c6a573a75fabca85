#include "kernels/adamw/adamw.h"

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(AdamW, TwentyStepsMatchTheDoubleReference) {
  const std::int64_t n = 257;
  on_every_device([&](Device device, const std::string& level) {
    const Tensor p = random({n}, 1).to(device), m = Tensor::zeros({n}).to(device),
                 v = Tensor::zeros({n}).to(device);
    std::vector<double> P = doubles(p), M(257, 0.0), V(257, 0.0);
    const AdamWSpan spans[] = {{.begin = 0, .end = 100},
                               {.begin = 100, .end = n, .lr_scale = 0.1F, .weight_decay_scale = 0}};
    for (int step = 1; step <= 20; ++step) {
      const Tensor g = random({n}, static_cast<std::uint64_t>(100 + step), 2.0);
      const auto G = doubles(g);
      double norm = 0;
      for (const double x : G) norm += x * x;
      norm = std::sqrt(norm);
      const double clip = std::min(1.0, 5.0 / (norm + 1e-6));
      for (std::size_t i = 0; i < 257; ++i) {
        const double lr = i < 100 ? 1e-2 : 1e-3, wd = i < 100 ? 0.1 : 0.0, x = G[i] * clip;
        P[i] *= 1 - lr * wd;
        M[i] = 0.9 * M[i] + 0.1 * x;
        V[i] = 0.999 * V[i] + 0.001 * x * x;
        P[i] -= lr * (M[i] / (1 - std::pow(0.9, step))) /
                (std::sqrt(V[i] / (1 - std::pow(0.999, step))) + 1e-8);
      }
      const double got =
          adamw_step(p, g.to(device), m, v, spans,
                     {.lr = 1e-2F, .weight_decay = 0.1F, .clip_norm = 5, .step = step});
      EXPECT_NEAR(got, norm, 1e-4 * norm);
    }
    EXPECT_LE(relative_error(doubles(p), P), 1e-5) << level;
  });
}

TEST(AdamW, NonFiniteGradientsChangeNothing) {
  for (const Device device : devices()) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      const Tensor p = random({33}, 1).to(device), m = Tensor::zeros({33}).to(device),
                   v = Tensor::zeros({33}).to(device), g = Tensor::full({33}, bad).to(device);
      const auto before = p.to_vector<float>();
      const AdamWSpan all[] = {{.begin = 0, .end = 33}};
      EXPECT_THROW(adamw_step(p, g, m, v, all, {}), Error) << name(device.type);
      EXPECT_EQ(p.to_vector<float>(), before) << name(device.type);
    }
  }
}

// Squares of these leave the range of f32; blocks of devices have 4,096 elements.
TEST(AdamW, TheNormOfTinyAndOfHugeGradientsIsThatOfDouble) {
  for (const float size : {1e-30F, 1e-10F, 1.0F, 1e30F}) {
    Tensor g0 = random({9001}, 3);
    double square = 0;
    for (float& x : g0.span<float>()) {
      x *= size;
      square += static_cast<double>(x) * static_cast<double>(x);
    }
    on_every_device([&](Device device, const std::string& level) {
      const Tensor p = random({9001}, 1).to(device), m = Tensor::zeros({9001}).to(device),
                   v = Tensor::zeros({9001}).to(device);
      const AdamWSpan all[] = {{.begin = 0, .end = 9001}};
      const double norm = adamw_step(p, g0.to(device), m, v, all, {.clip_norm = 1});
      EXPECT_NEAR(norm / std::sqrt(square), 1, 1e-6) << level << " size " << size;
    });
  }
}

// A step whose verdict nobody has read yet: those queued behind it must do nothing either.
TEST(AdamW, OnDevicesABadStepStopsThoseQueuedBehindItAndNamesTheElement) {
  for (const Device device : devices()) {
    if (device == kCpu) continue;
    const std::int64_t n = 3 * kSquaredNormBlock + 17;
    const AdamWSpan spans[] = {{.begin = 0, .end = 5}, {.begin = 5, .end = n}};
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      for (const std::int64_t at : {std::int64_t{0}, 2 * kSquaredNormBlock + 255, n - 1}) {
        Tensor g = random({n}, 2);
        const AdamWBuffers good{random({n}, 1).to(device), g.to(device),
                                Tensor::zeros({n}).to(device), Tensor::zeros({n}).to(device)};
        g.span<float>()[static_cast<std::size_t>(at)] = bad;
        g.span<float>()[static_cast<std::size_t>(n - 1)] = bad;
        const AdamWBuffers poisoned{good.parameters, g.to(device), good.m, good.v};
        const AdamWOnDevice adamw(spans, device);
        const Tensor report =
            Tensor::from(AdamWOnDevice::clean_report(), {AdamWReport::count}, device);
        const Tensor loss = Tensor::scalar(1, device);
        adamw.set_rates({.step = 1});
        adamw.step(good, {}, loss, report);
        const auto before = good.parameters.to_vector<float>();
        adamw.step(poisoned, {}, loss, report);
        adamw.step(good, {}, loss, report);
        EXPECT_EQ(good.parameters.to_vector<float>(), before);
        const AdamWVerdict v = adamw_verdict(report.to_vector<float>());
        EXPECT_FALSE(v.good());
        EXPECT_TRUE(v.loss_finite);
        EXPECT_EQ(v.first_bad, at);
      }
    }
  }
}

TEST(AdamW, OnDevicesALossThatIsNotFiniteChangesNothing) {
  for (const Device device : devices()) {
    if (device == kCpu) continue;
    const AdamWSpan spans[] = {{.begin = 0, .end = 33}};
    const AdamWBuffers b{random({33}, 1).to(device), random({33}, 2).to(device),
                         Tensor::zeros({33}).to(device), Tensor::zeros({33}).to(device)};
    const auto before = b.parameters.to_vector<float>();
    const AdamWOnDevice adamw(spans, device);
    const Tensor report = Tensor::from(AdamWOnDevice::clean_report(), {AdamWReport::count}, device);
    adamw.set_rates({.step = 1});
    adamw.step(b, {}, Tensor::scalar(NAN, device), report);
    EXPECT_EQ(b.parameters.to_vector<float>(), before);
    EXPECT_FALSE(adamw_verdict(report.to_vector<float>()).loss_finite);
  }
}

TEST(AdamW, IsBitEqualForAnyThreadCount) {
  std::vector<float> first;
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    const std::int64_t n = 100003;
    const Tensor p = random({n}, 1), m = Tensor::zeros({n}), v = Tensor::zeros({n}),
                 g = random({n}, 2);
    const AdamWSpan all[] = {{.begin = 0, .end = n}};
    adamw_step(p, g, m, v, all, {.clip_norm = 1});
    const auto got = p.to_vector<float>();
    if (first.empty()) first = got;
    EXPECT_EQ(got, first);
  }
}

}  // namespace
}  // namespace tessera
