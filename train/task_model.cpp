#include "train/task_model.h"

#include <algorithm>

#include "kernels/elementwise/elementwise.h"
#include "nn/models/token_sequence.h"
#include "train/metrics/statistics.h"

namespace tessera {
namespace {

// A regression starts from its centre, the answer before any training.
void start_at_zero(const Linear& last) {
  fill(last.weight, 0.0F);
  fill(last.bias, 0.0F);
}

template <class Value>
struct Name {
  Value value;
  const char* text;
};

constexpr Name<Method> kMethods[] = {{Method::tessera, "tessera"},
                                     {Method::omnijet, "omnijet"},
                                     {Method::deepsets, "deepsets"},
                                     {Method::pfn, "pfn"},
                                     {Method::part, "part"}};
constexpr Name<HeadKind> kHeads[] = {{HeadKind::class_attention, "class-attention"},
                                     {HeadKind::sum, "sum"},
                                     {HeadKind::class_attention_ref, "class-attention-ref"}};
constexpr Name<PartSize> kPartSizes[] = {
    {PartSize::small, "small"}, {PartSize::tau, "tau"}, {PartSize::jet_class, "jet-class"}};

template <class Value>
const char* name_in(std::span<const Name<Value>> names, Value value) {
  return std::ranges::find(names, value, &Name<Value>::value)->text;
}

template <class Value>
Value parse_in(std::span<const Name<Value>> names, const char* what, const std::string& text) {
  std::string list;
  for (const auto& [value, candidate] : names) {
    if (text == candidate) return value;
    list += fmt::format("{}{}", list.empty() ? "" : ", ", candidate);
  }
  TESSERA_FAIL(ErrorKind::usage, "{}: expected one of {}, got '{}'", what, list, text);
}

ParticleTransformerConfig part_config(const TaskModelConfig& c) {
  ParticleTransformerConfig part{.features = kParticleFeatures, .outputs = c.outputs};
  if (c.part == PartSize::small) {
    part = ParticleTransformerConfig::small(kParticleFeatures, c.outputs);
  } else if (c.part == PartSize::jet_class) {
    part = ParticleTransformerConfig::jet_class(kParticleFeatures, c.outputs);
  }
  part.dropout = c.dropout;
  return part;
}

}  // namespace

const char* name(Method method) { return name_in<Method>(kMethods, method); }
Method parse_method(const std::string& text) { return parse_in<Method>(kMethods, "method", text); }
const char* name(HeadKind kind) { return name_in<HeadKind>(kHeads, kind); }
HeadKind parse_head(const std::string& text) { return parse_in<HeadKind>(kHeads, "head", text); }
const char* name(PartSize size) { return name_in<PartSize>(kPartSizes, size); }
PartSize parse_part_size(const std::string& text) {
  return parse_in<PartSize>(kPartSizes, "part", text);
}

bool foundation(Method method) { return method == Method::tessera || method == Method::omnijet; }

TaskModel::TaskModel(const TaskModelConfig& c, Rng& rng) : config(c) {
  network_ = make_network(rng);
  if (c.task == Task::tau_pt) {
    start_at_zero(*last_);
    centre = buffer("target.centre", Tensor::zeros({1}));
    scale = buffer("target.scale", Tensor::full({1}, 1.0F));
  }
}

template <class Part, class... Arguments>
Part& TaskModel::own(const char* name, Arguments&&... arguments) {
  auto part = std::make_unique<Part>(std::forward<Arguments>(arguments)...);
  Part& reference = *part;
  child(name, reference);
  parts_.push_back(std::move(part));
  return reference;
}

std::vector<Table> TaskModel::tables() const {
  switch (config.method) {
    case Method::tessera:
      return {Table::core, Table::pid, Table::context};
    case Method::omnijet:
      return {Table::core};
    case Method::deepsets:
    case Method::pfn:
    case Method::part:
      break;
  }
  return {Table::particles};
}

TaskModel::Network TaskModel::make_network(Rng& rng) {
  switch (config.method) {
    case Method::deepsets:
      return deep_sets(DeepSetsConfig::tau(kParticleFeatures, config.width, config.outputs),
                       "deepsets", rng);
    case Method::pfn:
      return deep_sets(DeepSetsConfig::pfn(kParticleFeatures, config.outputs), "pfn", rng);
    case Method::part:
      return particle_transformer(rng);
    case Method::tessera:
    case Method::omnijet:
      break;
  }
  return foundation_model(rng);
}

TaskModel::Network TaskModel::deep_sets(const DeepSetsConfig& sizes, const char* name, Rng& rng) {
  DeepSetsConfig with_dropout = sizes;
  with_dropout.dropout = config.dropout;
  const auto& model = own<DeepSets>(name, with_dropout, rng);
  last_ = model.rho.back().get();
  return [&model](const Batch& batch, const DropoutStream& dropout) {
    return model(particle_table(batch, model.device()), segments_of(batch), dropout);
  };
}

TaskModel::Network TaskModel::particle_transformer(Rng& rng) {
  const auto& model = own<ParticleTransformer>("part", part_config(config), rng);
  last_ = &model.last();
  return [&model](const Batch& batch, const DropoutStream& dropout) {
    return model(particle_table(batch, model.device()), four_momenta(batch), segments_of(batch),
                 dropout);
  };
}

TaskModel::Network TaskModel::foundation_model(Rng& rng) {
  Rng backbone_rng = rng.fork("backbone");
  const bool tokens = config.method == Method::omnijet;
  const Trunk trunk = tokens ? token_trunk(backbone_rng) : continuous_trunk(backbone_rng);
  const Head head = tokens ? make_head(config.gpt.width, config.gpt.heads, rng)
                           : make_head(config.backbone.width, config.backbone.heads, rng);
  return [trunk, head](const Batch& batch, const DropoutStream& dropout) {
    return head(trunk(batch, fork(dropout, "backbone")), fork(dropout, "head"));
  };
}

template <class Model>
Model& TaskModel::own_backbone(const auto& sizes, Rng& rng) {
  Model& model = own<Model>("backbone", sizes, rng);
  backbone_ = &model;
  add_lora_ = [&model](const LoraConfig& lora, Rng& draws) {
    tessera::add_lora(model, lora, draws);
  };
  merge_lora_ = [&model] { tessera::merge_lora(model); };
  return model;
}

TaskModel::Trunk TaskModel::continuous_trunk(Rng& rng) {
  const auto& model = own_backbone<Backbone>(config.backbone, rng);
  return [&model](const Batch& batch, const DropoutStream& dropout) {
    const ParticleFeatures f = particle_features(batch, true, model.device());
    return Hidden{model(f, dropout), f.segments};
  };
}

// Start and stop are tokens like any other: the head sees them, as in the published classifier.
TaskModel::Trunk TaskModel::token_trunk(Rng& rng) {
  auto& tokenizer = own<Tokenizer>("tokenizer", config.tokenizer, rng);
  tokenizer.freeze();
  tokenizer_ = &tokenizer;
  const auto& model = own_backbone<GptBackbone>(config.gpt, rng);
  const std::int64_t slots = config.slots;
  return [&tokenizer, &model, slots](const Batch& batch, const DropoutStream& dropout) {
    const Segments jets = segments_of(batch);
    const TokenSequences s =
        whole_sequences(tokenizer.encode(core_features(batch, model.device()), jets), jets,
                        tokenizer.config.codes, slots);
    return Hidden{model(s.ids, s.segments, dropout), s.segments};
  };
}

TaskModel::Head TaskModel::make_head(std::int64_t width, std::int64_t heads, Rng& rng) {
  const HeadConfig& c = config.head;
  if (c.kind == HeadKind::sum) {
    auto& head = own<SumHead>("head", width, config.outputs, rng);
    head_ = &head;
    last_ = &head.fc2;
    return [&head](const Hidden& h, const DropoutStream&) { return head(h.rows, h.segments); };
  }
  if (c.kind == HeadKind::class_attention_ref) {
    const ClassAttentionRef::Config sizes{
        .width = width, .outputs = config.outputs, .dropout = c.dropout};
    auto& head = own<ClassAttentionRef>("head", sizes, rng);
    head_ = &head;
    last_ = &head.fc3;
    return [&head](const Hidden& h, const DropoutStream& dropout) {
      return head(h.rows, h.segments, dropout);
    };
  }
  const ClassAttentionHead::Config sizes{.width = width,
                                         .heads = heads,
                                         .outputs = config.outputs,
                                         .blocks = c.blocks,
                                         .particle_blocks = c.particle_blocks,
                                         .dropout = c.dropout};
  auto& head = own<ClassAttentionHead>("head", sizes, rng);
  head_ = &head;
  last_ = &head.fc;
  return [&head](const Hidden& h, const DropoutStream& dropout) {
    return head(h.rows, h.segments, {}, dropout);
  };
}

Tensor TaskModel::operator()(const Batch& batch, const DropoutStream& dropout) const {
  const Tensor y = network_(batch, dropout);  // (B, outputs)
  if (config.task != Task::tau_pt) {
    return y;
  }
  return add(tessera::scale(y, value_of(scale, scale_)),
             Tensor::full(y.shape(), value_of(centre, centre_), DType::f32, y.device()));
}

float TaskModel::value_of(const Tensor& buffer, Read& last) {
  if (last.storage.lock() != buffer.impl()->storage || last.version != buffer.version()) {
    last = {buffer.impl()->storage, buffer.version(), buffer.item()};
  }
  return last.value;
}

float TaskModel::spread() const { return scale.defined() ? value_of(scale, scale_) : 1.0F; }

Tensor TaskModel::loss(const Tensor& outputs, const Batch& batch) const {
  return task_loss(config.task, outputs, batch, spread());
}

double TaskModel::summed_loss(const Tensor& outputs, const Batch& batch) const {
  return tessera::summed_loss(config.task, outputs, batch, spread());
}

void TaskModel::standardise(std::span<const double> targets, std::span<const double> weights) {
  const auto at = [&](double q) { return quantile(targets, q, weights); };
  fill(centre, static_cast<float>(at(0.5)));
  fill(scale, static_cast<float>(std::max((at(0.75) - at(0.25)) / 1.349, 1e-6)));
}

}  // namespace tessera
