#include "train/task_model.h"

#include <algorithm>

#include "kernels/elementwise/elementwise.h"
#include "train/inputs.h"
#include "train/metrics.h"

namespace tessera {
namespace {

// A regression starts from its centre, the answer before any training.
void start_at_zero(const Linear& last) {
  fill(last.weight, 0.0F);
  fill(last.bias, 0.0F);
}

constexpr std::pair<Method, const char*> kNames[] = {
    {Method::tessera, "tessera"}, {Method::deepsets, "deepsets"}, {Method::part, "part"}};

}  // namespace

const char* name(Method method) {
  for (const auto& [m, text] : kNames) {
    if (m == method) return text;
  }
  return "?";
}

Method parse_method(const std::string& text) {
  for (const auto& [m, candidate] : kNames) {
    if (text == candidate) return m;
  }
  TESSERA_FAIL(ErrorKind::usage, "method: expected tessera, deepsets or part, got '{}'", text);
}

TaskModel::TaskModel(const TaskModelConfig& c, Rng& rng) : config(c) {
  c.method == Method::tessera ? make_foundation(rng) : make_individual(rng);
  if (c.task == Task::tau_pt) {
    start_at_zero(last());
    centre = buffer("target.centre", Tensor::zeros({1}));
    scale = buffer("target.scale", Tensor::full({1}, 1.0F));
  }
}

void TaskModel::make_foundation(Rng& rng) {
  Rng backbone_rng = rng.fork("backbone");
  backbone = std::make_unique<Backbone>(config.backbone, backbone_rng);
  child("backbone", *backbone);
  head = std::make_unique<ClassAttentionHead>(
      ClassAttentionHead::Config{.width = config.backbone.width,
                                 .heads = config.backbone.heads,
                                 .outputs = config.outputs,
                                 .blocks = config.head_blocks},
      rng);
  child("head", *head);
}

void TaskModel::make_individual(Rng& rng) {
  if (config.method == Method::deepsets) {
    deep_sets = std::make_unique<DeepSets>(kParticleFeatures, config.width, config.outputs, rng);
    child("deepsets", *deep_sets);
  } else {
    part = std::make_unique<ParticleTransformer>(
        ParticleTransformerConfig::small(kParticleFeatures, config.outputs), rng);
    child("part", *part);
  }
}

const Linear& TaskModel::last() const {
  return deep_sets ? *deep_sets->rho.back() : part ? part->last() : head->fc;
}

Tensor TaskModel::network(const Batch& batch) const {
  if (deep_sets) {
    return (*deep_sets)(particle_table(batch), segments_of(batch));
  }
  if (part) {
    return (*part)(particle_table(batch), four_momenta(batch), segments_of(batch));
  }
  const ParticleFeatures f = particle_features(batch, true);
  return (*head)((*backbone)(f), f.segments);
}

Tensor TaskModel::operator()(const Batch& batch) const {
  const Tensor y = network(batch);  // (B, outputs)
  if (config.task != Task::tau_pt) {
    return y;
  }
  return add(tessera::scale(y, scale.item()), Tensor::full(y.shape(), centre.item()));
}

Tensor TaskModel::loss(const Tensor& outputs, const Batch& batch) const {
  return task_loss(config.task, outputs, batch, scale.defined() ? scale.item() : 1.0F);
}

void TaskModel::standardise(std::span<const double> targets) {
  fill(centre, static_cast<float>(quantile(targets, 0.5)));
  const double spread = (quantile(targets, 0.75) - quantile(targets, 0.25)) / 1.349;
  fill(scale, static_cast<float>(std::max(spread, 1e-6)));
}

}  // namespace tessera
