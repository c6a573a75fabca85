// Eager tape autograd. An op records a closure that holds exactly what its backward needs.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Gradients of the inputs from gradients of the outputs, each of the dtype of its tensor. An
/// output nobody used arrives undefined; an input that needs none is returned undefined.
using Backward = std::function<std::vector<Tensor>(std::span<const Tensor> grad_outputs)>;

/// Records `output = f(inputs)` if grad mode is on and some input needs a gradient; returns the
/// output.
Tensor differentiable(Tensor output, std::vector<Tensor> inputs, Backward backward);
std::vector<Tensor> differentiable(std::vector<Tensor> outputs, std::vector<Tensor> inputs,
                                   Backward backward);

/// Adds d loss / d leaf to the grad() of every leaf. Visits nodes in falling creation order and
/// adds contributions in that order, so it is deterministic; frees each node's closure as soon as
/// it has run. Throws Error(usage) if loss is not one element, has no history, or the tape was
/// freed before; Error(internal) if a saved tensor was written to since.
void backward(const Tensor& loss);

/// True unless a NoGrad is alive in this thread.
bool grad_enabled();

/// While alive, this thread records nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

/// A tensor kept for backward: without history, and with the version it had. get() throws if it was
/// written to.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  [[nodiscard]] const Tensor& get() const;

 private:
  Tensor tensor_;
  std::uint64_t version_ = 0;
};

}  // namespace tessera
