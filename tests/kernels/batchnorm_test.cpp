#include "kernels/batchnorm/batchnorm.h"

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

std::vector<double> column(const std::vector<double>& x, std::size_t width, std::size_t c) {
  std::vector<double> values;
  for (std::size_t i = c; i < x.size(); i += width) {
    values.push_back(x[i]);
  }
  return values;
}

double mean_of(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) {
    sum += x;
  }
  return sum / static_cast<double>(v.size());
}

double variance_of(const std::vector<double>& v) {  // biased
  const double m = mean_of(v);
  double sum = 0;
  for (const double x : v) {
    sum += (x - m) * (x - m);
  }
  return sum / static_cast<double>(v.size());
}

/// y of x (N, C), weight and bias (C).
std::vector<double> reference(const std::vector<std::vector<double>>& in) {
  const std::vector<double>&x = in[0], &w = in[1], &b = in[2];
  std::vector<double> y(x.size());
  for (std::size_t c = 0; c < w.size() && !x.empty(); ++c) {
    const std::vector<double> values = column(x, w.size(), c);
    const double m = mean_of(values), r = 1 / std::sqrt(variance_of(values) + double{1e-5F});
    for (std::size_t i = 0; i < values.size(); ++i) {
      y[i * w.size() + c] = (values[i] - m) * r * w[c] + b[c];
    }
  }
  return y;
}

Tensor normalised(const std::vector<Tensor>& t) { return batch_norm(t[0], t[1], t[2]).y; }

TEST(BatchNorm, NormalisesColumnsOverAllRows) {
  const Shape shapes[] = {{0, 3}, {2, 33}, {31, 1}, {32, 4}, {33, 13}, {257, 8}};
  for (const Shape& shape : shapes) {
    check_op(normalised, reference,
             {random(shape, 1, 2.0), random({shape[1]}, 2), random({shape[1]}, 3)});
  }
}

TEST(BatchNorm, OneRowGivesTheBiasAndNoSlope) {
  for (const Device device : devices()) {
    const Tensor x = random({1, 5}, 1).to(device).set_requires_grad(true);
    const Tensor weight = random({5}, 2).to(device), bias = random({5}, 3).to(device);
    const BatchNormResult r = batch_norm(x, weight, bias);
    EXPECT_EQ(r.y.to_vector<float>(), bias.to_vector<float>());
    EXPECT_EQ(r.variance.to_vector<float>(), std::vector<float>(5, 0.0F));
    backward(differentiable(Tensor::scalar(0), {r.y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{Tensor::full({1, 5}, 1.0F).to(device)};
    }));
    EXPECT_EQ(x.grad().to_vector<float>(), std::vector<float>(5, 0.0F));
  }
}

TEST(BatchNorm, StatisticsAreThoseOfDoubleEvenFarFromZero) {
  const std::size_t n = 1000, c = 4;
  Tensor x = random({static_cast<std::int64_t>(n), static_cast<std::int64_t>(c)}, 4);
  for (float& v : x.span<float>()) {
    v += 1000.0F;  // 1000 sigma: one f32 pass would be off by several ulp, 6e-5 each
  }
  on_every_device([&](Device device, const std::string& level) {
    const BatchNormResult r =
        batch_norm(x.to(device), Tensor::full({4}, 1.0F).to(device), Tensor::zeros({4}).to(device));
    for (std::size_t j = 0; j < c; ++j) {
      const auto values = column(doubles(x), c, j);
      const double unbiased = variance_of(values) * static_cast<double>(n) / (n - 1.0);
      EXPECT_NEAR(r.mean.to_vector<float>()[j], mean_of(values), 3.1e-5) << level;
      EXPECT_NEAR(r.variance.to_vector<float>()[j], unbiased, 2e-6) << level;
    }
  });
}

TEST(BatchNorm, GivenStatisticsTreatEachRowAlone) {
  const Tensor mean = random({7}, 5), variance = Tensor::full({7}, 4.0F);
  const auto op = [&](const std::vector<Tensor>& t) {
    const Device device = t[0].device();
    return batch_norm_with(t[0], t[1], t[2], mean.to(device), variance.to(device));
  };
  const auto expected = [&](const std::vector<std::vector<double>>& in) {
    const auto m = doubles(mean);
    std::vector<double> y;
    for (std::size_t i = 0; i < in[0].size(); ++i) {
      const double r = 1 / std::sqrt(4 + double{1e-5F});
      y.push_back((in[0][i] - m[i % 7]) * r * in[1][i % 7] + in[2][i % 7]);
    }
    return y;
  };
  check_op(op, expected, {random({33, 7}, 6), random({7}, 7), random({7}, 8)});
}

TEST(BatchNorm, IsBitEqualForAnyThreadCount) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    Tensor x = random({2000, 13}, 9).set_requires_grad(true);
    Tensor w = random({13}, 10).set_requires_grad(true);
    const Tensor upstream = random({2000, 13}, 11);
    const BatchNormResult r = batch_norm(x, w, Tensor::zeros({13}));
    backward(differentiable(Tensor::scalar(0), {r.y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{upstream};
    }));
    std::vector<float> all = r.y.to_vector<float>();
    for (const Tensor& t : {x.grad(), w.grad(), r.mean, r.variance}) {
      const auto v = t.to_vector<float>();
      all.insert(all.end(), v.begin(), v.end());
    }
    results.push_back(all);
  }
  for (const auto& r : results) {
    EXPECT_EQ(r, results[0]);
  }
}

#ifdef TESSERA_BUILD_SIMT
TEST(BatchNormSimt, BitsDoNotDependOnTheSchedule) {
  const Device device{DeviceType::simt, 0};
  const Tensor up = random({300, 40}, 11).to(device);
  std::vector<std::vector<float>> first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::ScheduleGuard guard({seed == 0   ? simt::Order::forward
                                     : seed == 1 ? simt::Order::reverse
                                                 : simt::Order::random,
                                     seed});
    Tensor x = random({300, 40}, 9).to(device), w = random({40}, 10).to(device);
    x.set_requires_grad(true);
    w.set_requires_grad(true);
    const BatchNormResult r = batch_norm(x, w, Tensor::zeros({40}).to(device));
    backward(differentiable(Tensor::scalar(0), {r.y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
    std::vector<std::vector<float>> got;
    for (const Tensor& t : {r.y, r.mean, r.variance, x.grad(), w.grad()}) {
      got.push_back(t.to_vector<float>());
    }
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << "seed " << seed;
  }
}
#endif

TEST(BatchNorm, RejectsParametersOfOtherWidths) {
  EXPECT_THROW(batch_norm(random({3, 4}, 1), random({5}, 1), random({4}, 1)), Error);
  EXPECT_THROW(batch_norm(random({4}, 1), random({4}, 1), random({4}, 1)), Error);
}

}  // namespace
}  // namespace tessera
