// Models whose rows are bf16 in memory: on devices at precision bf16, against the same model in
// f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/autograd.h"
#include "core/simt/executor.h"
#include "core/simt/report.h"
#include "kernels/adamw/adamw.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/heads.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "support/test_devices.h"

namespace tessera {
namespace {

class Bf16Rows : public OnDevice {};

Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return normal_init(shape, 1.0F, rng);
}

ParticleFeatures features(bool with_context, const Segments& s) {
  ParticleFeatures f{.segments = s, .core = {}, .pid = {}, .context = {}};
  std::vector<std::int32_t> pid(static_cast<std::size_t>(s.total()));
  std::ranges::generate(pid, [i = 0]() mutable { return i++ % 9; });
  f.core = random({s.total(), 3}, 20).to(OnDevice::device());
  f.pid = Tensor::from(pid, {s.total()}).to(OnDevice::device());
  if (with_context) {
    f.context = random({s.total(), 9}, 21).to(OnDevice::device());
  }
  return f;
}

/// Preset tiny with its objectives, and AdamW.
struct TinyRun : Module {
  Backbone backbone;
  PretrainHead head;
  std::unique_ptr<FlatParameters> flat;
  Tensor m, v;
  std::int64_t steps = 0;
  std::vector<float> losses;

  explicit TinyRun(Rng rng)
      : backbone({.width = 64, .blocks = 2, .heads = 4, .registers = 2}, rng),
        head(64, 4, {.codes = 512, .max_particles = 32}, rng) {
    child("backbone", backbone);
    child("head", head);
    to(OnDevice::device());
    flat = std::make_unique<FlatParameters>(named_parameters());
    m = Tensor::zeros(flat->values.shape(), DType::f32, OnDevice::device());
    v = Tensor::zeros(flat->values.shape(), DType::f32, OnDevice::device());
  }

  void step(Precision precision) {
    static const Segments few({0, 4, 5, 8});
    static const std::vector<std::int32_t> codes{511, 3, 200, 77, 3, 9, 0, 300};
    flat->zero_gradients();
    const auto hidden = choose_masks(few, 0.4F, Rng(31).fork(static_cast<std::uint64_t>(steps)));
    Tensor loss;
    {
      const PrecisionScope scope(precision);
      loss = head(backbone, features(false, few), features(true, few),
                  Tensor::from(codes, {few.total()}).to(OnDevice::device()), hidden)
                 .loss;
    }
    losses.push_back(loss.item());
    backward(loss);  // outside of the scope: the types of the tensors decide
    const std::vector<AdamWSpan> all{{0, flat->values.size()}};
    const float lr = 5e-4F * static_cast<float>(std::min<std::int64_t>(++steps, 4));
    adamw_step(flat->values, flat->gradients, m, v, all, {.lr = lr, .step = steps});
  }
};

TEST_P(Bf16Rows, TwentyStepsOfTinyPretrainingFollowF32) {
  TinyRun exact(Rng(30)), coarse(Rng(30));
  for (int i = 0; i < 20; ++i) {
    exact.step(Precision::f32);
    coarse.step(Precision::bf16);
  }
  EXPECT_LT(exact.losses.back(), 0.7F * exact.losses.front());
  EXPECT_NE(exact.losses, coarse.losses);
  for (std::size_t i = 0; i < exact.losses.size(); ++i) {
    EXPECT_NEAR(coarse.losses[i], exact.losses[i], 2e-2 * exact.losses[i]) << "step " << i;
  }
}

// All that a checkpoint holds: weights, moments, the count of steps.
TEST_P(Bf16Rows, ARunThatIsTakenUpAgainHasTheSameBits) {
  TinyRun whole(Rng(30));
  for (int i = 0; i < 8; ++i) {
    whole.step(Precision::bf16);
  }
  TinyRun first(Rng(30)), second(Rng(99));
  for (int i = 0; i < 4; ++i) {
    first.step(Precision::bf16);
  }
  copy_into(second.flat->values, first.flat->values);
  copy_into(second.m, first.m);
  copy_into(second.v, first.v);
  second.steps = first.steps;
  const simt::ScheduleGuard guard({simt::Order::random, 5});
  for (int i = 4; i < 8; ++i) {
    second.step(Precision::bf16);
  }
  EXPECT_EQ(second.flat->values.to_vector<float>(), whole.flat->values.to_vector<float>());
  EXPECT_EQ(second.m.to_vector<float>(), whole.m.to_vector<float>());
}

/// Bytes that a step moves to and from DRAM, sectors at first touch, by kernel.
std::map<std::string, double> bytes_of_a_step(Precision precision) {
  TinyRun run(Rng(30));
  const simt::LaunchLog log;
  run.step(precision);
  std::map<std::string, double> bytes;
  for (const simt::Launched& one : log.launches()) {
    bytes[one.kernel] += 32.0 * static_cast<double>(one.stats.unique_sectors_read +
                                                    one.stats.unique_sectors_written);
  }
  return bytes;
}

// Parameters among what they read are f32, hence not quite half.
TEST_P(Bf16Rows, KernelsBoundByMemoryMoveHalfTheBytes) {
  if (device().type != DeviceType::simt) {
    GTEST_SKIP() << "simt alone counts bytes";
  }
  const auto exact = bytes_of_a_step(Precision::f32), coarse = bytes_of_a_step(Precision::bf16);
  for (const char* kernel : {"activation_backward", "rowwise"}) {
    EXPECT_LT(coarse.at(kernel), 0.6 * exact.at(kernel)) << kernel;
  }
  EXPECT_GT(coarse.at("gemm_rows_bf16"), 0.0);
}

TEST_P(Bf16Rows, AStepReadsNothingBackButTheLoss) {
  TinyRun run(Rng(30));
  run.step(Precision::bf16);
  const auto waits = [&](Precision precision) {
    const std::uint64_t before = device_waits();
    run.step(precision);
    return device_waits() - before;
  };
  EXPECT_EQ(waits(Precision::bf16), waits(Precision::f32)) << "a conversion over the host";
}

/// Loss and gradients of a model at its start.
template <class Model>
std::pair<float, std::vector<float>> gradient_of(Model& model, Precision precision,
                                                 const std::function<Tensor()>& loss_of) {
  FlatParameters flat(model.named_parameters());
  const PrecisionScope scope(precision);
  const Tensor loss = loss_of();
  backward(loss);
  return {loss.item(), flat.gradients.template to_vector<float>()};
}

double gap(const std::vector<float>& a, const std::vector<float>& b) {
  double off = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    off += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(off / size);
}

// Rows rounded after every layer, forward and backward: each good to 4e-3, a gradient passes
// through two dozen of them.
constexpr double kGradient = 5e-2;

TEST_P(Bf16Rows, TheEncoderOfTheTokenizerIsCloseToF32) {
  const Segments jets = Segments::from_lengths(std::vector<std::int32_t>{0, 1, 7, 0, 19, 2});
  const auto run = [&](Precision precision) {
    Rng rng(26);
    Tokenizer model({.width = 16, .blocks = 1, .heads = 2, .codes = 37}, rng);
    for (const NamedTensor& p : model.named_parameters()) {
      copy_into(p.tensor, uniform_init(p.tensor.shape(), 0.3F, rng));
    }
    model.to(OnDevice::device());
    const Tensor x = random({jets.total(), 3}, 27).to(OnDevice::device());
    return gradient_of(model, precision, [&] { return mean(model.encode_latent(x, jets)); });
  };
  const auto [exact, g] = run(Precision::f32);
  const auto [coarse, h] = run(Precision::bf16);
  EXPECT_NEAR(coarse, exact, 2e-2);
  EXPECT_LE(gap(h, g), kGradient);
  EXPECT_GE(gap(h, g), 1e-4);
}

TEST_P(Bf16Rows, ClassAttentionWithDropoutAndPairBiasIsCloseToF32) {
  const Segments jets = Segments::from_lengths(std::vector<std::int32_t>{3, 1, 7, 19, 2});
  std::int64_t pairs = 0;
  for (int j = 0; j < jets.count(); ++j) {
    pairs += std::int64_t{jets.length(j)} * jets.length(j);
  }
  const auto run = [&](Precision precision) {
    Rng rng(28);
    ClassAttentionHead model(
        {.width = 16, .heads = 2, .outputs = 3, .particle_blocks = 1, .dropout = 0.1F}, rng);
    model.to(OnDevice::device());
    const Tensor h = random({jets.total(), 16}, 27).to(OnDevice::device());
    const Tensor bias = random({2, pairs}, 29).to(OnDevice::device());
    const Tensor targets =
        Tensor::from(std::vector<std::int32_t>{0, 2, 1, 1, 2}, {5}).to(OnDevice::device());
    return gradient_of(model, precision,
                       [&] { return mean(cross_entropy(model(h, jets, bias, Rng(4)), targets)); });
  };
  const auto [exact, g] = run(Precision::f32);
  const auto [coarse, h] = run(Precision::bf16);
  EXPECT_NEAR(coarse, exact, 2e-2 * exact);
  EXPECT_LE(gap(h, g), kGradient);
  EXPECT_GE(gap(h, g), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Devices, Bf16Rows, kTestDevices, device_name);

}  // namespace
}  // namespace tessera
