// Ops on bf16 tensors against a double reference on the rounded inputs: 4e-3 of the norm forward,
// 1e-2 for gradients, and 2^-6 (|ref| + rms) for each element of the result.
#pragma once

#include <string>
#include <vector>

#include "support/gradcheck.h"

namespace tessera::testing_support {

inline Tensor rounded(const Tensor& t) { return t.to(DType::bf16).to(DType::f32); }
inline std::vector<double> values_of(const Tensor& t) { return doubles(t.to(kCpu).to(DType::f32)); }

inline void expect_close_elements(const std::vector<double>& got,
                                  const std::vector<double>& expected, const std::string& what) {
  double rms = 0;
  for (const double e : expected) {
    rms += e * e;
  }
  rms = std::sqrt(rms / static_cast<double>(std::max<std::size_t>(expected.size(), 1)));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - expected[i]), 0x1p-6 * (std::abs(expected[i]) + rms))
        << what << " element " << i;
  }
}

/// Output and gradients of a call, as they lie in memory.
struct Bf16Answers {
  Tensor y;
  std::vector<Tensor> gradients;

  [[nodiscard]] bool operator==(const Bf16Answers& other) const {
    bool same = values_of(y) == values_of(other.y);
    for (std::size_t k = 0; k < gradients.size(); ++k) {
      same = same && values_of(gradients[k]) == values_of(other.gradients[k]);
    }
    return same;
  }
};

/// The op on `device` with its leading `activations` inputs in bf16, the rest, parameters, in f32.
inline Bf16Answers bf16_answers_on(const Op& op, const std::vector<Tensor>& inputs,
                                   std::size_t activations, const Tensor& upstream, Device device) {
  std::vector<Tensor> leaves;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const Tensor t = k < activations ? inputs[k].to(DType::bf16) : inputs[k];
    leaves.push_back(t.clone().to(device));
    leaves.back().set_requires_grad(true);
  }
  Bf16Answers answers{op(leaves), {}};
  EXPECT_EQ(answers.y.dtype(), DType::bf16);
  backward(differentiable(Tensor::scalar(0), {answers.y}, [&](std::span<const Tensor>) {
    return std::vector<Tensor>{upstream.to(DType::bf16).reshape(answers.y.shape()).to(device)};
  }));
  for (const Tensor& leaf : leaves) {
    answers.gradients.push_back(leaf.grad());
    EXPECT_EQ(leaf.grad().dtype(), leaf.dtype());
  }
  return answers;
}

/// Values and gradients on every device, the cpu included; on simt the same bits under every
/// schedule.
inline void check_bf16_op(const Op& op, const DoubleFunction& reference,
                          const std::vector<Tensor>& inputs, std::size_t activations) {
  std::vector<Tensor> in;
  std::vector<std::vector<double>> x;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    in.push_back(k < activations ? rounded(inputs[k]) : inputs[k]);
    x.push_back(doubles(in.back()));
  }
  const std::vector<double> expected = reference(x);
  const Tensor upstream = rounded(random({static_cast<std::int64_t>(expected.size())}, 99));
  const auto slopes = slopes_of(reference, x, doubles(upstream));
  std::map<DeviceType, Bf16Answers> first;
  on_every_device([&](Device device, const std::string& level) {
    const Bf16Answers got = bf16_answers_on(op, in, activations, upstream, device);
    const std::vector<double> y = values_of(got.y);
    ASSERT_EQ(y.size(), expected.size());
    EXPECT_LE(relative_error(y, expected), 4e-3) << level;
    expect_close_elements(y, expected, level);
    for (std::size_t k = 0; k < slopes.size(); ++k) {
      EXPECT_LE(relative_error(values_of(got.gradients[k]), slopes[k]), 1e-2)
          << level << " input " << k;
    }
    const auto [one, fresh] = first.try_emplace(device.type, got);
    EXPECT_TRUE(device.type == DeviceType::cpu || one->second == got) << level;
  });
}

}  // namespace tessera::testing_support
