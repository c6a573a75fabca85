// The models against PyTorch in double precision: outputs, losses and the gradient of every
// parameter. Bounds of the specification: forward 1e-5, gradients 1e-4, relative Frobenius norm.
#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/models/backbone.h"
#include "nn/models/heads.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "support/golden.h"

namespace tessera {
namespace {

using test::GoldenFile;

double relative_error(const std::vector<float>& got, const std::vector<double>& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-30));
}

Tensor floats(const GoldenFile& file, const std::string& name) {
  const auto values = file.floats(name);
  return Tensor::from(values, Shape(file.at(name).shape));
}

Tensor ints(const GoldenFile& file, const std::string& name) {
  const auto values = file.ints(name);
  return Tensor::from(values, Shape(file.at(name).shape));
}

Segments segments(const GoldenFile& file) { return Segments(file.ints("in/cu_seqlens")); }

/// Copies every parameter from the file; shapes may differ by axes of one, sizes may not.
void load_parameters(const std::vector<NamedTensor>& parameters, const GoldenFile& file) {
  for (const NamedTensor& p : parameters) {
    const auto values = file.floats("param/" + p.name);
    ASSERT_EQ(static_cast<std::int64_t>(values.size()), p.tensor.size()) << p.name;
    copy_into(p.tensor, Tensor::from(values, p.tensor.shape()));
  }
}

void expect_gradients(const std::vector<NamedTensor>& parameters, const GoldenFile& file,
                      const std::string& prefix) {
  for (const NamedTensor& p : parameters) {
    const auto found = file.tensors.find(prefix + p.name);
    if (found == file.tensors.end()) {
      continue;  // parameters that the loss does not reach have no gradient in PyTorch either
    }
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    double size = 0;
    for (const double g : found->second.values) {
      size += g * g;
    }
    if (size <
        1e-16) {  // a gradient of zero, such as that of the key bias under softmax: rounding only
      continue;
    }
    EXPECT_LE(relative_error(p.tensor.grad().to_vector<float>(), found->second.values), 1e-4)
        << p.name;
  }
}

/// Backward from an output with the file's upstream gradient.
void backward_with(const Tensor& y, const Tensor& upstream) {
  backward(differentiable(Tensor::scalar(0), {y},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{upstream}; }));
}

std::vector<NamedTensor> joined(std::vector<NamedTensor> a, const std::vector<NamedTensor>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Golden, TokenizerMatchesPyTorch) {
  const GoldenFile file("tokenizer");
  Rng rng(0);
  const auto codes = file.at("param/tokenizer.vq.codebook").shape[0];
  const Tokenizer model({.width = 16, .blocks = 2, .heads = 4, .codes = codes}, rng);
  const auto parameters = model.named_parameters("tokenizer");
  load_parameters(parameters, file);
  const TokenizerOutput out = model(floats(file, "in/x"), segments(file));
  EXPECT_LE(relative_error(out.latent.to_vector<float>(), file.at("out/z").values), 1e-5);
  EXPECT_EQ(out.codes.to_vector<std::int32_t>(), file.ints("out/codes"));
  EXPECT_LE(relative_error(out.reconstruction.to_vector<float>(), file.at("out/y").values), 1e-5);
  EXPECT_NEAR(out.loss.item(), file.scalar("out/clean/loss.f64"),
              1e-5 * file.scalar("out/clean/loss.f64"));
  backward(out.loss);
  expect_gradients(parameters, file, "grad/clean/");
}

void check_gpt(const std::string& name, std::int64_t heads) {
  const GoldenFile file(name);
  Rng rng(0);
  const auto shape = file.at("param/backbone.embed.token.weight").shape;
  const bool two = file.tensors.contains("param/backbone.block.1.norm1.weight");
  const GptBackbone backbone(
      {.vocabulary = shape[0], .width = shape[1], .blocks = two ? 2 : 1, .heads = heads}, rng);
  const NextTokenHead head(shape[1], shape[0], rng);
  const auto parameters =
      joined(backbone.named_parameters("backbone"), head.named_parameters("head"));
  load_parameters(parameters, file);
  const Tensor hidden = backbone(ints(file, "in/ids"), segments(file));
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

TEST(Golden, GptWithHeadsOf8MatchesPyTorch) { check_gpt("gpt_heads_of_8", 4); }
TEST(Golden, GptWithHeadsOf32MatchesPyTorch) { check_gpt("gpt_heads_of_32", 2); }

TEST(Golden, JointPretrainingInOnePassMatchesPyTorch) {
  const GoldenFile file("pretrain");
  Rng rng(0);
  const Backbone backbone({.width = 32, .blocks = 2, .heads = 4, .registers = 2}, rng);
  const auto rows = file.at("param/head.pretrain.unembed.bias").shape[0];
  const PretrainHead head(32, 4, {.codes = rows - 2, .max_particles = 32}, rng);
  const auto parameters =
      joined(backbone.named_parameters("backbone"), head.named_parameters("head.pretrain"));
  load_parameters(parameters, file);
  const ParticleFeatures raw{segments(file), floats(file, "in/core"), ints(file, "in/pid"),
                             floats(file, "in/ctx")};
  const ParticleFeatures tokens{
      segments(file), floats(file, "in/core_token"), ints(file, "in/pid"), {}};
  std::vector<std::uint8_t> hidden(static_cast<std::size_t>(raw.segments.total()), 0);
  for (const std::int32_t i : file.ints("in/masked")) {
    hidden[static_cast<std::size_t>(i)] = 1;
  }
  EXPECT_LE(relative_error(backbone(raw).to_vector<float>(), file.at("out/bidir_hidden").values),
            1e-5);
  const PretrainOutput out = head(backbone, tokens, raw, ints(file, "in/codes"), hidden);
  EXPECT_NEAR(out.ntp_code, file.scalar("out/ntp_code.f64"),
              1e-5 * file.scalar("out/ntp_code.f64"));
  EXPECT_NEAR(out.mpm_code, file.scalar("out/mpm_code.f64"),
              1e-5 * file.scalar("out/mpm_code.f64"));
  EXPECT_NEAR(out.loss.item(), file.scalar("out/loss.f64"), 1e-5 * file.scalar("out/loss.f64"));
  backward(out.loss);
  expect_gradients(parameters, file, "grad/");
}

TEST(Golden, SumHeadMatchesPyTorch) {
  const GoldenFile file("sum_head");
  Rng rng(0);
  const SumHead head(32, 2, rng);
  const auto parameters = head.named_parameters("head.sum");
  load_parameters(parameters, file);
  Tensor x = floats(file, "in/x");
  x.set_requires_grad(true);
  const Tensor y = head(x, segments(file));
  EXPECT_LE(relative_error(y.to_vector<float>(), file.at("out/y").values), 1e-5);
  backward_with(y, floats(file, "in/grad_out"));
  expect_gradients(parameters, file, "grad/");
  EXPECT_LE(relative_error(x.grad().to_vector<float>(), file.at("grad_in/x").values), 1e-4);
}

TEST(Golden, DeepSetsMatchesPyTorch) {
  const GoldenFile file("deepsets");
  Rng rng(0);
  const DeepSets model(13, 32, 6, rng);
  const auto parameters = model.named_parameters("deepsets");
  load_parameters(parameters, file);
  const Tensor y = model(floats(file, "in/x"), segments(file));
  EXPECT_LE(relative_error(y.to_vector<float>(), file.at("out/y").values), 1e-5);
  backward_with(y, floats(file, "in/grad_out"));
  expect_gradients(parameters, file, "grad/");
}

}  // namespace
}  // namespace tessera
