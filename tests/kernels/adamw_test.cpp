#include "kernels/adamw/adamw.h"

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(AdamW, TwentyStepsMatchTheDoubleReference) {
  const std::int64_t n = 257;
  on_every_simd_level([&](const char* level) {
    const Tensor p = random({n}, 1), m = Tensor::zeros({n}), v = Tensor::zeros({n});
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
      const double got = adamw_step(
          p, g, m, v, spans, {.lr = 1e-2F, .weight_decay = 0.1F, .clip_norm = 5, .step = step});
      EXPECT_NEAR(got, norm, 1e-4 * norm);
    }
    EXPECT_LE(relative_error(doubles(p), P), 1e-5) << level;
  });
}

TEST(AdamW, NonFiniteGradientsChangeNothing) {
  const Tensor p = random({33}, 1), m = Tensor::zeros({33}), v = Tensor::zeros({33}),
               g = Tensor::full({33}, NAN);
  const auto before = p.to_vector<float>();
  const AdamWSpan all[] = {{.begin = 0, .end = 33}};
  EXPECT_THROW(adamw_step(p, g, m, v, all, {}), Error);
  EXPECT_EQ(p.to_vector<float>(), before);
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
