// Checkpoints with OmniJet-alpha's names into our models: the golden weights under their names must
// compute what the golden files hold.
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "core/autograd.h"
#include "support/golden_model.h"
#include "train/gpt_pretrain_job.h"
#include "train/import_weights.h"

namespace tessera::test {
namespace {

const TokenizerConfig kTokenizer{
    .width = 16, .blocks = 2, .heads = 4, .codes = 64, .causal_decoder = false};
const GptConfig kGpt{.vocabulary = 66, .width = 32, .blocks = 2, .heads = 4};

/// Replaces a part of a name, each rule once.
std::string renamed(std::string name, const auto& rules) {
  for (const auto& [ours, theirs] : rules) {
    if (const auto at = name.find(ours); at != std::string::npos) {
      name.replace(at, std::string(ours).size(), theirs);
    }
  }
  return name;
}

using Names = std::pair<const char*, const char*>;
constexpr std::array kTokenizerNames{
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
constexpr std::array kBackboneNames{
    Names{"param/backbone.embed.token.weight", "module.embedding_table.weight"},
    Names{"param/backbone.block.", "module.GPT_blocks."},
    Names{"param/head.ntp.", "head.fc1."},
    Names{".attn.out.", ".mha_block.proj."},
    Names{".ff.fc1.", ".ff_block.net.0."},
    Names{".ff.fc2.", ".ff_block.net.2."},
    Names{".norm1.", ".layernorm_1."},
    Names{".norm2.", ".layernorm_2."}};

TensorMap their_tokenizer() {
  const GoldenFile file("tokenizer");
  TensorMap map;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.starts_with("param/")) {
      map[renamed(name, kTokenizerNames)] = floats(file, name);
    }
  }
  map["model.vqlayer.data_initialized"] = Tensor::full({1}, 1);
  map["model.vqlayer._counts"] = Tensor::full({64}, 7);
  return map;
}

TensorMap their_backbone() {
  const GoldenFile file("gpt_heads_of_8");
  TensorMap map;
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.starts_with("param/")) {
      continue;
    }
    const std::string theirs = renamed(name, kBackboneNames);
    if (const auto at = theirs.find(".attn.qkv."); at != std::string::npos) {
      int part = 0;
      for (const char* which : {"query", "key", "value"}) {
        map[theirs.substr(0, at) + ".mha_block." + which + ".weight"] =
            floats(file, name).slice(0, 32 * part, 32 * (part + 1)).contiguous();
        ++part;
      }
    } else {
      map[theirs] = floats(file, name);
    }
  }
  map["module.GPT_blocks.0.mha_block.tril"] = Tensor::zeros({40, 40});
  return map;
}

TEST(Import, ATokenizerComputesWhatItsAuthorsDid) {
  Rng rng(1);
  Tokenizer model(kTokenizer, rng);
  const ImportReport report =
      import_weights(model, their_tokenizer(), omnijet_tokenizer_rules(), "x");
  EXPECT_EQ(report.used.size(), state(model).size());
  const GoldenFile file("tokenizer");
  const NoGrad off;
  const auto out = model(floats(file, "in/x"), segments(file));
  EXPECT_EQ(out.codes.to_vector<std::int32_t>(), file.ints("out/codes"));
  EXPECT_LE(relative_error(out.reconstruction.to_vector<float>(), file.at("out/y").values), 1e-5);
  EXPECT_EQ(model.vq.lru.to_vector<std::int32_t>(), std::vector<std::int32_t>(64, 7));
  EXPECT_EQ(model.vq.initialised.to_vector<std::int32_t>(), std::vector<std::int32_t>{1});
}

TEST(Import, ABackboneComputesWhatItsAuthorsDid) {
  Rng rng(1);
  GptPretrainModel model(kGpt, rng);
  const ImportReport report =
      import_weights(model, their_backbone(), omnijet_backbone_rules(), "x");
  EXPECT_EQ(report.left_out, std::vector<std::string>{"module.GPT_blocks.0.mha_block.tril"});
  const GoldenFile file("gpt_heads_of_8");
  const NoGrad off;
  const Tensor hidden = model.backbone(ints(file, "in/ids"), segments(file));
  EXPECT_LE(relative_error(hidden.to_vector<float>(), file.at("out/hidden").values), 1e-5);
  EXPECT_LE(relative_error(model.head.ntp(hidden).to_vector<float>(), file.at("out/logits").values),
            1e-5);
}

// What the line says of a changed file.
template <class Model, class Config>
std::string refusal(const Config& config, std::span<const ImportRule> rules,
                    const TensorMap& tensors) {
  Rng rng(1);
  Model model(config, rng);
  try {
    import_weights(model, tensors, rules, "their.ckpt");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    return e.message();
  }
  return "accepted";
}

std::string tokenizer_refusal(const std::function<void(TensorMap&)>& change) {
  TensorMap map = their_tokenizer();
  change(map);
  return refusal<Tokenizer>(kTokenizer, omnijet_tokenizer_rules(), map);
}

TEST(Import, WhatDoesNotFitIsNamed) {
  EXPECT_EQ(tokenizer_refusal([](TensorMap& m) { m["model.extra"] = Tensor::zeros({1}); }),
            "their.ckpt: 'model.extra' has no place");
  EXPECT_EQ(tokenizer_refusal([](TensorMap& m) { m.erase("model.output_projection.bias"); }),
            "their.ckpt: 'out.bias' is filled by nothing");
  EXPECT_EQ(tokenizer_refusal([](TensorMap& m) {
              m["model.input_projection.weight"] = Tensor::zeros({16, 10});
            }),
            "their.ckpt: 'model.input_projection.weight' has shape (16, 10), 'in.weight' needs "
            "(16, 3)");
  EXPECT_EQ(tokenizer_refusal(
                [](TensorMap& m) { m["model.vqlayer._counts"] = Tensor::full({64}, 0.5F); }),
            "their.ckpt: 'model.vqlayer._counts': expected a whole number at 0, got 0.5");
  EXPECT_EQ(tokenizer_refusal([](TensorMap& m) {
              m["model.output_projection.bias"] =
                  Tensor::full({3}, std::numeric_limits<float>::quiet_NaN());
            }),
            "their.ckpt: 'model.output_projection.bias': expected a finite number at 0, got nan");
  TensorMap deep = their_tokenizer();
  deep["model.decoder_normformer.blocks.2.norm1.weight"] = Tensor::zeros({16});
  EXPECT_EQ(refusal<Tokenizer>(kTokenizer, omnijet_tokenizer_rules(), deep),
            "their.ckpt: 'model.decoder_normformer.blocks.2.norm1.weight' would be "
            "'dec.2.norm1.weight', which this model has not");
  TensorMap half = their_backbone();
  half.erase("module.GPT_blocks.1.mha_block.key.weight");
  EXPECT_EQ(refusal<GptPretrainModel>(kGpt, omnijet_backbone_rules(), half),
            "their.ckpt: 'backbone.block.1.attn.qkv.weight' is filled by nothing");
  EXPECT_NE(refusal<GptPretrainModel>(kGpt, omnijet_backbone_rules(), their_tokenizer())
                .find("'model.decoder_normformer.blocks.0.attn.in_proj_bias' has no place"),
            std::string::npos);
}

TEST(Import, CountersMayBeFloatsOrWholeNumbers) {
  Tensor counts = Tensor::zeros({64}, DType::i64);
  std::ranges::fill(counts.span<std::int64_t>(), 9);
  TensorMap map = their_tokenizer();
  map["model.vqlayer._counts"] = counts;
  Rng rng(1);
  Tokenizer model(kTokenizer, rng);
  import_weights(model, map, omnijet_tokenizer_rules(), "x");
  EXPECT_EQ(model.vq.lru.to_vector<std::int32_t>(), std::vector<std::int32_t>(64, 9));
}

}  // namespace
}  // namespace tessera::test
