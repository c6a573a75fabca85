#include "nn/module.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace tessera {
namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() || name.empty() ? prefix + name : prefix + "." + name;
}

bool matches(const std::string& name, const std::string& pattern) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1))
                                : name == pattern;
}

// Points a tensor at a piece of `flat`; every handle on it follows, since they share the
// TensorImpl.
void move_into(const Tensor& tensor, const Tensor& flat, std::int64_t offset) {
  copy_into(flat.slice(0, offset, offset + tensor.size()),
            tensor.detach().contiguous().reshape({tensor.size()}));
  tensor.impl()->storage = flat.impl()->storage;
  tensor.impl()->offset = offset;
  tensor.impl()->strides = contiguous_strides(tensor.shape());
}

// Every handle follows, since they share the TensorImpl.
void move_to(const Tensor& tensor, Device device) {
  const NoArena heap;
  const Tensor there = tensor.detach().to(device).contiguous();
  tensor.impl()->storage = there.impl()->storage;
  tensor.impl()->offset = there.impl()->offset;
  tensor.impl()->strides = there.impl()->strides;
  if (tensor.grad().defined()) {
    tensor.set_grad(tensor.grad().to(device));
  }
}

}  // namespace

std::vector<NamedTensor> Module::named_parameters(const std::string& prefix) const {
  std::vector<NamedTensor> all;
  for (const auto& [name, tensor] : parameters_) {
    all.push_back({join(prefix, name), tensor});
  }
  for (const auto& [name, module] : children_) {
    std::ranges::move(module->named_parameters(join(prefix, name)), std::back_inserter(all));
  }
  return all;
}

std::vector<NamedTensor> Module::named_buffers(const std::string& prefix) const {
  std::vector<NamedTensor> all;
  for (const auto& [name, tensor] : buffers_) {
    all.push_back({join(prefix, name), tensor});
  }
  for (const auto& [name, module] : children_) {
    std::ranges::move(module->named_buffers(join(prefix, name)), std::back_inserter(all));
  }
  return all;
}

std::int64_t Module::parameter_count() const {
  std::int64_t n = 0;
  for (const auto& [name, tensor] : named_parameters()) {
    n += tensor.size();
  }
  return n;
}

void Module::set_training(bool on) {
  training_ = on && !frozen_;
  for (const auto& [name, module] : children_) {
    module->set_training(on);
  }
}

void Module::to(Device device) {
  for (const auto* list : {&parameters_, &buffers_}) {
    for (const auto& [name, tensor] : *list) {
      move_to(tensor, device);
    }
  }
  for (const auto& [name, module] : children_) {
    module->to(device);
  }
}

Device Module::device() const {
  const auto parameters = named_parameters();
  return parameters.empty() ? kCpu : parameters[0].tensor.device();
}

void Module::freeze() {
  frozen_ = true;
  training_ = false;
  for (auto& [name, tensor] : parameters_) {
    tensor.set_requires_grad(false);
  }
  for (const auto& [name, module] : children_) {
    module->freeze();
  }
}

Tensor Module::parameter(std::string name, Tensor initial) {
  initial.set_requires_grad(true);
  parameters_.push_back({std::move(name), initial});
  return initial;
}

Tensor Module::buffer(std::string name, Tensor initial) {
  buffers_.push_back({std::move(name), initial});
  return initial;
}

void Module::remove_parameter(const std::string& name) {
  std::erase_if(parameters_, [&](const NamedTensor& p) { return p.name == name; });
}

void Module::child(std::string name, Module& module) {
  children_.emplace_back(std::move(name), &module);
}

FlatParameters::FlatParameters(std::vector<NamedTensor> all) : parameters(std::move(all)) {
  std::int64_t total = 0;
  for (const auto& [name, tensor] : parameters) {
    offsets.push_back(total);
    total += tensor.size();
  }
  const Device device = parameters.empty() ? kCpu : parameters[0].tensor.device();
  values = Tensor::zeros({total}, DType::f32, device);
  gradients = Tensor::zeros({total}, DType::f32, device);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& t = parameters[i].tensor;
    move_into(t, values, offsets[i]);
    t.set_grad(gradients.slice(0, offsets[i], offsets[i] + t.size()).reshape(t.shape()));
  }
}

LoadReport load(Module& module, const std::vector<NamedTensor>& tensors,
                const std::vector<std::string>& allow_missing) {
  LoadReport report;
  std::vector<bool> used(tensors.size(), false);
  for (const auto& [name, target] : state(module)) {
    const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
    if (found == tensors.end()) {
      if (std::ranges::none_of(allow_missing,
                               [&](const std::string& p) { return matches(name, p); })) {
        report.missing.push_back(name);
      }
    } else if (used[static_cast<std::size_t>(found - tensors.begin())] = true;
               found->tensor.shape() != target.shape()) {
      report.reshaped.push_back(name);
    }
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!used[i]) {
      report.unexpected.push_back(tensors[i].name);
    }
  }
  TESSERA_CHECK_KIND(ErrorKind::data, report.complete(),
                     "load: missing [{}], unexpected [{}], reshaped [{}]",
                     fmt::join(report.missing, ", "), fmt::join(report.unexpected, ", "),
                     fmt::join(report.reshaped, ", "));
  for (const auto& [name, target] : state(module)) {
    const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
    if (found != tensors.end()) {
      copy_into(target, found->tensor);
    }
  }
  return report;
}

std::vector<NamedTensor> state(const Module& module) {
  std::vector<NamedTensor> all = module.named_parameters();
  std::ranges::move(module.named_buffers(), std::back_inserter(all));
  return all;
}

std::vector<NamedTensor> trainable(const std::vector<NamedTensor>& parameters) {
  std::vector<NamedTensor> wanted;
  std::ranges::copy_if(parameters, std::back_inserter(wanted),
                       [](const NamedTensor& p) { return p.tensor.requires_grad(); });
  return wanted;
}

Tensor uniform_init(const Shape& shape, float bound, Rng& rng) {
  Tensor t = Tensor::empty(shape);
  std::ranges::generate(t.span<float>(), [&] { return rng.uniform(-bound, bound); });
  return t;
}

Tensor normal_init(const Shape& shape, float sigma, Rng& rng) {
  Tensor t = Tensor::empty(shape);
  std::ranges::generate(t.span<float>(), [&] { return static_cast<float>(sigma * rng.normal()); });
  return t;
}

}  // namespace tessera
