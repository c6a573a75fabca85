#include "nn/dropout.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernels/attention/attention.h"
#include "kernels/dropout/dropout.h"
#include "kernels/elementwise/elementwise.h"
#include "nn/models/backbone.h"
#include "nn/models/class_attention_ref.h"
#include "nn/models/particle_transformer.h"
#include "nn/models/tokenizer.h"

namespace tessera {
namespace {

const Segments kJets({0, 5, 5, 6, 33});
constexpr float kRate = 0.3F;

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

/// A model under test, its output for a stream, and what it is called in a failure.
struct Case {
  const char* name;
  std::shared_ptr<Module> model;
  std::function<Tensor(const DropoutStream&)> run;
};

template <class Model, class Run>
Case make_case(const char* name, std::shared_ptr<Model> model, Run run) {
  Rng rng(1);
  for (const NamedTensor& p : model->named_parameters()) {  // blocks may start as the identity
    copy_into(p.tensor, normal_init(p.tensor.shape(), 0.3F, rng));
  }
  return {name, model, [model, run](const DropoutStream& stream) { return run(*model, stream); }};
}

/// Everything that has a dropout rate, at `rate`.
std::vector<Case> cases(float rate) {
  Rng rng(0);
  const Tensor x = random({33, 16}, 2), particles = random({33, 13}, 3);
  const auto block = [x](const auto& m, const DropoutStream& s) { return m(x, kJets, {}, s); };
  const auto head = [x](const auto& m, const DropoutStream& s) { return m(x, kJets, s); };
  const BackboneConfig backbone{
      .width = 16, .blocks = 2, .heads = 2, .registers = 2, .dropout = rate};
  const ParticleFeatures f{
      kJets, random({33, 3}, 4), Tensor::from(std::vector<std::int32_t>(33, 1), {33}), {}};
  const Tensor ids = Tensor::from(std::vector<std::int32_t>(33, 3), {33});
  return {
      make_case("NormFormerBlock", std::make_shared<NormFormerBlock>(16, 2, 1, rng, rate), block),
      make_case("PostNormBlock", std::make_shared<PostNormBlock>(16, 2, rng, rate), block),
      make_case("PreNormBlock",
                std::make_shared<PreNormBlock>(
                    PreNormBlock::Config{.width = 16, .heads = 2, .dropout = rate}, rng),
                block),
      make_case("PartBlock",
                std::make_shared<PartBlock>(
                    PartBlock::Config{.width = 16, .heads = 2, .dropout = rate}, rng),
                block),
      make_case(
          "ClassAttentionHead",
          std::make_shared<ClassAttentionHead>(
              ClassAttentionHead::Config{
                  .width = 16, .heads = 2, .outputs = 3, .particle_blocks = 1, .dropout = rate},
              rng),
          block),
      make_case("ClassAttentionRef",
                std::make_shared<ClassAttentionRef>(
                    ClassAttentionRef::Config{.width = 16, .dropout = rate}, rng),
                head),
      make_case("DeepSets",
                std::make_shared<DeepSets>(
                    DeepSetsConfig{
                        .features = 16, .outputs = 2, .phi = {8, 8}, .f = {8}, .dropout = rate},
                    rng),
                head),
      make_case("Backbone", std::make_shared<Backbone>(backbone, rng),
                [f](const Backbone& m, const DropoutStream& s) { return m(f, s); }),
      make_case(
          "GptBackbone",
          std::make_shared<GptBackbone>(
              GptConfig{.vocabulary = 5, .width = 16, .blocks = 2, .heads = 2, .dropout = rate},
              rng),
          [ids](const GptBackbone& m, const DropoutStream& s) { return m(ids, kJets, s); }),
      make_case(
          "Tokenizer",
          std::make_shared<Tokenizer>(
              TokenizerConfig{.width = 16, .blocks = 1, .heads = 2, .codes = 7, .dropout = rate},
              rng),
          [f](const Tokenizer& m, const DropoutStream& s) {
            return m(f.core, kJets, s).reconstruction;
          }),
  };
}

std::vector<float> values(const Case& c, const DropoutStream& stream) {
  return c.run(stream).to_vector<float>();
}

TEST(DropoutLayer, ActsInTrainingModeByTheStreamAlone) {
  const auto plain = cases(0.0F), dropping = cases(kRate);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    SCOPED_TRACE(plain[i].name);
    const auto clean = values(plain[i], {});
    const auto once = values(dropping[i], Rng(5));
    EXPECT_NE(once, clean);
    EXPECT_EQ(once, values(dropping[i], Rng(5)));
    EXPECT_NE(once, values(dropping[i], Rng(6)));
    EXPECT_THROW(values(dropping[i], {}), Error);
  }
}

TEST(DropoutLayer, RateZeroAndEvaluationChangeNoBit) {
  const auto plain = cases(0.0F), dropping = cases(kRate);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    SCOPED_TRACE(plain[i].name);
    const auto clean = values(plain[i], {});
    EXPECT_EQ(values(plain[i], Rng(5)), clean);
    dropping[i].model->set_training(false);
    EXPECT_EQ(values(dropping[i], {}), clean);
    EXPECT_EQ(values(dropping[i], Rng(5)), clean);
    dropping[i].model->set_training(true);
    dropping[i].model->freeze();
    EXPECT_EQ(values(dropping[i], Rng(5)), clean);
  }
}

TEST(DropoutLayer, DropsProbabilitiesAndTheHiddenLayer) {
  Rng rng(7);
  const PostNormBlock block(16, 2, rng, kRate);
  const Tensor x = random({33, 16}, 8);
  const Rng stream(9);
  const Tensor qkv = block.attn.qkv(x).reshape({33, 3, 2, 8});
  const Tensor mixed = attention(
      qkv, kJets, {.causal = true, .dropout = kRate, .key = stream.fork("attention").key()});
  const Tensor y = block.norm1(add(x, block.attn.out(mixed.reshape({33, 16}))));
  const Tensor hidden =
      dropout(block.ff.fc1(y, Activation::relu), kRate, stream.fork("hidden").key());
  const Tensor expected = block.norm2(add(y, block.ff.fc2(hidden)));
  EXPECT_EQ(block(x, kJets, all_causal(kJets), stream).to_vector<float>(),
            expected.to_vector<float>());
}

TEST(DropoutLayer, BlocksDrawIndependentMasks) {
  Rng rng(10);
  const Dropout drop(0.5F);
  const DropoutStream stream = Rng(11);
  const Tensor ones = Tensor::full({1000}, 1.0F);
  const auto a = drop(ones, fork(stream, 0)).to_vector<float>();
  const auto b = drop(ones, fork(stream, 1)).to_vector<float>();
  int equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    equal += a[i] == b[i] ? 1 : 0;
  }
  EXPECT_NEAR(equal, 500, 80);  // 5 sigma
}

TEST(DropoutLayer, RefusesRatesOutsideZeroToOne) {
  EXPECT_THROW(Dropout(1.0F), Error);
  EXPECT_THROW(Dropout(-0.1F), Error);
}

}  // namespace
}  // namespace tessera
