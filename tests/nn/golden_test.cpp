// The models against PyTorch in double precision on every device: outputs, losses and the gradient
// of every parameter. Bounds of the specification: forward 1e-5, gradients 1e-4, relative Frobenius
// norm.
#include <gtest/gtest.h>

#include <memory>

#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/models/backbone.h"
#include "nn/models/class_attention_ref.h"
#include "nn/models/heads.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "support/devices.h"
#include "support/golden_model.h"

namespace tessera {
namespace {

using namespace test;  // NOLINT
using testing_support::on_wanted_devices;

void check_tokenizer(Device device) {
  const GoldenFile file("tokenizer");
  Rng rng(0);
  const auto codes = file.at("param/tokenizer.vq.codebook").shape[0];
  Tokenizer model({.width = 16, .blocks = 2, .heads = 4, .codes = codes}, rng);
  model.to(device);
  const auto parameters = model.named_parameters("tokenizer");
  load_parameters(parameters, file);
  const TokenizerOutput out = model(floats(file, "in/x").to(device), segments(file));
  EXPECT_LE(relative_error(out.latent.to_vector<float>(), file.at("out/z").values), 1e-5);
  EXPECT_EQ(out.codes.to_vector<std::int32_t>(), file.ints("out/codes"));
  EXPECT_LE(relative_error(out.reconstruction.to_vector<float>(), file.at("out/y").values), 1e-5);
  EXPECT_NEAR(out.loss.item(), file.scalar("out/clean/loss.f64"),
              1e-5 * file.scalar("out/clean/loss.f64"));
  backward(out.loss);
  expect_gradients(parameters, file, "grad/clean/");
}

TEST(Golden, TokenizerMatchesPyTorch) { on_wanted_devices(check_tokenizer); }

void check_gpt(const std::string& name, std::int64_t heads, Device device) {
  const GoldenFile file(name);
  Rng rng(0);
  const auto shape = file.at("param/backbone.embed.token.weight").shape;
  const bool two = file.tensors.contains("param/backbone.block.1.norm1.weight");
  GptBackbone backbone(
      {.vocabulary = shape[0], .width = shape[1], .blocks = two ? 2 : 1, .heads = heads}, rng);
  NextTokenHead head(shape[1], shape[0], rng);
  backbone.to(device);
  head.to(device);
  const auto parameters =
      joined(backbone.named_parameters("backbone"), head.named_parameters("head"));
  load_parameters(parameters, file);
  const Tensor hidden = backbone(ints(file, "in/ids").to(device), segments(file));
  EXPECT_LE(relative_error(hidden.to_vector<float>(), file.at("out/hidden").values), 1e-5);
  EXPECT_LE(relative_error(head.ntp(hidden).to_vector<float>(), file.at("out/logits").values),
            1e-5);
  const Tensor loss =
      linear_cross_entropy(hidden, head.ntp.weight, head.ntp.bias, ints(file, "in/targets"));
  EXPECT_NEAR(loss.item(), file.scalar("out/clean/loss.f64"),
              1e-5 * file.scalar("out/clean/loss.f64"));
  backward(loss);
  expect_gradients(parameters, file, "grad/clean/");
}

TEST(Golden, GptWithHeadsOf8MatchesPyTorch) {
  on_wanted_devices([](Device device) { check_gpt("gpt_heads_of_8", 4, device); });
}
TEST(Golden, GptWithHeadsOf32MatchesPyTorch) {
  on_wanted_devices([](Device device) { check_gpt("gpt_heads_of_32", 2, device); });
}

void check_pretraining(Device device) {
  const GoldenFile file("pretrain");
  Rng rng(0);
  Backbone backbone({.width = 32, .blocks = 2, .heads = 4, .registers = 2}, rng);
  const auto rows = file.at("param/head.pretrain.unembed.bias").shape[0];
  PretrainHead head(32, 4, {.codes = rows - 2, .max_particles = 32}, rng);
  backbone.to(device);
  head.to(device);
  const auto parameters =
      joined(backbone.named_parameters("backbone"), head.named_parameters("head.pretrain"));
  load_parameters(parameters, file);
  const ParticleFeatures raw{segments(file), floats(file, "in/core").to(device),
                             ints(file, "in/pid").to(device), floats(file, "in/ctx").to(device)};
  const ParticleFeatures tokens{
      segments(file), floats(file, "in/core_token").to(device), raw.pid, {}};
  std::vector<std::uint8_t> hidden(static_cast<std::size_t>(raw.segments.total()), 0);
  for (const std::int32_t i : file.ints("in/masked")) {
    hidden[static_cast<std::size_t>(i)] = 1;
  }
  EXPECT_LE(relative_error(backbone(raw).to_vector<float>(), file.at("out/bidir_hidden").values),
            1e-5);
  const PretrainOutput out = head(backbone, tokens, raw, ints(file, "in/codes").to(device), hidden);
  EXPECT_NEAR(out.ntp_code.item(), file.scalar("out/ntp_code.f64"),
              1e-5 * file.scalar("out/ntp_code.f64"));
  EXPECT_NEAR(out.mpm_code.item(), file.scalar("out/mpm_code.f64"),
              1e-5 * file.scalar("out/mpm_code.f64"));
  EXPECT_NEAR(out.loss.item(), file.scalar("out/loss.f64"), 1e-5 * file.scalar("out/loss.f64"));
  backward(out.loss);
  expect_gradients(parameters, file, "grad/");
}

TEST(Golden, JointPretrainingInOnePassMatchesPyTorch) { on_wanted_devices(check_pretraining); }

/// Output, input and parameter gradients of a head, as `make(rng)` gives it, whose parameters stand
/// under `prefix`.
void expect_head(const std::string& name, const std::string& prefix, const auto& make) {
  const GoldenFile file(name);
  on_wanted_devices([&](Device device) {
    Rng rng(0);
    auto head = make(rng);
    head->to(device);
    const auto parameters = head->named_parameters(prefix);
    load_parameters(parameters, file);
    const Tensor x = leaf(file, device);
    expect_output_and_gradients((*head)(x, segments(file)), x, parameters, file);
  });
}

TEST(Golden, SumHeadMatchesPyTorch) {
  expect_head("sum_head", "head.sum",
              [](Rng& rng) { return std::make_unique<SumHead>(32, 2, rng); });
}

TEST(Golden, DeepSetsMatchesPyTorch) {
  expect_head("deepsets", "deepsets",
              [](Rng& rng) { return std::make_unique<DeepSets>(13, 32, 6, rng); });
}

TEST(Golden, TauHeadMatchesPyTorchEmptyJetIncluded) {
  const ClassAttentionHead::Config config{
      .width = 32, .heads = 4, .outputs = 6, .blocks = 2, .particle_blocks = 1};
  expect_head("tau_head", "head.tau",
              [&](Rng& rng) { return std::make_unique<ClassAttentionHead>(config, rng); });
}

TEST(Golden, ParticleFlowNetworkMatchesPyTorch) {
  DeepSetsConfig config = DeepSetsConfig::pfn(3, 2);
  config.phi = {20, 20, 48};
  config.f = {20, 20, 20};
  expect_head("pfn", "pfn", [&](Rng& rng) { return std::make_unique<DeepSets>(config, rng); });
}

TEST(Golden, PublishedClassAttentionMatchesPyTorch) {
  expect_head("class_attention_ref", "head.class_attention_ref", [](Rng& rng) {
    return std::make_unique<ClassAttentionRef>(ClassAttentionRef::Config{.width = 32}, rng);
  });
}

}  // namespace
}  // namespace tessera
