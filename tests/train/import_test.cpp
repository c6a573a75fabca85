// Checkpoints with the names of OmniJet-alpha and weaver into our models: the golden weights under
// their names must compute what the golden files hold.
#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "core/autograd.h"
#include "support/published_checkpoints.h"
#include "train/gpt_pretrain_job.h"

namespace tessera::test {
namespace {

const TokenizerConfig kTokenizer{
    .width = 16, .blocks = 2, .heads = 4, .codes = 64, .causal_decoder = false};
const GptConfig kGpt{.vocabulary = 66, .width = 32, .blocks = 2, .heads = 4};

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

/// A fine-tuned model with a head of OmniJet-alpha, and our tokenizer under its own names.
std::unique_ptr<TaskModel> imported_classifier(HeadKind kind) {
  TensorMap theirs = their_classifier(kind);
  Rng rng(1);
  for (const auto& [name, tensor] : state(Tokenizer(kTokenizer, rng))) {
    theirs["tokenizer." + name] = tensor;
  }
  const auto head = omnijet_head(theirs);
  EXPECT_TRUE(head && head->kind == kind && head->outputs == 2);
  auto model = std::make_unique<TaskModel>(TaskModelConfig{.task = Task::tag,
                                                           .method = Method::omnijet,
                                                           .gpt = kGpt,
                                                           .tokenizer = kTokenizer,
                                                           .head = {.kind = kind},
                                                           .outputs = 2},
                                           rng);
  import_weights(*model, theirs, omnijet_classifier_rules(kind), "x");
  return model;
}

/// Its two parts against the files that hold them.
template <class Head>
void expect_classifier(HeadKind kind, const char* golden) {
  const auto model = imported_classifier(kind);
  const NoGrad off;
  const GoldenFile gpt("gpt_heads_of_8"), file(golden);
  const auto& backbone = dynamic_cast<const GptBackbone&>(*model->backbone());
  EXPECT_LE(relative_error(backbone(ints(gpt, "in/ids"), segments(gpt)).to_vector<float>(),
                           gpt.at("out/hidden").values),
            1e-5);
  const auto& head = dynamic_cast<const Head&>(*model->head());
  EXPECT_LE(relative_error(head(floats(file, "in/x"), segments(file)).template to_vector<float>(),
                           file.at("out/y").values),
            1e-5);
}

TEST(Import, AClassifierBySumComputesWhatItsAuthorsDid) {
  expect_classifier<SumHead>(HeadKind::sum, "sum_head");
}
TEST(Import, AClassifierByClassAttentionComputesWhatItsAuthorsDid) {
  expect_classifier<ClassAttentionRef>(HeadKind::class_attention_ref, "class_attention_ref");
}

TEST(Import, AGenerativeCheckpointHasNoClassifiersHead) {
  EXPECT_FALSE(omnijet_head(their_backbone()));
  EXPECT_THROW(omnijet_classifier_rules(HeadKind::class_attention), Error);
}

/// The network of a task under the name that it has there.
struct PartHolder : Module {
  ParticleTransformer part;
  explicit PartHolder(Rng& rng)
      : part({.outputs = 2,
              .width = 32,
              .heads = 4,
              .class_blocks = 1,
              .embed = {32, 64, 32},
              .pair = {16, 16, 16}},
             rng) {
    child("part", part);
  }
};

/// The golden network as weaver stores it.
TensorMap golden_part(WeaverLayout layout) {
  Rng rng(2);
  const PartHolder golden(rng);
  load_parameters(golden.part.named_parameters("part"), GoldenFile("part"));
  return their_part(state(golden.part), layout);
}

double part_error(const TensorMap& theirs, WeaverLayout read_as) {
  const GoldenFile file("part");
  Rng rng(1);
  PartHolder model(rng);
  import_weights(model, weaver_part(theirs, read_as, "x"), weaver_part_rules(), "x");
  const NoGrad off;
  const Tensor y = model.part(floats(file, "in/x"), floats(file, "in/p4"), segments(file));
  return relative_error(y.to_vector<float>(), file.at("out/y").values);
}

TEST(Import, AParticleTransformerOfEitherLayoutComputesWhatItsAuthorsDid) {
  for (const WeaverLayout layout : {WeaverLayout::heads_outer, WeaverLayout::heads_inner}) {
    EXPECT_LE(part_error(golden_part(layout), layout), 1e-5);
  }
  EXPECT_GT(part_error(golden_part(WeaverLayout::heads_inner), WeaverLayout::heads_outer), 0.01)
      << "weights do not tell the layout";
}

TEST(Import, AParticleTransformerWithoutTheWrappersPrefixIsTheSame) {
  TensorMap bare;
  for (const auto& [name, tensor] : golden_part(WeaverLayout::heads_outer)) {
    bare[name.substr(4)] = tensor;
  }
  EXPECT_LE(part_error(bare, WeaverLayout::heads_outer), 1e-5);
}

TEST(Import, TheVersionOfWeaverTellsTheLayout) {
  for (const char* old : {"0.4", "0.4.17", "0.0.1"}) {
    EXPECT_EQ(weaver_layout(old), WeaverLayout::heads_inner) << old;
  }
  for (const char* later : {"0.5", "0.5.0", "0.10.1", "1.0"}) {
    EXPECT_EQ(weaver_layout(later), WeaverLayout::heads_outer) << later;
  }
  for (const char* none : {"", "0", "old", "0.", ".5", "-1.2"}) {
    EXPECT_THROW(weaver_layout(none), Error) << none;
  }
}

std::string part_refusal(const std::function<void(TensorMap&)>& change) {
  TensorMap theirs = golden_part(WeaverLayout::heads_inner);
  change(theirs);
  try {
    part_error(theirs, WeaverLayout::heads_inner);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    return e.message();
  }
  return "accepted";
}

TEST(Import, AParticleTransformerOfAnotherShapeIsRefusedByName) {
  EXPECT_EQ(
      part_refusal([](TensorMap& m) { m["mod.embed.input_bn.weight"] = Tensor::zeros({17}); }),
      "x: 'mod.embed.input_bn.weight': expected the 13 features of JetClass_kinpid, got "
      "shape (17)");
  EXPECT_EQ(part_refusal([](TensorMap& m) { m["mod.blocks.1.c_attn"] = Tensor::zeros({5}); }),
            "x: 'blocks.1.c_attn' has shape (5), which does not divide the rows of out_proj, (32, "
            "32)");
  EXPECT_EQ(part_refusal([](TensorMap& m) { m.erase("mod.blocks.0.attn.out_proj.bias"); }),
            "x: 'part.block.0.attn.out.bias' is filled by nothing");
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
