#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/autograd.h"
#include "core/parallel.h"
#include "kernels/gather/gather.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/backbone.h"
#include "nn/models/class_attention_ref.h"
#include "nn/models/heads.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"

namespace tessera {
namespace {

const TokenizerConfig kSmall{.width = 16, .blocks = 2, .heads = 2, .codes = 37};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

ParticleFeatures random_jets(const std::vector<std::int32_t>& lengths, std::uint64_t seed) {
  ParticleFeatures f{
      .segments = Segments::from_lengths(lengths), .core = {}, .pid = {}, .context = {}};
  const std::int64_t t = f.segments.total();
  f.core = random({t, 3}, seed);
  f.context = random({t, 9}, seed + 1);
  std::vector<std::int32_t> pid(static_cast<std::size_t>(t));
  std::ranges::generate(pid, [i = 0]() mutable { return i++ % 8; });
  f.pid = Tensor::from(pid, {t});
  return f;
}

// uhh-pd-ml/omnijet_alpha, instantiated from the published classes.
TEST(Models, OmniJetAlphaHasThePublishedParameterCounts) {
  Rng rng(0);
  const Tokenizer tokenizer({}, rng);
  const GptBackbone backbone({}, rng);
  const NextTokenHead head(256, 8194, rng);
  EXPECT_EQ(tokenizer.parameter_count(), 833551);
  EXPECT_EQ(backbone.parameter_count(), 4464640);
  EXPECT_EQ(backbone.parameter_count() + head.parameter_count(), 6570498);
}

TEST(Models, TesseraPresetsHaveTheSpecifiedParameterCounts) {
  Rng rng(0);
  const Backbone small({}, rng);
  EXPECT_EQ(small.parameter_count(), 1194880);
  const Backbone tiny({.width = 64, .blocks = 2, .heads = 4, .registers = 2}, rng);
  EXPECT_EQ(tiny.parameter_count(), 101952);
  const PretrainHead head(64, 4, {.codes = 512, .max_particles = 32}, rng);
  EXPECT_EQ(tiny.parameter_count() + head.parameter_count(), 205514);
  const Tokenizer tokenizer({.width = 32, .blocks = 1, .heads = 4, .codes = 512}, rng);
  EXPECT_EQ(tokenizer.parameter_count(), 15631);
}

TEST(Models, TauHeadHasTheSpecifiedParameterCount) {
  Rng rng(0);
  const ClassAttentionHead head(
      {.width = 256, .heads = 8, .outputs = 1, .blocks = 2, .particle_blocks = 2}, rng);
  EXPECT_EQ(head.parameter_count() - head.fc.parameter_count(), 3171104);
  const ClassAttentionHead small({.width = 128, .heads = 8, .outputs = 1, .particle_blocks = 1},
                                 rng);
  EXPECT_EQ(small.parameter_count(), 399889);
}

TEST(Models, SetNetworksHaveThePublishedParameterCounts) {
  Rng rng(0);
  EXPECT_EQ(DeepSets(DeepSetsConfig::pfn(13, 2), rng).parameter_count(), 83458);
  EXPECT_EQ(DeepSets(13, 128, 1, rng).parameter_count(), 100993);
  EXPECT_EQ(DeepSets(13, 128, 2, rng).parameter_count(), 101122);
  EXPECT_EQ(DeepSets(13, 128, 6, rng).parameter_count(), 101638);
}

TEST(Models, PublishedClassAttentionHasItsCountWithoutTheDeadPart) {
  Rng rng(0);
  const ClassAttentionRef head({}, rng);
  const std::int64_t projection = 256 * 256 + 256, norm = 2 * 256;
  const std::int64_t dead = projection + 3 * (2 * norm + 2 * projection);
  EXPECT_EQ(dead, 463616);
  EXPECT_EQ(head.parameter_count() + dead, 1387010);
}

TEST(Models, SetNetworksOfEmptyJetsGiveTheAnswerOfNothing) {
  Rng rng(0);
  const DeepSets model(DeepSetsConfig::pfn(3, 2), rng);
  const auto y = model(random({2, 3}, 1), Segments({0, 0, 2, 2})).to_vector<float>();
  EXPECT_EQ(y[0], y[4]);
  EXPECT_TRUE(std::isfinite(y[0]));
}

TEST(Models, TauHeadOfEmptyJetsGivesTheSameFiniteAnswerForEach) {
  Rng rng(0);
  const ClassAttentionHead head(
      {.width = 16, .heads = 2, .outputs = 1, .blocks = 2, .particle_blocks = 2}, rng);
  const auto alone = head(random({0, 16}, 1), Segments({0, 0, 0})).to_vector<float>();
  EXPECT_TRUE(std::isfinite(alone[0]));
  EXPECT_EQ(alone[0], alone[1]);
  const auto beside = head(random({33, 16}, 1), Segments({0, 33, 33})).to_vector<float>();
  EXPECT_NEAR(beside[1], alone[0], 1e-6);  // the product of three rows takes another tail
}

TEST(Models, TokenizerBlocksAreTheIdentityAtStart) {
  Rng rng(1);
  const NormFormerBlock block(16, 2, 1, rng);
  const Tensor x = random({33, 16}, 2);
  const Tensor y = block(x, Segments({0, 0, 1, 33}));
  EXPECT_EQ(x.to_vector<float>(), y.to_vector<float>());
}

TEST(Models, TokenizerIsPermutationEquivariant) {
  Rng rng(3);
  Tokenizer model(kSmall, rng);
  for (const NamedTensor& p : model.named_parameters()) {  // leave the identity start behind
    copy_into(p.tensor, uniform_init(p.tensor.shape(), 0.3F, rng));
  }
  const std::int64_t n = 31;
  const Tensor x = random({n, 3}, 4);
  const auto values = x.to_vector<float>();
  std::vector<float> reversed;
  for (std::int64_t i = n - 1; i >= 0; --i) {
    reversed.insert(reversed.end(), values.begin() + 3 * i, values.begin() + 3 * i + 3);
  }
  const Segments one({0, static_cast<std::int32_t>(n)});
  const auto z = model.encode_latent(x, one).to_vector<float>();
  const auto w = model.encode_latent(Tensor::from(reversed, {n, 3}), one).to_vector<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t d = 0; d < 4; ++d) {
      EXPECT_NEAR(z[static_cast<std::size_t>(4 * i + d)],
                  w[static_cast<std::size_t>(4 * (n - 1 - i) + d)], 1e-4);
    }
  }
}

TEST(Models, NanInOneJetReachesNoOther) {
  Rng rng(5);
  const Backbone backbone({.width = 16, .blocks = 2, .heads = 2, .registers = 2}, rng);
  const ClassAttentionHead head({.width = 16, .heads = 2, .outputs = 3}, rng);
  ParticleFeatures f = random_jets({4, 0, 7, 1}, 6);
  const auto clean = head(backbone(f), f.segments).to_vector<float>();
  fill(f.core.slice(0, 4, 11), NAN);  // the third jet
  const auto dirty = head(backbone(f), f.segments).to_vector<float>();
  for (std::size_t j = 0; j < 4; ++j) {
    for (std::size_t c = 0; c < 3; ++c) {
      if (j == 2) {
        EXPECT_TRUE(std::isnan(dirty[3 * j + c]));
      } else {
        EXPECT_EQ(clean[3 * j + c], dirty[3 * j + c]) << "jet " << j;
      }
    }
  }
}

/// The rows of a tensor from the last to the first.
Tensor reversed(const Tensor& t) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(t.shape(0)));
  std::iota(order.rbegin(), order.rend(), 0);
  const auto n = static_cast<std::int64_t>(order.size());
  if (t.dtype() != DType::i32) {
    return gather_rows(t, Tensor::from(order, {n}));
  }
  auto values = t.to_vector<std::int32_t>();
  std::ranges::reverse(values);
  return Tensor::from(values, {n});
}

/// One jet with its particles in the opposite order.
ParticleFeatures reversed(const ParticleFeatures& f) {
  return {f.segments, reversed(f.core), reversed(f.pid), reversed(f.context)};
}

void expect_near(const Tensor& got, const Tensor& expected, float bound) {
  const auto a = got.to_vector<float>(), b = expected.to_vector<float>();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], bound * std::max(1.0F, std::abs(b[i]))) << i;
  }
}

TEST(Models, BidirectionalStreamIsPermutationEquivariant) {
  Rng rng(7);
  const Backbone backbone({.width = 16, .blocks = 2, .heads = 2, .registers = 2}, rng);
  const ParticleFeatures f = random_jets({33}, 8);
  expect_near(backbone(reversed(f)), reversed(backbone(f)), 1e-5F);
}

TEST(Models, CausalStreamDependsOnTheOrder) {
  Rng rng(7);
  const Backbone backbone({.width = 16, .blocks = 2, .heads = 2, .registers = 2}, rng);
  const ParticleFeatures f = random_jets({33}, 8);
  const auto stream = [&](const ParticleFeatures& g) {
    return backbone.run(backbone.embed(g), g.segments, {1});
  };
  const auto a = reversed(stream(f)).to_vector<float>(), b = stream(reversed(f)).to_vector<float>();
  double gap = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    gap = std::max(gap, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  EXPECT_GT(gap, 0.1);
}

TEST(Models, HeadsAreInvariantUnderPermutation) {
  Rng rng(7);
  const Tensor h = random({33, 16}, 8);
  const Segments jet({0, 33});
  const SumHead sum_head(16, 2, rng);
  const ClassAttentionHead tau_head(
      {.width = 16, .heads = 2, .outputs = 3, .blocks = 2, .particle_blocks = 1}, rng);
  const ClassAttentionRef published({.width = 16}, rng);
  const DeepSets mean_pool(16, 16, 2, rng);
  const auto expect_invariant = [&](const auto& head) {
    expect_near(head(reversed(h), jet), head(h, jet), 1e-5F);
  };
  expect_invariant(sum_head);
  expect_invariant(tau_head);
  expect_invariant(published);
  expect_invariant(mean_pool);
}

// The engine has no padding; what remains of it is that neighbours in the batch change nothing.
TEST(Models, TauHeadTreatsEachJetAlone) {
  Rng rng(7);
  const ClassAttentionHead head(
      {.width = 16, .heads = 2, .outputs = 3, .blocks = 2, .particle_blocks = 2}, rng);
  const Tensor h = random({65, 16}, 8);
  const Segments jets({0, 1, 1, 32, 65});
  const Tensor together = head(h, jets);
  for (int j = 0; j < jets.count(); ++j) {
    const std::int32_t first = jets.cu_seqlens()[static_cast<std::size_t>(j)];
    const Segments alone({0, jets.length(j)});
    expect_near(head(h.slice(0, first, first + jets.length(j)), alone), together.slice(0, j, j + 1),
                1e-5F);
  }
}

TEST(Models, MaskedParticlesGetNoGradientOnTheirRawInputs) {
  Rng rng(9);
  const Backbone backbone({.width = 16, .blocks = 1, .heads = 2, .registers = 2}, rng);
  const PretrainHead head(16, 2, {.codes = 11, .max_particles = 8}, rng);
  ParticleFeatures raw = random_jets({3, 5, 1, 0}, 10);
  raw.core.set_requires_grad(true);
  ParticleFeatures tokens = raw;
  tokens.core = raw.core.detach();
  tokens.context = Tensor();
  const std::vector<std::int32_t> codes{0, 1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<std::uint8_t> hidden(9, 0);
  hidden[1] = hidden[4] = 1;
  const PretrainOutput out = head(backbone, tokens, raw, Tensor::from(codes, {9}), hidden);
  backward(out.loss);
  const auto g = raw.core.grad().to_vector<float>();
  for (std::size_t i = 0; i < 8; ++i) {  // the last jet has one particle and nothing to predict
    const float size = std::abs(g[3 * i]) + std::abs(g[3 * i + 1]) + std::abs(g[3 * i + 2]);
    EXPECT_EQ(size == 0, hidden[i] != 0) << "particle " << i;
  }
}

TEST(Models, MaskCountsAreRoundedPerJetAndNeverAll) {
  const Segments s = Segments::from_lengths(std::vector<std::int32_t>{0, 1, 2, 3, 10, 33});
  const auto hidden = choose_masks(s, 0.4F, Rng(1));
  const int expected[] = {0, 0, 1, 1, 4, 13};
  for (int j = 0; j < s.count(); ++j) {
    const auto first = hidden.begin() + s.cu_seqlens()[static_cast<std::size_t>(j)];
    EXPECT_EQ(std::count(first, first + s.length(j), 1), expected[j]) << "jet " << j;
  }
}

TEST(Models, LossAndGradientsAreBitEqualForAnyThreadCount) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    Rng rng(11);
    const Tokenizer model(kSmall, rng);
    const TokenizerOutput out = model(random({257, 3}, 12), Segments({0, 31, 31, 64, 257}));
    backward(out.loss);
    std::vector<float> all{out.loss.item()};
    for (const NamedTensor& p : model.named_parameters()) {
      if (p.tensor.grad().defined()) {
        std::ranges::copy(p.tensor.grad().to_vector<float>(), std::back_inserter(all));
      }
    }
    results.push_back(all);
  }
  for (const auto& r : results) {
    EXPECT_EQ(r, results[0]);
  }
}

TEST(Module, FrozenModulesKeepNoGradient) {
  Rng rng(13);
  Backbone backbone({.width = 16, .blocks = 1, .heads = 2, .registers = 1}, rng);
  backbone.freeze();
  const ParticleFeatures f = random_jets({3}, 14);
  EXPECT_FALSE(backbone(f).requires_grad());
}

TEST(Module, LoadNamesEveryWrongKey) {
  Rng rng(15);
  SumHead head(4, 2, rng);
  std::vector<NamedTensor> tensors = state(head);
  tensors[0].name = "fc1.wrong";
  try {
    load(head, tensors);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("missing [fc1.weight], unexpected [fc1.wrong]"), std::string::npos)
        << e.message();
  }
}

TEST(Module, FlatParametersAliasTheModule) {
  Rng rng(16);
  const SumHead head(4, 2, rng);
  const auto before = head.fc1.weight.to_vector<float>();
  const FlatParameters flat(head.named_parameters());
  EXPECT_EQ(head.fc1.weight.to_vector<float>(), before);
  fill(flat.values, 2.0F);
  EXPECT_EQ(head.fc2.bias.to_vector<float>(), (std::vector<float>{2, 2}));
  backward(sum(head(random({3, 4}, 17), Segments({0, 3}))));
  EXPECT_NE(flat.gradients.to_vector<float>(),
            std::vector<float>(static_cast<std::size_t>(flat.gradients.size()), 0));
}

}  // namespace
}  // namespace tessera
