#include "nn/models/reference_compat.h"

#include "nn/models/particle_transformer.h"
#include "support/golden_model.h"

namespace tessera {
namespace {

using namespace test;  // NOLINT

Tokenizer make_tokenizer(std::int64_t mlp_factor, bool causal) {
  Rng rng(0);
  return Tokenizer({.width = 16,
                    .blocks = 2,
                    .heads = 4,
                    .mlp_factor = mlp_factor,
                    .codes = 64,
                    .causal_decoder = causal},
                   rng);
}

std::int32_t pad_code_of(const PaddedTokenizerLoss& loss) {
  return loss.pad_code.to_vector<std::int32_t>().at(0);
}

void expect_padded_tokenizer(const std::string& name, std::int64_t mlp_factor, bool causal) {
  const GoldenFile file(name);
  const Tokenizer model = make_tokenizer(mlp_factor, causal);
  const auto parameters = model.named_parameters("tokenizer");
  load_parameters(parameters, file);
  const Tensor x = floats(file, "in/x");
  const PaddedTokenizerLoss loss =
      padded_tokenizer_loss(model, model(x, segments(file)), x, segments(file), 128);
  EXPECT_EQ(pad_code_of(loss), file.ints("out/pad_code")[0]);
  const auto expected = [&](const char* what) {
    return file.scalar(std::string("out/reference/") + what + ".f64");
  };
  EXPECT_NEAR(loss.loss.item(), expected("loss"), 1e-5 * expected("loss"));
  EXPECT_NEAR(loss.reconstruction_loss.item(), expected("loss_reco"), 1e-5 * expected("loss_reco"));
  EXPECT_NEAR(loss.quantizer_loss.item(), expected("loss_vq"), 1e-5 * expected("loss_vq"));
  backward(loss.loss);
  expect_gradients(parameters, file, "grad/reference/");
}

TEST(ReferenceCompat, TokenizerLossCountsEveryPad) {
  expect_padded_tokenizer("tokenizer", 1, false);
}

TEST(ReferenceCompat, TokenizerLossWithCausalDecoderAndAnEmptyJet) {
  expect_padded_tokenizer("tokenizer_causal", 2, true);
}

TEST(ReferenceCompat, OnlyEmptyJetsGiveAFiniteLossOfThePads) {
  const Tokenizer model = make_tokenizer(1, false);
  const Segments none({0, 0, 0});
  const Tensor x = Tensor::zeros({0, 3});
  const PaddedTokenizerLoss loss = padded_tokenizer_loss(model, model(x, none), x, none, 128);
  double smallest = INFINITY;
  const auto e = model.vq.codebook.to_vector<float>();
  for (std::size_t k = 0; k < e.size(); k += 4) {
    double norm = 0;
    for (std::size_t d = 0; d < 4; ++d) {
      norm += static_cast<double>(e[k + d] * e[k + d]);
    }
    smallest = std::min(smallest, norm);
  }
  EXPECT_NEAR(loss.loss.item(), 10 * smallest / 4, 1e-5 * smallest);
}

// Two codes whose norms are one half: by f32 the second is the nearer to zero.
TEST(ReferenceCompat, PadsHaveTheirCodeByTheTokenizersDistance) {
  Tokenizer model = make_tokenizer(1, false);
  const Tensor& codes = model.vq.codebook;
  copy_into(codes, Tensor::full(codes.shape(), 1.0F));
  copy_into(codes.slice(0, 5, 6), Tensor::full({1, 4}, 0.5F));
  copy_into(codes.slice(0, 9, 10), Tensor::full({1, 4}, 0.49999F));
  const Segments none({0, 0});
  const Tensor x = Tensor::zeros({0, 3});
  const auto pad_code = [&] {
    return pad_code_of(padded_tokenizer_loss(model, model(x, none), x, none, 8));
  };
  EXPECT_EQ(pad_code(), 9);
  model.config.distance = VqDistance::f16;
  EXPECT_EQ(pad_code(), 5);
}

TEST(ReferenceCompat, PadsCountAsUsedRowsAtZero) {
  const Tokenizer model = make_tokenizer(1, false);
  Rng rng(1);
  const Tensor x = normal_init({9, 3}, 1.0F, rng);
  const Segments s({0, 4, 9});
  const TokenizerOutput out = model(x, s);
  const PaddedTokenizerLoss loss = padded_tokenizer_loss(model, out, x, s, 5);
  EXPECT_EQ(loss.pads, 1);
  const PaddedLatents all = with_pads(out, loss);
  const auto z = all.latent.to_vector<float>();
  const auto codes = all.codes.to_vector<std::int32_t>();
  ASSERT_EQ(z.size(), 40U);
  EXPECT_EQ(std::vector<float>(z.end() - 4, z.end()), std::vector<float>(4, 0.0F));
  EXPECT_EQ(codes.back(), pad_code_of(loss));
  const auto packed = out.codes.to_vector<std::int32_t>();
  EXPECT_EQ(std::vector<std::int32_t>(codes.begin(), codes.end() - 1), packed);
}

void expect_padded_gpt(const std::string& name, std::int64_t heads, std::int64_t blocks) {
  const GoldenFile file(name);
  Rng rng(0);
  const auto shape = file.at("param/backbone.embed.token.weight").shape;
  const GptBackbone backbone(
      {.vocabulary = shape[0], .width = shape[1], .blocks = blocks, .heads = heads}, rng);
  const NextTokenHead head(shape[1], shape[0], rng);
  const auto parameters =
      joined(backbone.named_parameters("backbone"), head.named_parameters("head"));
  load_parameters(parameters, file);
  const PaddedNextTokenLoss loss = padded_next_token_loss(
      backbone, head, ints(file, "in/ids"), ints(file, "in/targets"), segments(file), 40);
  const double expected = file.scalar("out/diluted/loss.f64"),
               clean = file.scalar("out/clean/loss.f64");
  EXPECT_NEAR(loss.loss.item(), expected, 1e-5 * expected);
  EXPECT_NEAR(loss.clean.item(), clean, 1e-5 * clean);
  backward(loss.loss);
  expect_gradients(parameters, file, "grad/diluted/");
}

TEST(ReferenceCompat, NextTokenLossOverPaddedSlotsWithHeadsOf8) {
  expect_padded_gpt("gpt_heads_of_8", 4, 2);
}
TEST(ReferenceCompat, NextTokenLossOverPaddedSlotsWithHeadsOf32) {
  expect_padded_gpt("gpt_heads_of_32", 2, 1);
}

TEST(ReferenceCompat, RefusesJetsThatDoNotFitTheSlots) {
  Rng rng(0);
  const Tokenizer model = make_tokenizer(1, false);
  const Tensor x = normal_init({9, 3}, 1.0F, rng);
  const Segments s({0, 4, 9});
  EXPECT_THROW(padded_tokenizer_loss(model, model(x, s), x, s, 4), Error);
  const GptBackbone gpt({.vocabulary = 5, .width = 8, .blocks = 1, .heads = 1}, rng);
  const NextTokenHead head(8, 5, rng);
  const Tensor ids = Tensor::zeros({9}, DType::i32);
  EXPECT_THROW(padded_next_token_loss(gpt, head, ids, ids, s, 4), Error);
  EXPECT_THROW(padded_next_token_loss(gpt, head, ids, ids, Segments({0, 0, 9}), 9), Error);
}

/// Losses and gradients of a device; and how often the host waited for it in between.
struct OnDevice {
  std::vector<float> losses;
  std::vector<std::vector<float>> gradients;
  std::vector<std::int32_t> codes;  // pads of the tokenizer's latents included
  std::uint64_t waits = 0;
};

void keep_gradients(const std::vector<NamedTensor>& parameters, OnDevice& kept) {
  for (const NamedTensor& p : parameters) {
    kept.gradients.push_back(p.tensor.grad().to_vector<float>());
  }
}

// f32 sums in another order; the bound is relative to the largest gradient of the tensor.
void expect_like_the_cpu(const OnDevice& got, const OnDevice& cpu) {
  EXPECT_EQ(got.waits, 0U) << "a step that reads its device cannot be recorded as a graph";
  EXPECT_EQ(got.codes, cpu.codes);
  for (std::size_t i = 0; i < cpu.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], cpu.losses[i], 1e-5F * std::abs(cpu.losses[i])) << i;
  }
  ASSERT_EQ(got.gradients.size(), cpu.gradients.size());
  for (std::size_t i = 0; i < cpu.gradients.size(); ++i) {
    float largest = 1e-6F;
    for (const float g : cpu.gradients[i]) {
      largest = std::max(largest, std::abs(g));
    }
    ASSERT_EQ(got.gradients[i].size(), cpu.gradients[i].size());
    for (std::size_t k = 0; k < cpu.gradients[i].size(); ++k) {
      ASSERT_NEAR(got.gradients[i][k], cpu.gradients[i][k], 2e-3F * largest) << i << ", " << k;
    }
  }
}

OnDevice tokenizer_losses(Device device) {
  Tokenizer model = make_tokenizer(1, true);
  model.to(device);
  Rng rng(1);
  const Tensor x = normal_init({9, 3}, 1.0F, rng).to(device);
  const Segments s({0, 4, 4, 9});
  const std::uint64_t waits = device_waits();
  const TokenizerOutput out = model(x, s);
  const PaddedTokenizerLoss loss = padded_tokenizer_loss(model, out, x, s, 7);
  const PaddedLatents seen = with_pads(out, loss);
  backward(loss.loss);
  OnDevice kept{.waits = device_waits() - waits};
  EXPECT_EQ(seen.latent.device(), device);
  EXPECT_EQ(seen.latent.shape(), Shape({21, 4}));
  kept.codes = seen.codes.to_vector<std::int32_t>();
  kept.losses = {loss.loss.item(), loss.reconstruction_loss.item(), loss.quantizer_loss.item()};
  keep_gradients(model.named_parameters(), kept);
  return kept;
}

OnDevice next_token_losses(Device device) {
  Rng rng(3);
  GptBackbone gpt({.vocabulary = 11, .width = 16, .blocks = 2, .heads = 2}, rng);
  NextTokenHead head(16, 11, rng);
  gpt.to(device);
  head.to(device);
  const std::vector<std::int32_t> ids{0, 3, 4, 9, 0, 0, 7}, targets{3, 4, 9, 10, 10, 7, 10};
  const Segments s({0, 4, 5, 7});
  const Tensor in = Tensor::from(ids, {7}, device), next = Tensor::from(targets, {7}, device);
  const std::uint64_t waits = device_waits();
  const PaddedNextTokenLoss loss = padded_next_token_loss(gpt, head, in, next, s, 6);
  backward(loss.loss);
  OnDevice kept{.waits = device_waits() - waits};
  kept.losses = {loss.loss.item(), loss.clean.item()};
  keep_gradients(joined(gpt.named_parameters(), head.named_parameters()), kept);
  return kept;
}

TEST(ReferenceCompat, LossesOnADeviceAreThoseOfTheCpuAndAreNotReadThere) {
  for (const Device device : devices()) {
    SCOPED_TRACE(name(device));
    expect_like_the_cpu(tokenizer_losses(device), tokenizer_losses(kCpu));
    expect_like_the_cpu(next_token_losses(device), next_token_losses(kCpu));
  }
}

struct Moments {
  double mean = 0, deviation = 0, largest = 0;
  explicit Moments(const Tensor& t) {
    const auto v = t.to_vector<float>();
    const auto n = static_cast<double>(v.size());
    double square = 0;
    for (const float x : v) {
      mean += static_cast<double>(x) / n;
      square += static_cast<double>(x) * static_cast<double>(x) / n;
      largest = std::max(largest, std::abs(static_cast<double>(x)));
    }
    deviation = std::sqrt(square - mean * mean);
  }
};

TEST(ReferenceCompat, TauReferenceStartHasTheStatedMoments) {
  Rng rng(2);
  const ParticleTransformer model({}, rng);
  start_as_tau_reference(model, rng);
  std::size_t linears = 0;
  for (const NamedTensor& p : model.named_parameters()) {
    SCOPED_TRACE(p.name);
    const Moments m(p.tensor);
    const bool attention = p.name.find(".attn.") != std::string::npos;
    if (p.name == "cls") {
      EXPECT_NEAR(m.deviation, 0.02, 0.004);
    } else if (p.name.ends_with("attn.qkv.weight")) {
      EXPECT_NEAR(m.largest, std::sqrt(6.0 / (4 * 256)), 1e-4);
      EXPECT_NEAR(m.deviation, m.largest / std::sqrt(3.0), 1e-3);
    } else if (p.name.ends_with("attn.out.weight")) {
      EXPECT_NEAR(m.largest, 1.0 / 16, 1e-4);
    } else if (attention) {
      EXPECT_EQ(m.largest, 0.0);  // biases
    } else if (p.tensor.rank() == 2 && p.tensor.shape(0) >= 64) {
      const auto fan_out = static_cast<double>(p.tensor.shape(0));
      EXPECT_NEAR(m.deviation * std::sqrt(fan_out / 2), 1, 0.15);
      ++linears;
    } else if (p.name.ends_with("fc1.bias")) {
      EXPECT_NEAR(m.mean, -1.0 / 32, 5e-3);
      EXPECT_NEAR(m.deviation, 1.0 / 32, 5e-3);
    } else if (p.name.ends_with("norm.weight") || p.name.ends_with("c_attn")) {
      EXPECT_NEAR(m.mean, 1.0, 1e-12);
    }
  }
  EXPECT_EQ(linears, 14U);  // two a block, three of the embedding, three of the pairs
}

}  // namespace
}  // namespace tessera
