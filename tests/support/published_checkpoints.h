// Look-alikes of published checkpoints: golden weights, and those of any Particle Transformer,
// under the names and in the layouts of OmniJet-alpha and of weaver.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "support/golden_model.h"
#include "train/import_weights.h"

namespace tessera::test {

/// Replaces a part of a name, each rule once.
inline std::string renamed(std::string name, const auto& rules) {
  for (const auto& [ours, theirs] : rules) {
    if (const auto at = name.find(ours); at != std::string::npos) {
      name.replace(at, std::string(ours).size(), theirs);
    }
  }
  return name;
}

using Names = std::pair<const char*, const char*>;
inline constexpr std::array kTokenizerNames{
    Names{"param/tokenizer.in.", "model.input_projection."},
    Names{"param/tokenizer.enc.", "model.encoder_normformer.blocks."},
    Names{"param/tokenizer.dec.", "model.decoder_normformer.blocks."},
    Names{"param/tokenizer.to_latent.", "model.latent_projection_in."},
    Names{"param/tokenizer.from_latent.", "model.latent_projection_out."},
    Names{"param/tokenizer.out.", "model.output_projection."},
    Names{"param/tokenizer.vq.codebook", "model.vqlayer.codebook.weight"},
    Names{"param/tokenizer.vq.affine.", "model.vqlayer.affine_transform."},
    Names{".attn.qkv.", ".attn.in_proj_"},
    Names{".attn.out.", ".attn.out_proj."},
    Names{".mlp.norm.", ".mlp.0."},
    Names{".mlp.fc1.", ".mlp.1."},
    Names{".mlp.fc2.", ".mlp.4."}};
inline constexpr std::array kBackboneNames{
    Names{"param/backbone.embed.token.weight", "module.embedding_table.weight"},
    Names{"param/backbone.block.", "module.GPT_blocks."},
    Names{"param/head.ntp.", "head.fc1."},
    Names{".attn.out.", ".mha_block.proj."},
    Names{".ff.fc1.", ".ff_block.net.0."},
    Names{".ff.fc2.", ".ff_block.net.2."},
    Names{".norm1.", ".layernorm_1."},
    Names{".norm2.", ".layernorm_2."}};
inline constexpr std::array kSumNames{
    Names{"param/head.sum.fc1.", "head.classification_head_linear_embed."},
    Names{"param/head.sum.fc2.", "head.classification_head_linear_class."}};
inline constexpr std::array kClassAttentionNames{
    Names{"param/head.class_attention_ref.cls", "head.class_token"},
    Names{"param/head.class_attention_ref.block.", "head.class_attention_blocks."},
    Names{".norm.", ".norm1."},
    Names{".attn.qkv.", ".attn.in_proj_"},
    Names{".attn.out.", ".attn.out_proj."},
    Names{"param/head.class_attention_ref.fc1.", "head.final_mlp.0."},
    Names{"param/head.class_attention_ref.fc2.", "head.final_mlp.3."},
    Names{"param/head.class_attention_ref.fc3.", "head.final_mlp.6."}};

/// The parameters of a golden file under other names.
inline TensorMap parameters_of(const GoldenFile& file, const auto& names) {
  TensorMap map;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.starts_with("param/")) {
      map[renamed(name, names)] = floats(file, name);
    }
  }
  return map;
}

inline TensorMap their_tokenizer() {
  TensorMap map = parameters_of(GoldenFile("tokenizer"), kTokenizerNames);
  map["model.vqlayer.data_initialized"] = Tensor::full({1}, 1);
  map["model.vqlayer._counts"] = Tensor::full({64}, 7);
  return map;
}

inline TensorMap their_backbone() {
  TensorMap map;
  for (const auto& [theirs, tensor] : parameters_of(GoldenFile("gpt_heads_of_8"), kBackboneNames)) {
    if (const auto at = theirs.find(".attn.qkv."); at != std::string::npos) {
      int part = 0;
      for (const char* which : {"query", "key", "value"}) {
        map[theirs.substr(0, at) + ".mha_block." + which + ".weight"] =
            tensor.slice(0, 32 * part, 32 * (part + 1)).contiguous();
        ++part;
      }
    } else {
      map[theirs] = tensor;
    }
  }
  map["module.GPT_blocks.0.mha_block.tril"] = Tensor::zeros({40, 40});
  return map;
}

/// The backbone with a head for two classes in place of its next-token head. Published heads by
/// class attention hold parts that nothing calls, too.
inline TensorMap their_classifier(HeadKind kind) {
  TensorMap map = their_backbone();
  map.erase("head.fc1.weight");
  map.erase("head.fc1.bias");
  if (kind == HeadKind::sum) {
    map.merge(parameters_of(GoldenFile("sum_head"), kSumNames));
    return map;
  }
  map.merge(parameters_of(GoldenFile("class_attention_ref"), kClassAttentionNames));
  map["head.class_token"] = map.at("head.class_token").reshape({1, 1, 32});
  map["head.input_projection.weight"] = Tensor::full({32, 32}, 3);
  for (const char* unused : {"norm2.weight", "mlp.0.bias", "mlp.4.weight"}) {
    map[std::string("head.class_attention_blocks.1.") + unused] = Tensor::full({32}, 3);
  }
  return map;
}

/// Our names of a ParticleTransformer in weaver's. Stages of an embedding are three entries of one
/// Sequential each, behind `first` entries.
inline std::string weaver_name(const std::string& ours) {
  const auto staged = [&](const std::string& prefix, const std::string& theirs, int first,
                          const Names& parts) {
    const int stage = ours[prefix.size()] - '0';
    const std::string rest = ours.substr(prefix.size() + 2);
    const bool second = rest.starts_with(parts.second);
    return fmt::format("mod.{}.{}{}", theirs, 3 * stage + first + (second ? 1 : 0),
                       rest.substr(rest.find('.')));
  };
  if (ours.starts_with("embed.bn.")) {
    return "mod.embed.input_bn." + ours.substr(9);
  }
  if (ours.starts_with("pair.bn.")) {
    return "mod.pair_embed.embed.0." + ours.substr(8);
  }
  if (ours.starts_with("embed.")) {
    return staged("embed.", "embed.embed", 0, {"norm.", "fc."});
  }
  if (ours.starts_with("pair.")) {
    return staged("pair.", "pair_embed.embed", 1, {"conv.", "bn."});
  }
  if (ours == "cls") {
    return "mod.cls_token";
  }
  if (ours.starts_with("fc.")) {
    return "mod.fc.0." + ours.substr(3);
  }
  constexpr std::array kBlockNames{Names{"block.", "blocks."},
                                   Names{".norm1.", ".pre_attn_norm."},
                                   Names{".attn.qkv.", ".attn.in_proj_"},
                                   Names{".attn.out.", ".attn.out_proj."},
                                   Names{".post_norm.", ".post_attn_norm."},
                                   Names{".norm2.", ".pre_fc_norm."},
                                   Names{".fc_norm.", ".post_fc_norm."}};
  return "mod." + renamed(ours, kBlockNames);
}

/// Rows of a (d, d) or (d) tensor of our layout as weaver before 0.5 had them, where the channel
/// k H + h came from row h (d / H) + k times c[h].
inline Tensor heads_inner(const Tensor& ours, const std::vector<float>& ours_c,
                          const std::vector<float>& theirs_c) {
  const std::int64_t rows = ours.shape(0), columns = ours.size() / rows;
  const auto heads = std::ssize(ours_c);
  const std::int64_t width = rows / heads;
  const std::vector<float> from = ours.to_vector<float>();
  std::vector<float> to(from.size());
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t k = 0; k < width; ++k) {
      const std::int64_t channel = k * heads + h, row = h * width + k;
      const float factor =
          ours_c[static_cast<std::size_t>(channel / width)] / theirs_c[static_cast<std::size_t>(h)];
      for (std::int64_t c = 0; c < columns; ++c) {
        to[static_cast<std::size_t>(row * columns + c)] =
            factor * from[static_cast<std::size_t>(channel * columns + c)];
      }
    }
  }
  return Tensor::from(to, ours.shape());
}

/// Features of JetClass_kinpid.yaml from ours, along the last axis.
inline Tensor in_their_order(const Tensor& ours) {
  constexpr std::array<int, 13> kPlace{11, 12, 0, 1, 2, 3, 4, 5, 9, 10, 8, 6, 7};  // of our i-th
  const std::vector<float> from = ours.to_vector<float>();
  std::vector<float> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    to[i / 13 * 13 + static_cast<std::size_t>(kPlace[i % 13])] = from[i];
  }
  return Tensor::from(to, ours.shape());
}

/// A ParticleTransformer, parameters and buffers under our names, as weaver stores one.
inline TensorMap their_part(const std::vector<NamedTensor>& ours, WeaverLayout layout) {
  TensorMap map;
  for (const auto& [name, tensor] : ours) {
    const bool features = name.starts_with("embed.bn.") || name.starts_with("embed.0.norm.") ||
                          name == "embed.0.fc.weight";
    map[weaver_name(name)] = features ? in_their_order(tensor) : tensor.clone();
  }
  Tensor& cls = map.at("mod.cls_token");
  cls = cls.reshape({1, 1, cls.size()});
  Tensor& conv = map.at("mod.pair_embed.embed.1.weight");
  conv = conv.reshape({conv.shape(0), conv.shape(1), 1});
  map["mod.embed.input_bn.num_batches_tracked"] = Tensor::zeros({}, DType::i64);
  map["mod.pair_embed.embed.5.num_batches_tracked"] = Tensor::zeros({}, DType::i64);
  if (layout == WeaverLayout::heads_outer) {
    return map;
  }
  for (auto& [name, tensor] : map) {
    if (name.ends_with(".c_attn")) {
      const std::string out = name.substr(0, name.size() - 6) + "attn.out_proj.";
      const std::vector<float> c = tensor.to_vector<float>();
      std::vector<float> other = c;
      for (std::size_t h = 0; h < other.size(); ++h) {
        other[h] = 0.5F + static_cast<float>(h);
      }
      for (const char* part : {"weight", "bias"}) {
        map.at(out + part) = heads_inner(map.at(out + part), c, other);
      }
      tensor = Tensor::from(other, tensor.shape());
    }
  }
  return map;
}

}  // namespace tessera::test
