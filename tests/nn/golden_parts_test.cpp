// Blocks, the quantizer, losses and the optimizer against PyTorch in double precision on every
// device: values and the gradient of every parameter and input. What the files hold stands in
// tests/golden/README.md.
#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd.h"
#include "kernels/adamw/adamw.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "kernels/vq/vq.h"
#include "nn/models/tokenizer.h"
#include "support/devices.h"
#include "support/golden.h"

namespace tessera::test {
namespace {

using testing_support::on_wanted_devices;

constexpr double kForward = 1e-5, kGradient = 1e-4;  // relative Frobenius norm

double relative_error(const Tensor& got, const GoldenTensor& expected) {
  const auto values =
      got.defined() ? got.to_vector<float>() : std::vector<float>(expected.values.size());
  if (values.size() != expected.values.size()) {
    return INFINITY;
  }
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    difference += std::pow(static_cast<double>(values[i]) - expected.values[i], 2);
    size += std::pow(expected.values[i], 2);
  }
  return std::sqrt(difference) / std::max(std::sqrt(size), 1e-6);
}

/// Input of a file as a leaf with gradient.
Tensor input(const GoldenFile& file, const std::string& name, Device device) {
  const GoldenTensor& t = file.at("in/" + name);
  Tensor x = Tensor::from(t.floats(), Shape(std::span<const std::int64_t>(t.shape)), device);
  x.set_requires_grad(true);
  return x;
}

Tensor int_input(const GoldenFile& file, const std::string& name) {
  const auto values = file.ints("in/" + name);
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

Segments segments_of(const GoldenFile& file) { return Segments(file.ints("in/cu_seqlens")); }

/// Sets every parameter of the module to the file's; a name that the file lacks is a failure.
void set_parameters(const Module& module, const std::string& prefix, const GoldenFile& file) {
  for (const NamedTensor& p : module.named_parameters(prefix)) {
    copy_into(p.tensor,
              Tensor::from(file.floats("param/" + p.name), p.tensor.shape(), p.tensor.device()));
  }
}

/// The gradient of every parameter; an undefined one counts as zero.
void expect_gradients(const Module& module, const std::string& prefix, const GoldenFile& file,
                      const std::string& variant = "") {
  for (const NamedTensor& p : module.named_parameters(prefix)) {
    EXPECT_LT(relative_error(p.tensor.grad(), file.at("grad/" + variant + p.name)), kGradient)
        << p.name;
  }
}

Tensor weighted_sum(const Tensor& y, const GoldenFile& file) {
  return sum(mul(y, input(file, "grad_out", y.device()).detach()));
}

void expect_block(const std::string& name, std::int64_t width, std::int64_t heads, bool causal,
                  Device device) {
  const GoldenFile file(name);
  Rng rng(0);
  NormFormerBlock block(width, heads, 1, rng);
  block.to(device);
  set_parameters(block, "block", file);
  const Tensor x = input(file, "x", device);
  const Segments segments = segments_of(file);
  const Tensor y = block(
      x, segments, std::vector<std::uint8_t>(static_cast<std::size_t>(segments.count()), causal));
  EXPECT_LT(relative_error(y, file.at("out/y")), kForward);
  backward(weighted_sum(y, file));
  EXPECT_LT(relative_error(x.grad(), file.at("grad_in/x")), kGradient);
  expect_gradients(block, "block", file);
}

TEST(GoldenParts, NormFormerBlock) {
  on_wanted_devices([](Device d) { expect_block("normformer_block", 32, 4, false, d); });
}
TEST(GoldenParts, NormFormerBlockCausal) {
  on_wanted_devices([](Device d) { expect_block("normformer_block_causal", 32, 4, true, d); });
}
TEST(GoldenParts, NormFormerBlockAtFullWidth) {
  on_wanted_devices([](Device d) { expect_block("normformer_block_full", 128, 8, false, d); });
}
TEST(GoldenParts, NormFormerBlockAtItsIdentityStart) {
  on_wanted_devices([](Device d) { expect_block("normformer_block_init", 32, 4, false, d); });
}

void expect_quantizer(float nu, const std::string& variant, Device device) {
  const GoldenFile file("vq");
  const auto parameter = [&](const std::string& name, const Shape& shape) {
    Tensor t = Tensor::from(file.floats("param/tokenizer.vq." + name), shape, device);
    t.set_requires_grad(true);
    return t;
  };
  const Tensor z = input(file, "z", device), codebook = parameter("codebook", {61, 4}),
               scale_ = parameter("affine.scale", {4}), bias = parameter("affine.bias", {4});
  const VqResult r =
      vector_quantize(z, codebook, scale_, bias, {.beta = 0.9F, .nu = nu, .affine_lr = 2.0F});
  EXPECT_EQ(r.codes.to_vector<std::int32_t>(), file.ints("out/codes"));
  EXPECT_LT(relative_error(r.quantized, file.at("out/quantized")), kForward);
  EXPECT_NEAR(r.loss.item(), file.scalar("out/vq_loss.f64"), 1e-5);
  backward(add(weighted_sum(r.quantized, file), scale(r.loss, 10.0F)));
  EXPECT_LT(relative_error(z.grad(), file.at("grad_in/" + variant + "z")), kGradient);
  const std::string grad = "grad/" + variant + "tokenizer.vq.";
  EXPECT_LT(relative_error(codebook.grad(), file.at(grad + "codebook")), kGradient);
  EXPECT_LT(relative_error(scale_.grad(), file.at(grad + "affine.scale")), kGradient);
  EXPECT_LT(relative_error(bias.grad(), file.at(grad + "affine.bias")), kGradient);
}

TEST(GoldenParts, QuantizerWithSynchronisedStraightThrough) {
  on_wanted_devices([](Device device) { expect_quantizer(1, "nu1/", device); });
}
TEST(GoldenParts, QuantizerWithPlainStraightThrough) {
  on_wanted_devices([](Device device) { expect_quantizer(0, "nu0/", device); });
}

void expect_tokenizer(const std::string& name, std::int64_t mlp_factor, bool causal_decoder,
                      Device device) {
  const GoldenFile file(name);
  Rng rng(0);
  Tokenizer model({.width = 16,
                   .blocks = 2,
                   .heads = 4,
                   .mlp_factor = mlp_factor,
                   .codes = 64,
                   .causal_decoder = causal_decoder},
                  rng);
  model.to(device);
  set_parameters(model, "tokenizer", file);
  const TokenizerOutput out = model(input(file, "x", device).detach(), segments_of(file));
  EXPECT_EQ(out.codes.to_vector<std::int32_t>(), file.ints("out/codes"));
  EXPECT_LT(relative_error(out.latent, file.at("out/z")), kForward);
  EXPECT_LT(relative_error(out.reconstruction, file.at("out/y")), kForward);
  EXPECT_NEAR(out.loss.item(), file.scalar("out/clean/loss.f64"),
              1e-5 * file.scalar("out/clean/loss.f64"));
  backward(out.loss);
  expect_gradients(model, "tokenizer", file, "clean/");
}

TEST(GoldenParts, TokenizerWithCausalDecoder) {
  on_wanted_devices([](Device device) { expect_tokenizer("tokenizer_causal", 2, true, device); });
}

void expect_losses(Device device) {
  const GoldenFile file("losses");
  const Tensor logits = input(file, "logits", device),
               prediction = input(file, "prediction", device);
  const Tensor weight = Tensor::from(std::vector<float>{10, 1}, {2}, device);
  const Tensor focal = focal_loss(logits, int_input(file, "classes").to(device), weight, 2);
  const Tensor huber = huber_loss(prediction, input(file, "target", device).detach(), 1);
  EXPECT_LT(relative_error(focal, file.at("out/focal.rows")), kForward);
  EXPECT_LT(relative_error(huber, file.at("out/huber.rows")), kForward);
  const Tensor w = input(file, "weights", device).detach();
  backward(scale(sum(mul(focal, w)), 1.0F / 33));
  backward(scale(sum(mul(huber, w)), 1.0F / 33));
  EXPECT_LT(relative_error(logits.grad(), file.at("grad_in/focal.weighted")), kGradient);
  EXPECT_LT(relative_error(prediction.grad(), file.at("grad_in/huber.weighted")), kGradient);
}

TEST(GoldenParts, LossesPerJet) { on_wanted_devices(expect_losses); }

void expect_adamw(const std::string& variant, bool decay_everything, Device device) {
  const GoldenFile file("adamw");
  const std::vector<std::string> names{"weight", "bias", "codebook"};
  std::vector<float> start;
  std::vector<AdamWSpan> spans;
  for (const std::string& name : names) {
    const auto begin = static_cast<std::int64_t>(start.size());
    const auto values = file.floats("in/" + name);
    start.insert(start.end(), values.begin(), values.end());
    spans.push_back({begin, static_cast<std::int64_t>(start.size()), 1,
                     decay_everything || name == "weight" ? 1.0F : 0.0F});
  }
  const auto n = static_cast<std::int64_t>(start.size());
  const Tensor p = Tensor::from(start, {n}, device), m = Tensor::zeros({n}, DType::f32, device),
               v = Tensor::zeros({n}, DType::f32, device);
  for (std::int64_t step = 1; step <= 20; ++step) {
    std::vector<float> gradient;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto all = file.floats("in/grad." + names[i]);
      const auto size = static_cast<std::ptrdiff_t>(all.size() / 20);
      gradient.insert(gradient.end(), all.begin() + size * (step - 1), all.begin() + size * step);
    }
    const double norm =
        adamw_step(p, Tensor::from(gradient, {n}, device), m, v, spans,
                   {.lr = 1e-3F, .weight_decay = 1e-2F, .clip_norm = 5, .step = step});
    EXPECT_NEAR(
        norm,
        file.at("out/" + variant + "/grad_norm.f64").values[static_cast<std::size_t>(step - 1)],
        1e-4);
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_LT(relative_error(p.slice(0, spans[i].begin, spans[i].end),
                             file.at("out/" + variant + "/step20/" + names[i])),
              1e-6)
        << names[i];
  }
}

TEST(GoldenParts, AdamWWithDecayOnEverything) {
  on_wanted_devices([](Device device) { expect_adamw("all", true, device); });
}
TEST(GoldenParts, AdamWWithDecayOnMatrices) {
  on_wanted_devices([](Device device) { expect_adamw("matrices", false, device); });
}

}  // namespace
}  // namespace tessera::test
