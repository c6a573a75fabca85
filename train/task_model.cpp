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

}  // namespace

const char* name(Method method) { return method == Method::tessera ? "tessera" : "deepsets"; }

Method parse_method(const std::string& text) {
  for (const Method m : {Method::tessera, Method::deepsets}) {
    if (text == name(m)) return m;
  }
  TESSERA_FAIL(ErrorKind::usage, "method: expected tessera or deepsets, got '{}'", text);
}

TaskModel::TaskModel(const TaskModelConfig& c, Rng& rng) : config(c) {
  if (c.method == Method::deepsets) {
    deep_sets = std::make_unique<DeepSets>(kParticleFeatures, c.width, c.outputs, rng);
    child("deepsets", *deep_sets);
  } else {
    Rng backbone_rng = rng.fork("backbone");
    backbone = std::make_unique<Backbone>(c.backbone, backbone_rng);
    child("backbone", *backbone);
    head =
        std::make_unique<ClassAttentionHead>(ClassAttentionHead::Config{.width = c.backbone.width,
                                                                        .heads = c.backbone.heads,
                                                                        .outputs = c.outputs,
                                                                        .blocks = c.head_blocks},
                                             rng);
    child("head", *head);
  }
  if (c.task == Task::tau_pt) {
    start_at_zero(deep_sets ? *deep_sets->rho.back() : head->fc);
    centre = buffer("target.centre", Tensor::zeros({1}));
    scale = buffer("target.scale", Tensor::full({1}, 1.0F));
  }
}

Tensor TaskModel::network(const Batch& batch) const {
  if (deep_sets) {
    return (*deep_sets)(particle_table(batch), segments_of(batch));
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
