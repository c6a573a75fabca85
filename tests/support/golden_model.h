// A model against a golden file: parameters in, outputs and gradients compared. Bounds of the
// specification: forward 1e-5, gradients 1e-4, relative Frobenius norm.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/segments.h"
#include "nn/module.h"
#include "support/golden.h"

namespace tessera::test {

inline double relative_error(const std::vector<float>& got, const std::vector<double>& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-30));
}

inline Tensor floats(const GoldenFile& file, const std::string& name) {
  const auto values = file.floats(name);
  return Tensor::from(values, Shape(file.at(name).shape));
}

inline Tensor ints(const GoldenFile& file, const std::string& name) {
  const auto values = file.ints(name);
  return Tensor::from(values, Shape(file.at(name).shape));
}

inline Segments segments(const GoldenFile& file) { return Segments(file.ints("in/cu_seqlens")); }

/// Copies every parameter from the file to where it lies; shapes may differ by axes of one, sizes
/// may not.
inline void load_parameters(const std::vector<NamedTensor>& parameters, const GoldenFile& file) {
  for (const NamedTensor& p : parameters) {
    const auto values = file.floats("param/" + p.name);
    ASSERT_EQ(static_cast<std::int64_t>(values.size()), p.tensor.size()) << p.name;
    copy_into(p.tensor, Tensor::from(values, p.tensor.shape()).to(p.tensor.device()));
  }
}

inline void expect_gradients(const std::vector<NamedTensor>& parameters, const GoldenFile& file,
                             const std::string& prefix) {
  for (const NamedTensor& p : parameters) {
    const auto found = file.tensors.find(prefix + p.name);
    if (found == file.tensors.end()) {
      continue;  // parameters that the loss does not reach have no gradient in PyTorch either
    }
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    double size = 0;
    for (const double g : found->second.values) {
      size += g * g;
    }
    if (size <
        1e-16) {  // a gradient of zero, such as that of the key bias under softmax: rounding only
      continue;
    }
    EXPECT_LE(relative_error(p.tensor.grad().to_vector<float>(), found->second.values), 1e-4)
        << p.name;
  }
}

/// Backward from an output with the file's upstream gradient.
inline void backward_with(const Tensor& y, const Tensor& upstream) {
  backward(differentiable(Tensor::scalar(0), {y},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{upstream}; }));
}

inline std::vector<NamedTensor> joined(std::vector<NamedTensor> a,
                                       const std::vector<NamedTensor>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Output of the file's `out/y`, then gradients of parameters and of `in/x` for its `in/grad_out`.
inline void expect_output_and_gradients(const Tensor& y, const Tensor& x,
                                        const std::vector<NamedTensor>& parameters,
                                        const GoldenFile& file) {
  EXPECT_LE(relative_error(y.to_vector<float>(), file.at("out/y").values), 1e-5);
  backward_with(y, floats(file, "in/grad_out").to(y.device()));
  expect_gradients(parameters, file, "grad/");
  EXPECT_LE(relative_error(x.grad().to_vector<float>(), file.at("grad_in/x").values), 1e-4);
}

/// `in/x` as a leaf with gradient.
inline Tensor leaf(const GoldenFile& file, Device device = kCpu) {
  Tensor x = floats(file, "in/x").to(device);
  x.set_requires_grad(true);
  return x;
}

}  // namespace tessera::test
