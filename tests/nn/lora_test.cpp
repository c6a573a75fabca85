#include "nn/lora.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "kernels/adamw/adamw.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

constexpr BackboneConfig kSmall{.width = 16, .blocks = 2, .heads = 2, .registers = 2};
constexpr GptConfig kSmallGpt{.vocabulary = 37, .width = 16, .blocks = 2, .heads = 2};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

ParticleFeatures jets() {
  const Segments s({0, 3, 3, 33});
  return {s, random({33, 3}, 1), Tensor::from(std::vector<std::int32_t>(33, 2), {33}),
          random({33, 9}, 2)};
}

std::vector<float> hidden(const Backbone& model) { return model(jets()).to_vector<float>(); }

std::vector<float> hidden(const GptBackbone& model) {
  std::vector<std::int32_t> ids(33);
  std::ranges::generate(ids, [i = 0]() mutable { return (i += 7) % 37; });
  return model(Tensor::from(ids, {33}), Segments({0, 3, 3, 33})).to_vector<float>();
}

/// Values of all parameters whose name tells that they are (not) adapters.
std::vector<float> values(const Module& model, bool adapters) {
  std::vector<float> all;
  for (const NamedTensor& p : model.named_parameters()) {
    if ((p.name.find("lora_") != std::string::npos) == adapters) {
      std::ranges::copy(p.tensor.to_vector<float>(), std::back_inserter(all));
    }
  }
  return all;
}

void randomise_adapters(const Module& model) {
  Rng rng(7);
  for (const NamedTensor& p : trainable(model.named_parameters())) {
    copy_into(p.tensor, normal_init(p.tensor.shape(), 0.1F, rng));
  }
}

// r (8 d + 2 (d + 4 d)) a block of width d.
TEST(Lora, HasTheSpecifiedNumberOfParameters) {
  Rng rng(0);
  GptBackbone omnijet({}, rng);
  Backbone small({}, rng);
  const auto all = omnijet.parameter_count();
  add_lora(omnijet, {}, rng);
  add_lora(small, {}, rng);
  EXPECT_EQ(omnijet.parameter_count() - all, 110592);
  for (const Module* model : {static_cast<Module*>(&omnijet), static_cast<Module*>(&small)}) {
    std::int64_t count = 0;
    for (const NamedTensor& p : trainable(model->named_parameters())) {
      EXPECT_TRUE(p.name.ends_with(".lora_a") || p.name.ends_with(".lora_b")) << p.name;
      count += p.tensor.size();
    }
    EXPECT_EQ(count, 110592);
  }
}

TEST(Lora, StartsWithinItsBoundsAndAtZero) {
  Rng rng(1);
  Backbone model({.blocks = 1}, rng);
  add_lora(model, {}, rng);
  for (const NamedTensor& p : trainable(model.named_parameters())) {
    const auto v = p.tensor.to_vector<float>();
    const bool a = p.name.ends_with("lora_a");
    const float bound = a ? 1 / std::sqrt(static_cast<float>(p.tensor.shape(1))) : 0.0F;
    double square = 0;
    for (const float x : v) {
      EXPECT_LE(std::abs(x), bound) << p.name;
      square += static_cast<double>(x * x);
    }
    EXPECT_NEAR(std::sqrt(square / static_cast<double>(v.size())),
                static_cast<double>(bound) / std::sqrt(3), 0.05 * static_cast<double>(bound))
        << p.name;
  }
}

template <class Model>
void expect_base_at_step_zero(Model& model) {
  Rng rng(2);
  const auto base = hidden(model);
  add_lora(model, {.rank = 3, .alpha = 16}, rng);
  EXPECT_EQ(hidden(model), base);
}

TEST(Lora, IsTheBaseBitwiseAtStepZero) {
  Rng rng(3);
  Backbone backbone(kSmall, rng);
  GptBackbone gpt(kSmallGpt, rng);
  expect_base_at_step_zero(backbone);
  expect_base_at_step_zero(gpt);
}

template <class Model>
void expect_merged_equal(Model& model) {
  Rng rng(4);
  const auto base = hidden(model);
  const auto names = model.named_parameters().size();
  add_lora(model, {.rank = 3, .alpha = 16}, rng);
  randomise_adapters(model);
  const auto adapted = hidden(model);
  merge_lora(model);
  const auto merged = hidden(model);
  EXPECT_EQ(model.named_parameters().size(), names);
  EXPECT_TRUE(trainable(model.named_parameters()).empty());
  double moved = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    EXPECT_NEAR(merged[i], adapted[i], 1e-5 * std::max(1.0F, std::abs(adapted[i])));
    moved = std::max(moved, std::abs(static_cast<double>(merged[i] - base[i])));
  }
  EXPECT_GT(moved, 0.1);
}

TEST(Lora, MergedEqualsUnmerged) {
  Rng rng(5);
  Backbone backbone(kSmall, rng);
  GptBackbone gpt(kSmallGpt, rng);
  expect_merged_equal(backbone);
  expect_merged_equal(gpt);
}

TEST(Lora, TrainingMovesTheAdaptersAndNotABitOfTheBase) {
  Rng rng(6);
  Backbone model(kSmall, rng);
  add_lora(model, {}, rng);
  const auto base = values(model, false), adapters = values(model, true);
  const FlatParameters flat(trainable(model.named_parameters()));
  const Tensor m = Tensor::zeros(flat.values.shape()), v = Tensor::zeros(flat.values.shape());
  const AdamWSpan everything{0, flat.values.size()};
  const Tensor target = random({33, 16}, 12);
  double first = 0, last = 0;
  for (int step = 1; step <= 50; ++step) {
    flat.zero_gradients();
    const Tensor loss = mean(mul(model(jets()), target));
    backward(loss);
    adamw_step(flat.values, flat.gradients, m, v, {&everything, 1},
               {.lr = 1e-2F, .weight_decay = 0.1F, .step = step});
    (step == 1 ? first : last) = static_cast<double>(loss.item());
  }
  EXPECT_EQ(values(model, false), base);
  EXPECT_NE(values(model, true), adapters);
  EXPECT_LT(last, first - 0.1);
}

// With W' = W + s B A: dA = s B^T dW', dB = s dW' A^T, for each share of the outputs.
TEST(Lora, AdapterGradientsFollowFromTheGradientOfTheWeight) {
  Rng rng(8);
  Linear adapted({.in = 5, .out = 6}, rng);
  adapted.freeze();
  adapted.add_lora({.rank = 2, .alpha = 4}, 3, rng);
  randomise_adapters(adapted);
  const Tensor w = adapted.effective_weight().clone().set_requires_grad(true);
  const Tensor x = random({31, 5}, 9), g = random({31, 6}, 10);
  backward(sum(mul(adapted(x), g)));
  backward(sum(mul(linear(x, w, adapted.bias), g)));
  const auto dw = w.grad().to_vector<float>();
  const Tensor a = adapted.named_parameters()[2].tensor, b = adapted.named_parameters()[3].tensor;
  const auto av = a.to_vector<float>(), bv = b.to_vector<float>();
  const auto da = a.grad().to_vector<float>(), db = b.grad().to_vector<float>();
  for (std::size_t share = 0; share < 3; ++share) {
    for (std::size_t r = 0; r < 2; ++r) {
      for (std::size_t i = 0; i < 5; ++i) {
        double expected = 0;
        for (std::size_t o = 2 * share; o < 2 * share + 2; ++o) {
          expected += 2.0 * static_cast<double>(bv[2 * o + r] * dw[5 * o + i]);
        }
        EXPECT_NEAR(da[5 * (2 * share + r) + i], expected, 1e-4);
      }
      for (std::size_t o = 2 * share; o < 2 * share + 2; ++o) {
        double expected = 0;
        for (std::size_t i = 0; i < 5; ++i) {
          expected += 2.0 * static_cast<double>(dw[5 * o + i] * av[5 * (2 * share + r) + i]);
        }
        EXPECT_NEAR(db[2 * o + r], expected, 1e-4);
      }
    }
  }
}

TEST(Lora, RefusesSecondAdaptersAndMergesOnce) {
  Rng rng(11);
  Backbone model(kSmall, rng);
  EXPECT_THROW(merge_lora(model), Error);
  add_lora(model, {}, rng);
  EXPECT_THROW(add_lora(model, {}, rng), Error);
  merge_lora(model);
  EXPECT_THROW(merge_lora(model), Error);
  EXPECT_THROW(add_lora(model, {.rank = 0}, rng), Error);
}

}  // namespace
}  // namespace tessera
