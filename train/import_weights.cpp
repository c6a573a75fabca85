#include "train/import_weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>

#include "core/check.h"

namespace tessera {
namespace {

constexpr ImportRule kTokenizer[] = {
    {"model.input_projection.*", "in.*"},
    {"model.encoder_normformer.blocks.#.norm1.*", "enc.#.norm1.*"},
    {"model.encoder_normformer.blocks.#.norm2.*", "enc.#.norm2.*"},
    {"model.encoder_normformer.blocks.#.attn.in_proj_*", "enc.#.attn.qkv.*"},
    {"model.encoder_normformer.blocks.#.attn.out_proj.*", "enc.#.attn.out.*"},
    {"model.encoder_normformer.blocks.#.mlp.0.*", "enc.#.mlp.norm.*"},
    {"model.encoder_normformer.blocks.#.mlp.1.*", "enc.#.mlp.fc1.*"},
    {"model.encoder_normformer.blocks.#.mlp.4.*", "enc.#.mlp.fc2.*"},
    {"model.latent_projection_in.*", "to_latent.*"},
    {"model.vqlayer.codebook.weight", "vq.codebook"},
    {"model.vqlayer.affine_transform.*", "vq.affine.*"},
    {"model.vqlayer.data_initialized", "vq.initialised"},
    {"model.vqlayer._counts", "vq.lru"},
    {"model.latent_projection_out.*", "from_latent.*"},
    {"model.decoder_normformer.blocks.#.norm1.*", "dec.#.norm1.*"},
    {"model.decoder_normformer.blocks.#.norm2.*", "dec.#.norm2.*"},
    {"model.decoder_normformer.blocks.#.attn.in_proj_*", "dec.#.attn.qkv.*"},
    {"model.decoder_normformer.blocks.#.attn.out_proj.*", "dec.#.attn.out.*"},
    {"model.decoder_normformer.blocks.#.mlp.0.*", "dec.#.mlp.norm.*"},
    {"model.decoder_normformer.blocks.#.mlp.1.*", "dec.#.mlp.fc1.*"},
    {"model.decoder_normformer.blocks.#.mlp.4.*", "dec.#.mlp.fc2.*"},
    {"model.output_projection.*", "out.*"},
};

constexpr ImportRule kBackbone[] = {
    {"module.embedding_table.weight", "backbone.embed.token.weight"},
    {"module.GPT_blocks.#.mha_block.query.weight", "backbone.block.#.attn.qkv.weight", 0, 3},
    {"module.GPT_blocks.#.mha_block.key.weight", "backbone.block.#.attn.qkv.weight", 1, 3},
    {"module.GPT_blocks.#.mha_block.value.weight", "backbone.block.#.attn.qkv.weight", 2, 3},
    {"module.GPT_blocks.#.mha_block.proj.*", "backbone.block.#.attn.out.*"},
    {"module.GPT_blocks.#.mha_block.tril", ""},  // the causal mask
    {"module.GPT_blocks.#.ff_block.net.0.*", "backbone.block.#.ff.fc1.*"},
    {"module.GPT_blocks.#.ff_block.net.2.*", "backbone.block.#.ff.fc2.*"},
    {"module.GPT_blocks.#.layernorm_1.*", "backbone.block.#.norm1.*"},
    {"module.GPT_blocks.#.layernorm_2.*", "backbone.block.#.norm2.*"},
    {"head.fc1.*", "head.ntp.*"},
    {"head.classification_head_linear_*", ""},  // of a fine-tuning
};

constexpr ImportRule kSumHead[] = {
    {"head.classification_head_linear_embed.*", "head.fc1.*"},
    {"head.classification_head_linear_class.*", "head.fc2.*"},
};

// What its class never calls has no place here: nn/models/class_attention_ref.h.
constexpr ImportRule kClassAttentionHead[] = {
    {"head.class_token", "head.cls"},
    {"head.class_attention_blocks.#.norm1.*", "head.block.#.norm.*"},
    {"head.class_attention_blocks.#.attn.in_proj_*", "head.block.#.attn.qkv.*"},
    {"head.class_attention_blocks.#.attn.out_proj.*", "head.block.#.attn.out.*"},
    {"head.class_attention_blocks.#.norm2.*", ""},
    {"head.class_attention_blocks.#.mlp.*", ""},
    {"head.input_projection.*", ""},
    {"head.final_mlp.0.*", "head.fc1.*"},
    {"head.final_mlp.3.*", "head.fc2.*"},
    {"head.final_mlp.6.*", "head.fc3.*"},
};

/// A head, the rules of its tensors, and the weight whose rows are its outputs.
struct KnownHead {
  HeadKind kind;
  std::span<const ImportRule> rules;
  const char* last;
};
constexpr KnownHead kHeads[] = {
    {HeadKind::sum, kSumHead, "head.classification_head_linear_class.weight"},
    {HeadKind::class_attention_ref, kClassAttentionHead, "head.final_mlp.6.weight"},
};

/// What "#" and "*" stand for in `name`.
struct Match {
  std::string block, rest;
};

std::optional<Match> matched(std::string_view pattern, std::string_view name) {
  Match m;
  while (!pattern.empty()) {
    if (pattern == "*") {
      m.rest = name;
      return name.empty() ? std::nullopt : std::optional(m);
    }
    if (pattern[0] == '#') {
      while (!name.empty() && std::isdigit(static_cast<unsigned char>(name[0])) != 0) {
        m.block += name[0];
        name.remove_prefix(1);
      }
    } else if (name.starts_with(pattern[0])) {
      name.remove_prefix(1);
    } else {
      return std::nullopt;
    }
    pattern.remove_prefix(1);
  }
  return name.empty() ? std::optional(m) : std::nullopt;
}

std::string filled(std::string_view pattern, const Match& m) {
  std::string name;
  for (const char c : pattern) {
    name += c == '#' ? m.block : c == '*' ? m.rest : std::string(1, c);
  }
  return name;
}

std::vector<std::int64_t> without_ones(const Shape& shape) {
  std::vector<std::int64_t> extents;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] != 1) {
      extents.push_back(shape[axis]);
    }
  }
  return extents;
}

std::vector<double> numbers(const Tensor& tensor) {
  const auto convert = [](const auto& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  switch (tensor.dtype()) {
    case DType::f64:
      return tensor.to_vector<double>();
    case DType::i64:
      return convert(tensor.to_vector<std::int64_t>());
    case DType::i32:
      return convert(tensor.to_vector<std::int32_t>());
    case DType::u8:
      return convert(tensor.to_vector<std::uint8_t>());
    case DType::f32:
    case DType::bf16:
      break;
  }
  return convert(tensor.to(DType::f32).to_vector<float>());
}

/// Whether `value` is one of the type's: finite, and whole where the type is.
bool fits(double value, DType type) {
  return type == DType::i32
             ? value >= INT32_MIN && value <= INT32_MAX && value == std::floor(value)
             : std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max());
}

class Import {
 public:
  Import(const Module& model, std::span<const ImportRule> rules) : rules_(rules) {
    for (const auto& [name, tensor] : state(model)) {
      targets_.emplace(name, Target{tensor, 0});
    }
  }

  void take(const std::string& name, const Tensor& tensor) {
    for (const ImportRule& rule : rules_) {
      if (const auto match = matched(rule.theirs, name)) {
        if (*rule.ours == '\0') {
          report_.left_out.push_back(name);
        } else {
          put(name, tensor, rule, filled(rule.ours, *match));
        }
        return;
      }
    }
    faults_.push_back(fmt::format("'{}' has no place", name));
  }

  ImportReport finish(const std::string& file) {
    for (const auto& [name, target] : targets_) {
      if (target.filled < 1) {
        faults_.push_back(fmt::format("'{}' is filled by nothing", name));
      }
    }
    constexpr std::size_t kShown = 5;  // of another size, every tensor is at fault
    const std::size_t more = faults_.size() - std::min(faults_.size(), kShown);
    faults_.resize(faults_.size() - more);
    TESSERA_CHECK_KIND(ErrorKind::data, faults_.empty(), "{}: {}{}", file, fmt::join(faults_, "; "),
                       more > 0 ? fmt::format("; and {} more", more) : "");
    return std::move(report_);
  }

 private:
  struct Target {
    Tensor tensor;
    double filled;  // share of its rows
  };

  void put(const std::string& name, const Tensor& tensor, const ImportRule& rule,
           const std::string& ours) {
    const auto found = targets_.find(ours);
    if (found == targets_.end()) {
      faults_.push_back(fmt::format("'{}' would be '{}', which this model has not", name, ours));
      return;
    }
    found->second.filled += 1.0 / rule.parts + 1e-9;
    const std::int64_t rows = found->second.tensor.shape(0) / rule.parts;
    const Tensor target =
        found->second.tensor.detach().slice(0, rule.part * rows, (rule.part + 1) * rows);
    if (without_ones(tensor.shape()) != without_ones(target.shape())) {
      faults_.push_back(fmt::format("'{}' has shape {}, '{}' needs {}", name, tensor.shape(), ours,
                                    target.shape()));
      return;
    }
    copy(name, numbers(tensor), target);
    report_.used.push_back(name);
  }

  void copy(const std::string& name, const std::vector<double>& values, const Tensor& target) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!fits(values[i], target.dtype())) {
        faults_.push_back(fmt::format(
            "'{}': expected a {} at {}, got {}", name,
            target.dtype() == DType::i32 ? "whole number" : "finite number", i, values[i]));
        return;
      }
    }
    if (target.dtype() == DType::i32) {
      const std::vector<std::int32_t> counts(values.begin(), values.end());
      copy_into(target, Tensor::from(counts, target.shape()));
    } else {
      const std::vector<float> weights(values.begin(), values.end());
      copy_into(target, Tensor::from(weights, target.shape()));
    }
  }

  std::span<const ImportRule> rules_;
  std::map<std::string, Target> targets_;
  std::vector<std::string> faults_;
  ImportReport report_;
};

}  // namespace

std::span<const ImportRule> omnijet_tokenizer_rules() { return kTokenizer; }
std::span<const ImportRule> omnijet_backbone_rules() { return kBackbone; }

std::optional<ImportedHead> omnijet_head(const TensorMap& theirs) {
  for (const KnownHead& head : kHeads) {
    const auto last = theirs.find(head.last);
    if (last != theirs.end() && last->second.rank() == 2) {
      return ImportedHead{head.kind, last->second.shape(0)};
    }
  }
  return std::nullopt;
}

std::vector<ImportRule> omnijet_classifier_rules(HeadKind kind) {
  const auto head = std::ranges::find(kHeads, kind, &KnownHead::kind);
  TESSERA_CHECK(head != std::end(kHeads), "import: OmniJet-alpha has no head {}", name(kind));
  std::vector<ImportRule> rules(head->rules.begin(), head->rules.end());
  std::ranges::copy_if(kBackbone, std::back_inserter(rules), [](const ImportRule& rule) {
    return std::string_view(rule.theirs).starts_with("module.");
  });
  rules.push_back({"tokenizer.*", "tokenizer.*"});
  return rules;
}

ImportReport import_weights(Module& model, const TensorMap& theirs,
                            std::span<const ImportRule> rules, const std::string& file) {
  Import run(model, rules);
  for (const auto& [name, tensor] : theirs) {
    run.take(name, tensor);
  }
  return run.finish(file);
}

}  // namespace tessera
