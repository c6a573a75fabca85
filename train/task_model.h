// TaskModel: what is fine-tuned and deployed: inputs of a batch to the outputs of a task.
#pragma once

#include <functional>

#include "nn/lora.h"
#include "nn/models/class_attention_ref.h"
#include "nn/models/heads.h"
#include "nn/models/particle_transformer.h"
#include "nn/models/tokenizer.h"
#include "train/inputs.h"
#include "train/tasks.h"

namespace tessera {

/// The network of a task: a foundation model's backbone with a head, or an individual method.
enum class Method {
  tessera,   ///< Tessera's backbone over continuous particles
  omnijet,   ///< OmniJet-alpha's GPT over the tokens of a frozen tokenizer
  deepsets,  ///< the tau reference's DeepSets
  pfn,       ///< particle-flow network
  part,      ///< Particle Transformer
};

/// "tessera", ...; parse_method throws Error(usage) with the list.
const char* name(Method method);
Method parse_method(const std::string& text);
/// Whether it has a backbone that may be pre-trained.
bool foundation(Method method);

enum class HeadKind { class_attention, sum, class_attention_ref };
const char* name(HeadKind kind);  ///< "class-attention", "sum", "class-attention-ref"
HeadKind parse_head(const std::string& text);

struct HeadConfig {
  HeadKind kind = HeadKind::class_attention;
  std::int64_t blocks = 1;           ///< class-attention blocks
  std::int64_t particle_blocks = 0;  ///< in front of them
  float dropout = 0;                 ///< of the particle blocks, or of the published head's MLP
};

/// Size of the Particle Transformer.
enum class PartSize { small, tau, jet_class };
const char* name(PartSize size);  ///< "small", "tau", "jet-class"
PartSize parse_part_size(const std::string& text);

struct TaskModelConfig {
  Task task = Task::tau_pt;
  Method method = Method::tessera;
  BackboneConfig backbone{};    ///< method tessera
  GptConfig gpt{};              ///< method omnijet
  TokenizerConfig tokenizer{};  ///< method omnijet
  std::int64_t slots = 0;       ///< method omnijet: places of [start, codes, stop] that are kept
  HeadConfig head{};            ///< of a foundation model
  std::int64_t width = 128;     ///< of DeepSets
  PartSize part = PartSize::small;
  float dropout = 0;  ///< of an individual method
  std::int64_t outputs = 1;
  /// Names of the outputs of a classification, in order; empty for a regression, and for tag where
  /// a model was stored before names were.
  std::vector<std::string> classes{};
};

/// Outputs (B, outputs). A regression answers centre + scale * network(x), with `target.centre` and
/// `target.scale` set from the training targets; the untrained answer is the centre.
class TaskModel : public Module {
 public:
  TaskModelConfig config;
  Tensor centre, scale;  // (1) each, buffers of a regression

  TaskModel(const TaskModelConfig& config, Rng& rng);
  Tensor operator()(const Batch& batch, const DropoutStream& dropout = {}) const;
  /// task_loss with the regression's residuals in units of `scale`.
  [[nodiscard]] Tensor loss(const Tensor& outputs, const Batch& batch) const;
  /// Sum over the jets of weight times loss.
  [[nodiscard]] double summed_loss(const Tensor& outputs, const Batch& batch) const;
  /// Sets the buffers: median, and (q75 - q25) / 1.349, the spread of a normal's core; of weighted
  /// jets where there are weights.
  void standardise(std::span<const double> targets, std::span<const double> weights = {});
  /// What it reads of a batch on its device.
  [[nodiscard]] std::vector<Table> tables() const;
  /// The 13-feature table is needed beside core features.
  [[nodiscard]] bool needs_particles() const { return !foundation(config.method); }

  // The parts of a foundation model; null in an individual method.
  [[nodiscard]] Module* backbone() const { return backbone_; }
  [[nodiscard]] Module* head() const { return head_; }
  [[nodiscard]] Tokenizer* tokenizer() const { return tokenizer_; }  ///< method omnijet
  /// Adapters on the frozen backbone, and their end (nn/lora.h).
  void add_lora(const LoraConfig& adapters, Rng& rng) { add_lora_(adapters, rng); }
  void merge_lora() { merge_lora_(); }

 private:
  /// States of a backbone, the head's input.
  struct Hidden {
    Tensor rows;  // (T, d)
    Segments segments;
  };
  using Network = std::function<Tensor(const Batch&, const DropoutStream&)>;
  using Trunk = std::function<Hidden(const Batch&, const DropoutStream&)>;
  using Head = std::function<Tensor(const Hidden&, const DropoutStream&)>;

  template <class Part, class... Arguments>
  Part& own(const char* name, Arguments&&... arguments);
  template <class Model>
  Model& own_backbone(const auto& sizes, Rng& rng);
  Network deep_sets(const DeepSetsConfig& sizes, const char* name, Rng& rng);
  Network particle_transformer(Rng& rng);
  Network foundation_model(Rng& rng);
  Trunk continuous_trunk(Rng& rng);
  Trunk token_trunk(Rng& rng);
  Head make_head(std::int64_t width, std::int64_t heads, Rng& rng);
  Network make_network(Rng& rng);

  /// A buffer of one element as it was read last: a device is asked again only after a write.
  struct Read {
    std::weak_ptr<Storage> storage{};
    std::uint64_t version = 0;
    float value = 0;
  };
  static float value_of(const Tensor& buffer, Read& last);
  [[nodiscard]] float spread() const;  // of a regression's targets, else 1
  mutable Read centre_, scale_;

  std::vector<std::unique_ptr<Module>> parts_;
  Network network_;
  const Linear* last_ = nullptr;
  Module* backbone_ = nullptr;
  Module* head_ = nullptr;
  Tokenizer* tokenizer_ = nullptr;
  std::function<void(const LoraConfig&, Rng&)> add_lora_;
  std::function<void()> merge_lora_;
};

}  // namespace tessera
