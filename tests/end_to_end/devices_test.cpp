// Whole tiny models on every device beyond the cpu: one step of training there against the same
// step on the cpu, loss, every gradient and every weight; on simt under six schedules with the same
// bits. The executor throws on a race, an unwritten read or a stray access, and ends the program
// when the host touches device memory, so a step that returns has none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/autograd.h"
#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/backbone.h"
#include "nn/models/deep_sets.h"
#include "nn/models/heads.h"
#include "nn/models/particle_transformer.h"
#include "nn/models/tokenizer.h"
#include "train/pretrain_job.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};

/// What one step leaves, on the host.
struct Step {
  float loss = 0;
  std::vector<std::string> names;
  std::vector<std::vector<float>> gradients, weights;
  friend bool operator==(const Step&, const Step&) = default;
};

Step one_step(Module& model, Device device, const std::function<Tensor(Device)>& loss) {
  model.to(device);
  Trainer trainer({{.parameters = model.named_parameters()}}, {.lr = 1e-2F, .warmup = 1});
  Step s;
  s.loss = trainer.step([&] { return loss(device); });
  for (const auto& [name, tensor] : model.named_parameters()) {
    EXPECT_EQ(tensor.device(), device) << name;
    s.names.push_back(name);
    s.gradients.push_back(tensor.grad().to_vector<float>());
    s.weights.push_back(tensor.to_vector<float>());
  }
  return s;
}

/// Builds a model from its seed and takes one step.
struct Case {
  const char* name;
  Step (*run)(Device);
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const Segments& jets() {
  static const Segments s = Segments::from_lengths(std::vector<std::int32_t>{0, 1, 7, 0, 19, 2});
  return s;
}

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

Tensor particles(Device device) { return random({jets().total(), 13}, 1).to(device); }

// Particle flow: sums, ReLU, squared error.
Step particle_flow(Device device) {
  Rng rng(2);
  DeepSetsConfig config = DeepSetsConfig::pfn(13, 2);
  config.phi = {20, 33};
  config.f = {17};
  DeepSets model(config, rng);
  return one_step(model, device, [&](Device d) {
    return mean(squared_error(model(particles(d), jets()), random({6, 2}, 3).to(d)));
  });
}

// The tau network: means, GELU, dropout, Huber loss.
Step tau_momentum(Device device) {
  Rng rng(4);
  DeepSetsConfig config = DeepSetsConfig::tau(13, 24, 1);
  config.dropout = 0.25F;
  DeepSets model(config, rng);
  return one_step(model, device, [&](Device d) {
    return mean(huber_loss(model(particles(d), jets(), Rng(5)), random({6, 1}, 6).to(d), 0.5F));
  });
}

// The tau identification: maxima, SiLU, focal loss with class weights.
Step tau_identification(Device device) {
  Rng rng(7);
  DeepSetsConfig config = DeepSetsConfig::tau(13, 16, 2);
  config.pool = Pool::max;
  config.activation = Activation::silu;
  DeepSets model(config, rng);
  const Tensor targets = Tensor::from(std::vector<std::int32_t>{0, 1, 1, 0, 1, 0}, {6});
  const Tensor weights = Tensor::from(std::vector<float>{1, 10}, {2});
  return one_step(model, device, [&](Device d) {
    return mean(focal_loss(model(particles(d), jets()), targets.to(d), weights.to(d), 2.0F));
  });
}

ParticleFeatures features(Device d, bool with_context, const Segments& s = jets()) {
  ParticleFeatures f{.segments = s, .core = {}, .pid = {}, .context = {}};
  const std::int64_t t = s.total();
  std::vector<std::int32_t> pid(static_cast<std::size_t>(t));
  std::ranges::generate(pid, [i = 0]() mutable { return i++ % 9; });
  f.core = random({t, 3}, 20).to(d);
  f.pid = Tensor::from(pid, {t}).to(d);
  if (with_context) {
    f.context = random({t, 9}, 21).to(d);
  }
  return f;
}

constexpr BackboneConfig kTiny{.width = 16, .blocks = 2, .heads = 2, .registers = 2};

/// A backbone with a head on it, as fine-tuning trains it.
struct Tagger : Module {
  Backbone backbone;
  ClassAttentionHead head;
  Tagger(const BackboneConfig& c, Rng& rng)
      : backbone(c, rng),
        head({.width = c.width, .heads = c.heads, .outputs = 3, .particle_blocks = 1}, rng) {
    child("backbone", backbone);
    child("head", head);
  }
};

Step tagging(Device device) {
  Rng rng(22);
  BackboneConfig config = kTiny;
  config.dropout = 0.1F;
  Tagger model(config, rng);
  const Tensor targets = Tensor::from(std::vector<std::int32_t>{0, 2, 1, 1, 2, 0}, {6});
  return one_step(model, device, [&](Device d) {
    const ParticleFeatures f = features(d, true);
    const Tensor h = model.backbone(f, Rng(23));
    return mean(cross_entropy(model.head(h, f.segments), targets.to(d)));
  });
}

// Both objectives of pre-training, with codes as a tokenizer would give them.
Step pretraining(Device device) {
  Rng rng(24);
  PretrainModel model(kTiny, {.codes = 37, .max_particles = 8}, rng);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(jets().total()));
  std::ranges::generate(codes, [i = 0]() mutable { return i++ * 11 % 37; });
  const auto hidden = choose_masks(jets(), 0.4F, Rng(25));
  return one_step(model, device, [&](Device d) {
    const Tensor ids = Tensor::from(codes, {jets().total()}).to(d);
    return model.head(model.backbone, features(d, false), features(d, true), ids, hidden).loss;
  });
}

// The tokenizer away from its start, at which every block is the identity.
Step tokenizing(Device device) {
  Rng rng(26);
  Tokenizer model({.width = 16, .blocks = 1, .heads = 2, .codes = 37}, rng);
  for (const NamedTensor& p : model.named_parameters()) {
    copy_into(p.tensor, uniform_init(p.tensor.shape(), 0.3F, rng));
  }
  return one_step(model, device, [&](Device d) {
    return model(random({jets().total(), 3}, 27).to(d), jets()).loss;
  });
}

// The Particle Transformer: batch statistics, pair bias with a gradient, class attention.
Step particle_transformer(Device device) {
  Rng rng(28);
  ParticleTransformer model({.features = 13,
                             .outputs = 2,
                             .width = 16,
                             .heads = 2,
                             .particle_blocks = 1,
                             .class_blocks = 1,
                             .embed = {16},
                             .pair = {8}},
                            rng);
  std::vector<float> p4;
  for (std::int32_t i = 0; i < jets().total(); ++i) {
    const auto x = static_cast<float>(i);
    p4.insert(p4.end(), {3 + std::sin(x), 2 * std::cos(3 * x), std::sin(2 * x), 6.0F});
  }
  return one_step(model, device, [&](Device d) {
    const Tensor momenta = Tensor::from(p4, {jets().total(), 4}).to(d);
    return mean(squared_error(model(particles(d), momenta, jets()), random({6, 2}, 29).to(d)));
  });
}

double norm(const std::vector<float>& values) {
  double square = 0;
  for (const float v : values) {
    square += static_cast<double>(v) * static_cast<double>(v);
  }
  return std::sqrt(square);
}

/// |got - expected| / max(|expected|, least)
double relative_error(std::vector<float> got, const std::vector<float>& expected,
                      double least = 1e-15) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    got[i] -= expected[i];
  }
  return norm(got) / std::max(norm(expected), least);
}

// Both sides are f32, each good to a few 1e-7 an op; a gradient passes through dozens of them.
constexpr double kGradient = 1e-5;

// A gradient that is zero but for rounding, as those of biases in front of a batch norm, is held
// against this share of the whole gradient.
constexpr double kShare = 1e-2;

// AdamW's first step is the sign of a gradient. Where that is nothing but rounding, as for the bias
// of keys, which no softmax sees, the weight may go either way.
std::vector<float> where_gradient_counts(const std::vector<float>& weights,
                                         const std::vector<float>& gradient, double least) {
  std::vector<float> kept;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (std::abs(static_cast<double>(gradient[i])) > least) {
      kept.push_back(weights[i]);
    }
  }
  return kept;
}

void expect_agreement(const Step& got, const Step& cpu) {
  EXPECT_NEAR(got.loss, cpu.loss, 2e-6 * std::abs(cpu.loss));
  ASSERT_EQ(got.names, cpu.names);
  double square = 0;
  for (const auto& g : cpu.gradients) {
    square += norm(g) * norm(g);
  }
  const double whole = std::sqrt(square);
  for (std::size_t i = 0; i < cpu.names.size(); ++i) {
    const std::vector<float>& g = cpu.gradients[i];
    EXPECT_LE(relative_error(got.gradients[i], g, kShare * whole), kGradient) << cpu.names[i];
    const double least = std::max(1e-3 * norm(g), 1e-5 * whole);
    EXPECT_LE(relative_error(where_gradient_counts(got.weights[i], g, least),
                             where_gradient_counts(cpu.weights[i], g, least)),
              kGradient)
        << cpu.names[i];
  }
}

class DeviceStep : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceStep, OnSimtAgreesWithTheCpuAndHasOneResultForAllSchedules) {
  const Step cpu = GetParam().run(kCpu);
  const std::size_t allocations = simt::live_allocations();
  Step first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::Order order = seed == 0   ? simt::Order::forward
                              : seed == 1 ? simt::Order::reverse
                                          : simt::Order::random;
    const simt::ScheduleGuard guard({order, seed});
    const Step step = GetParam().run(kSimt);
    if (seed == 0) {
      first = step;
      expect_agreement(step, cpu);
    }
    EXPECT_TRUE(step == first) << "schedule " << seed << " has other bits";
  }
  wait_for(kSimt, Stream{});
  // Offsets of the jets stay on the device with their handle.
  EXPECT_LE(simt::live_allocations(), allocations + 1) << "device memory leaks";
  EXPECT_EQ(simt::take_memory_fault(), nullptr);
}

TEST_P(DeviceStep, OnCudaAgreesWithTheCpu) {
  const auto all = devices();
  const auto cuda = std::ranges::find(all, DeviceType::cuda, &Device::type);
  if (cuda == all.end()) {
    const char* asked = std::getenv("TESSERA_TEST_DEVICES");
    ASSERT_TRUE(asked == nullptr || std::string(asked).find("cuda") == std::string::npos)
        << "TESSERA_TEST_DEVICES asks for cuda, which this build or machine has not";
    GTEST_SKIP() << "no CUDA device at hand";
  }
  expect_agreement(GetParam().run(*cuda), GetParam().run(kCpu));
}

INSTANTIATE_TEST_SUITE_P(
    Models, DeviceStep,
    ::testing::Values(Case{"particle_flow", particle_flow}, Case{"tau_momentum", tau_momentum},
                      Case{"tau_identification", tau_identification}, Case{"tagging", tagging},
                      Case{"pretraining", pretraining}, Case{"tokenizing", tokenizing},
                      Case{"particle_transformer", particle_transformer}),
    [](const auto& c) { return c.param.name; });

// All gradients of a step as one vector.
std::vector<float> whole_gradient(const Step& step) {
  std::vector<float> all;
  for (const auto& g : step.gradients) {
    all.insert(all.end(), g.begin(), g.end());
  }
  return all;
}

// Rows rounded after each layer, and products of rounded operands: each good to 4e-3, a gradient
// passes through two dozen. The cpu rounds the operands alone.
TEST(DevicePrecision, AStepAtPrecisionBf16IsCloseToF32AndToTheCpu) {
  const Step exact = pretraining(kSimt);
  const PrecisionScope products(Precision::bf16);
  const Step step = pretraining(kSimt);
  EXPECT_NEAR(step.loss, exact.loss, 1e-3 * exact.loss);
  const double gap = relative_error(whole_gradient(step), whole_gradient(exact));
  EXPECT_LE(gap, 5e-2);
  EXPECT_GE(gap, 1e-4) << "that was f32";
  if (bf16_unit() != Bf16Unit::none) {
    const Step cpu = pretraining(kCpu);
    EXPECT_NEAR(step.loss, cpu.loss, 1e-3 * cpu.loss);
    EXPECT_LE(relative_error(whole_gradient(step), whole_gradient(cpu)), 5e-2);
  }
}

/// Losses of 20 steps of pre-training the tiny preset on three jets.
std::vector<float> tiny_curve(Device device) {
  Rng rng(30);
  PretrainModel model({.width = 64, .blocks = 2, .heads = 4, .registers = 2},
                      {.codes = 512, .max_particles = 32}, rng);
  model.to(device);
  Trainer trainer({{.parameters = model.named_parameters()}}, {.lr = 2e-3F, .warmup = 4});
  const Segments few({0, 4, 5, 8});
  const std::vector<std::int32_t> codes{511, 3, 200, 77, 3, 9, 0, 300};
  std::vector<float> losses;
  for (std::uint64_t step = 0; step < 20; ++step) {
    const auto hidden = choose_masks(few, 0.4F, Rng(31).fork(step));
    losses.push_back(trainer.step([&] {
      const Tensor ids = Tensor::from(codes, {few.total()}).to(device);
      return model
          .head(model.backbone, features(device, false, few), features(device, true, few), ids,
                hidden)
          .loss;
    }));
  }
  return losses;
}

TEST(DeviceCurve, TwentyStepsOfTinyPretrainingFollowTheCpu) {
  const auto cpu = tiny_curve(kCpu);
  const simt::ScheduleGuard guard({simt::Order::random, 3});
  const auto simt = tiny_curve(kSimt);
  EXPECT_LT(cpu.back(), 0.7F * cpu.front());
  for (std::size_t step = 0; step < cpu.size(); ++step) {
    EXPECT_NEAR(simt[step], cpu[step], 1e-3 * cpu[step]) << "step " << step;
  }
}

}  // namespace
}  // namespace tessera
