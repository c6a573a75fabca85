// Module: named parameters, buffers and children; the order of construction is the order of every
// listing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"

namespace tessera {

/// A tensor with its dotted name, "blocks.3.attn.qkv.weight".
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Base of every layer and model. Neither copied nor moved: children are known by address.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Trainable tensors, own ones first, then the children's, in construction order.
  [[nodiscard]] std::vector<NamedTensor> named_parameters(const std::string& prefix = "") const;
  /// State that is saved but not trained.
  [[nodiscard]] std::vector<NamedTensor> named_buffers(const std::string& prefix = "") const;
  /// Number of trainable scalars.
  [[nodiscard]] std::int64_t parameter_count() const;

  /// Training or evaluation mode, for this module and its children.
  void set_training(bool on);
  [[nodiscard]] bool training() const { return training_; }
  /// Moves parameters, their gradients and buffers; every handle on them follows. Before an
  /// optimizer or a FlatParameters holds them: those keep the old place.
  void to(Device device);
  /// Where the first parameter lies; cpu without one.
  [[nodiscard]] Device device() const;

  /// Evaluation mode for good: no gradient, no buffer change.
  void freeze();
  [[nodiscard]] bool frozen() const { return frozen_; }

 protected:
  /// Registers a leaf that requires a gradient and returns it.
  Tensor parameter(std::string name, Tensor initial);
  Tensor buffer(std::string name, Tensor initial);
  /// Takes a parameter of this module's own off the list.
  void remove_parameter(const std::string& name);
  /// Registers a part. Without a name its tensors are listed as this module's own.
  void child(std::string name, Module& module);

 private:
  std::vector<NamedTensor> parameters_, buffers_;
  std::vector<std::pair<std::string, Module*>> children_;
  bool training_ = true;
  bool frozen_ = false;
};

/// One flat f32 buffer that holds all parameters, in order, on the device of the first; the tensors
/// become views of it, and their gradients views of a second one. What the optimizer and the norm
/// pass over in one stream.
struct FlatParameters {
  std::vector<NamedTensor> parameters;
  std::vector<std::int64_t> offsets;  // begin of each parameter in the buffers
  Tensor values, gradients;           // (P)

  explicit FlatParameters(std::vector<NamedTensor> parameters);
  void zero_gradients() const { fill(gradients, 0.0F); }
};

/// What loading did, key by key.
struct LoadReport {
  std::vector<std::string> missing, unexpected, reshaped;
  [[nodiscard]] bool complete() const {
    return missing.empty() && unexpected.empty() && reshaped.empty();
  }
};

/// Copies tensors by name into `module` (parameters and buffers). Keys in `allow_missing` (exact or
/// ending in
/// "*") may be absent. Throws Error(data) naming every other missing, unexpected or reshaped key.
LoadReport load(Module& module, const std::vector<NamedTensor>& tensors,
                const std::vector<std::string>& allow_missing = {});

/// Parameters and buffers, as a checkpoint stores them.
std::vector<NamedTensor> state(const Module& module);

/// Those that require a gradient: what an optimizer takes. The rest is frozen.
std::vector<NamedTensor> trainable(const std::vector<NamedTensor>& parameters);

/// U(-bound, bound).
Tensor uniform_init(const Shape& shape, float bound, Rng& rng);
/// N(0, sigma^2).
Tensor normal_init(const Shape& shape, float sigma, Rng& rng);

}  // namespace tessera
