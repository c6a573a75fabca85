// Random tensors, SIMD levels and finite-difference gradients for op tests.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/rng.h"
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/executor.h"
#endif

namespace tessera::testing_support {

inline Tensor random(const Shape& shape, std::uint64_t seed, double sigma = 1.0) {
  Rng rng(seed);
  Tensor t = Tensor::empty(shape);
  for (float& x : t.span<float>()) {
    x = static_cast<float>(sigma * rng.normal());
  }
  return t;
}

inline double relative_error(const std::vector<double>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-30));
}

inline std::vector<double> doubles(const Tensor& t) {
  const auto v = t.to_vector<float>();
  return {v.begin(), v.end()};
}

/// Runs `body` once for each SIMD level of this machine.
inline void on_every_simd_level(const std::function<void(const char*)>& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    body(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
}

/// Runs `body` on the cpu at each SIMD level, then on every other device of this build that the op
/// under test has; on simt under the forward, the reverse and four random schedules.
inline void on_every_device(const std::function<void(Device, const std::string&)>& body) {
  on_every_simd_level([&](const char* level) { body(kCpu, level); });
#ifdef TESSERA_TEST_ALL_DEVICES
  for (const Device device : devices()) {
    if (device.type == DeviceType::cuda) {
      body(device, "cuda");
    }
#ifdef TESSERA_BUILD_SIMT
    if (device.type == DeviceType::simt) {
      for (std::uint64_t seed = 0; seed < 6; ++seed) {
        const simt::Order order = seed == 0   ? simt::Order::forward
                                  : seed == 1 ? simt::Order::reverse
                                              : simt::Order::random;
        const simt::ScheduleGuard guard({order, seed});
        body(device, "simt, schedule " + std::to_string(seed));
      }
    }
#endif
  }
#endif
}

using DoubleFunction = std::function<std::vector<double>(const std::vector<std::vector<double>>&)>;

/// The op against its double reference: values to `tolerance`, and gradients against central
/// differences of the reference, for a random upstream gradient, on every SIMD level and device.
inline void check_op(const std::function<Tensor(const std::vector<Tensor>&)>& op,
                     const DoubleFunction& reference, const std::vector<Tensor>& inputs,
                     double tolerance = 1e-5, double gradient_tolerance = 1e-4) {
  std::vector<std::vector<double>> x;
  for (const Tensor& t : inputs) {
    x.push_back(doubles(t));
  }
  const std::vector<double> expected = reference(x);
  const Tensor upstream = random({static_cast<std::int64_t>(expected.size())}, 99);
  const auto weights = doubles(upstream);
  const auto objective = [&](const std::vector<std::vector<double>>& at) {
    const auto y = reference(at);
    double total = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      total += weights[i] * y[i];
    }
    return total;
  };
  std::vector<std::vector<double>> slopes;
  for (std::size_t k = 0; k < x.size(); ++k) {
    slopes.emplace_back(x[k].size());
    for (std::size_t i = 0; i < x[k].size(); ++i) {
      const double h = 1e-5, kept = x[k][i];
      x[k][i] = kept + h;
      const double up = objective(x);
      x[k][i] = kept - h;
      const double down = objective(x);
      x[k][i] = kept;
      slopes[k][i] = (up - down) / (2 * h);
    }
  }
  on_every_device([&](Device device, const std::string& level) {
    std::vector<Tensor> leaves;
    for (const Tensor& t : inputs) {
      leaves.push_back(t.clone().to(device));
      leaves.back().set_requires_grad(true);
    }
    const Tensor y = op(leaves);
    ASSERT_EQ(static_cast<std::size_t>(y.size()), expected.size());
    EXPECT_LE(relative_error(doubles(y), expected), tolerance) << level;
    if (y.size() == 0) {
      return;
    }
    const Tensor scalar = differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{upstream.reshape(y.shape()).to(device)};
    });
    backward(scalar);
    for (std::size_t k = 0; k < leaves.size(); ++k) {
      if (leaves[k].size() > 0) {
        ASSERT_TRUE(leaves[k].grad().defined()) << "input " << k;
        EXPECT_LE(relative_error(doubles(leaves[k].grad()), slopes[k]), gradient_tolerance)
            << level << " input " << k;
      }
    }
  });
}

}  // namespace tessera::testing_support
