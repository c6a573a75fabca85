// TaskModel: what is fine-tuned and deployed: inputs of a batch to the outputs of a task.
#pragma once

#include "nn/models/backbone.h"
#include "nn/models/heads.h"
#include "nn/models/particle_transformer.h"
#include "train/tasks.h"

namespace tessera {

/// The network of a task: a foundation-model backbone with a head, or an individual method.
enum class Method { tessera, deepsets, part };

/// "tessera", "deepsets", "part"; parse_method throws Error(usage) with the list.
const char* name(Method method);
Method parse_method(const std::string& text);

struct TaskModelConfig {
  Task task = Task::tau_pt;
  Method method = Method::tessera;
  BackboneConfig backbone;
  std::int64_t head_blocks = 1;  ///< class-attention blocks
  std::int64_t width = 128;      ///< of DeepSets; ParT is ParticleTransformerConfig::small
  std::int64_t outputs = 1;
};

/// Outputs (B, outputs). A regression answers centre + scale * network(x), with `target.centre` and
/// `target.scale` set from the training targets; the untrained answer is the centre.
class TaskModel : public Module {
 public:
  TaskModelConfig config;
  std::unique_ptr<Backbone> backbone;         // method tessera only
  std::unique_ptr<ClassAttentionHead> head;   // method tessera only
  std::unique_ptr<DeepSets> deep_sets;        // method deepsets only
  std::unique_ptr<ParticleTransformer> part;  // method part only
  Tensor centre, scale;                       // (1) each, buffers of a regression

  TaskModel(const TaskModelConfig& config, Rng& rng);
  Tensor operator()(const Batch& batch) const;
  /// task_loss with the regression's residuals in units of `scale`.
  [[nodiscard]] Tensor loss(const Tensor& outputs, const Batch& batch) const;
  /// Sets the buffers: median, and (q75 - q25) / 1.349, the spread of a normal's core.
  void standardise(std::span<const double> targets);
  /// The 13-feature table is needed beside core features.
  [[nodiscard]] bool needs_particles() const { return config.method != Method::tessera; }

 private:
  void make_individual(Rng& rng);
  void make_foundation(Rng& rng);
  [[nodiscard]] const Linear& last() const;
  [[nodiscard]] Tensor network(const Batch& batch) const;
};

}  // namespace tessera
