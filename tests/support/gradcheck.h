// Random tensors, SIMD levels and finite-difference gradients for op tests.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "support/devices.h"
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
  if (wanted(DeviceType::cpu)) {
    on_every_simd_level([&](const char* level) { body(kCpu, level); });
  }
#ifdef TESSERA_TEST_ALL_DEVICES
  require_wanted_devices();
  for (const Device device : devices()) {
    if (device.type == DeviceType::cuda && wanted(DeviceType::cuda)) {
      body(device, "cuda");
    }
#ifdef TESSERA_BUILD_SIMT
    if (device.type == DeviceType::simt && wanted(DeviceType::simt)) {
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

using Op = std::function<Tensor(const std::vector<Tensor>&)>;

/// Central differences of sum(weights * reference(x)) in every element of every input.
inline std::vector<std::vector<double>> slopes_of(const DoubleFunction& reference,
                                                  std::vector<std::vector<double>> x,
                                                  const std::vector<double>& weights) {
  constexpr double h = 1e-5;
  const auto objective = [&] {
    const auto y = reference(x);
    double total = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      total += weights[i] * y[i];
    }
    return total;
  };
  std::vector<std::vector<double>> slopes;
  for (auto& input : x) {
    slopes.emplace_back();
    for (double& at : input) {
      const double kept = at;
      at = kept + h;
      const double up = objective();
      at = kept - h;
      const double down = objective();
      at = kept;
      slopes.back().push_back((up - down) / (2 * h));
    }
  }
  return slopes;
}

/// What an op gave: its output, then the gradient of each input; empty where nothing flowed.
using Answers = std::vector<std::vector<float>>;

/// The op and its backward from a given upstream gradient.
inline Answers answers_of(const Op& op, const std::vector<Tensor>& leaves,
                          const std::vector<Tensor>& inputs, const Tensor& upstream,
                          Device device) {
  const Tensor y = op(inputs);
  Answers answers{y.to_vector<float>()};
  if (y.size() == 0) {
    return answers;
  }
  backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
    return std::vector<Tensor>{upstream.reshape(y.shape()).to(device)};
  }));
  for (const Tensor& leaf : leaves) {
    answers.push_back(leaf.grad().defined() ? leaf.grad().to_vector<float>()
                                            : std::vector<float>{});
  }
  return answers;
}

inline Answers answers_on(const Op& op, const std::vector<Tensor>& inputs, const Tensor& upstream,
                          Device device) {
  std::vector<Tensor> leaves;
  for (const Tensor& t : inputs) {
    leaves.push_back(t.clone().to(device));
    leaves.back().set_requires_grad(true);
  }
  return answers_of(op, leaves, leaves, upstream, device);
}

/// The same from inputs that are slices of wider tensors full of NaN: rows with gaps, no alignment.
inline Answers answers_of_slices(const Op& op, const std::vector<Tensor>& inputs,
                                 const Tensor& upstream) {
  std::vector<Tensor> wide, slices;
  for (const Tensor& t : inputs) {
    if (t.rank() == 0) {
      wide.push_back(t.clone().set_requires_grad(true));
      slices.push_back(wide.back());
      continue;
    }
    Shape shape = t.shape();
    shape[-1] += 3;
    wide.push_back(Tensor::full(shape, std::nanf("")));
    copy_into(wide.back().slice(-1, 1, shape[-1] - 2), t);
    wide.back().set_requires_grad(true);
    slices.push_back(wide.back().slice(-1, 1, shape[-1] - 2));
  }
  Answers answers = answers_of(op, wide, slices, upstream, kCpu);
  for (std::size_t k = 1; k < answers.size(); ++k) {
    if (inputs[k - 1].rank() > 0 && !answers[k].empty()) {
      const std::int64_t last = wide[k - 1].shape(-1);
      answers[k] = wide[k - 1].grad().slice(-1, 1, last - 2).to_vector<float>();
    }
  }
  return answers;
}

inline bool same_bits(const Answers& a, const Answers& b) {
  return std::ranges::equal(a, b, [](const auto& u, const auto& v) {
    return std::ranges::equal(std::as_bytes(std::span(u)), std::as_bytes(std::span(v)));
  });
}

/// Same bits for every number of threads, in a repeat, and from inputs with gaps between rows.
inline void check_bits(const Op& op, const std::vector<Tensor>& inputs, const Tensor& upstream) {
  const int before = num_threads();
  const Answers want = answers_on(op, inputs, upstream, kCpu);
  for (const int threads : {1, 1, 2, 3, 4, 7, 8}) {
    set_num_threads(threads);
    EXPECT_TRUE(same_bits(answers_on(op, inputs, upstream, kCpu), want)) << threads << " threads";
  }
  set_num_threads(before);
  EXPECT_TRUE(same_bits(answers_of_slices(op, inputs, upstream), want)) << "slices of wider rows";
}

/// The op against its double reference: values to `tolerance`, and gradients against central
/// differences of the reference, for a random upstream gradient, on every SIMD level and device;
/// then its bits. On simt the bits must not depend on the schedule.
inline void check_op(const Op& op, const DoubleFunction& reference,
                     const std::vector<Tensor>& inputs, double tolerance = 1e-5,
                     double gradient_tolerance = 1e-4) {
  std::vector<std::vector<double>> x;
  for (const Tensor& t : inputs) {
    x.push_back(doubles(t));
  }
  const std::vector<double> expected = reference(x);
  const Tensor upstream = random({static_cast<std::int64_t>(expected.size())}, 99);
  const auto slopes = slopes_of(reference, x, doubles(upstream));
  std::map<DeviceType, Answers> first;
  on_every_device([&](Device device, const std::string& level) {
    const Answers got = answers_on(op, inputs, upstream, device);
    ASSERT_EQ(got[0].size(), expected.size());
    EXPECT_LE(relative_error({got[0].begin(), got[0].end()}, expected), tolerance) << level;
    for (std::size_t k = 1; k < got.size(); ++k) {
      ASSERT_EQ(got[k].size(), slopes[k - 1].size()) << level << " input " << k - 1;
      EXPECT_LE(relative_error({got[k].begin(), got[k].end()}, slopes[k - 1]), gradient_tolerance)
          << level << " input " << k - 1;
    }
    const auto [one, fresh] = first.try_emplace(device.type, got);
    EXPECT_TRUE(device.type == DeviceType::cpu || same_bits(one->second, got)) << level;
  });
  if (wanted(DeviceType::cpu)) {
    check_bits(op, inputs, upstream);
  }
}

}  // namespace tessera::testing_support
