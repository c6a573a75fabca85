// What a device changes around a step: modules that move there, steps that fail there, and the jobs
// that train there, from files to checkpoints, against the same on the cpu.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/autograd.h"
#include "kernels/reduce/reduce.h"
#include "nn/linear.h"
#include "support/gradcheck.h"
#include "support/temp_dir.h"
#include "support/test_devices.h"
#include "support/tiny_jobs.h"
#include "train/pretrain_job.h"
#include "train/trainer.h"

namespace tessera {
namespace {

using testing_support::random;

// Handles of the model and of the caller see the move; what comes back has the old bits.
class ModuleTo : public OnDevice {};
class NonFinite : public OnDevice {};
class Jobs : public OnDevice {};

TEST_P(ModuleTo, MovesParametersGradientsAndBuffersUnderEveryHandle) {
  Rng rng(8);
  Linear layer({.in = 3, .out = 2}, rng);
  const Tensor handle = layer.weight;
  const auto before = handle.to_vector<float>();
  backward(mean(layer(random({4, 3}, 9))));
  const auto gradient = handle.grad().to_vector<float>();
  layer.to(device());
  EXPECT_EQ(handle.device(), device());
  EXPECT_EQ(handle.grad().device(), device());
  EXPECT_EQ(layer(random({4, 3}, 9).to(device())).device(), device());
  layer.to(kCpu);
  EXPECT_EQ(handle.to_vector<float>(), before);
  EXPECT_EQ(handle.grad().to_vector<float>(), gradient);
}

/// One good step, one that must fail, a good one: what the error says, and the weights after each.
struct Poisoned {
  std::string message;
  std::vector<std::vector<float>> weights;
};

Poisoned poisoned_steps(Device device, float loss_value, float gradient) {
  Rng rng(33);
  Linear layer({.in = 300, .out = 40}, rng);
  layer.to(device);
  Trainer trainer({{.parameters = layer.named_parameters()}}, {.lr = 1e-2F, .warmup = 1});
  Poisoned p;
  const auto step = [&](float loss, float g) {
    trainer.step([&] {
      const auto backward = [=](std::span<const Tensor>) {
        return std::vector<Tensor>{Tensor::full({40, 300}, 0.5F, DType::f32, device),
                                   Tensor::full({40}, g, DType::f32, device)};
      };
      return differentiable(Tensor::scalar(loss, device), {layer.weight, layer.bias}, backward);
    });
  };
  step(1, 0.5F);
  p.weights.push_back(layer.weight.to_vector<float>());
  try {
    step(loss_value, gradient);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
    p.message = e.message();
  }
  EXPECT_EQ(trainer.steps_done(), 1);
  p.weights.push_back(layer.weight.to_vector<float>());
  step(1, 0.25F);
  p.weights.push_back(layer.weight.to_vector<float>());
  return p;
}

TEST_P(NonFinite, StopsAStepOnADeviceAsOnTheCpu) {
  const std::pair<float, float> cases[] = {{1, NAN}, {1, INFINITY}, {NAN, 1}, {-INFINITY, NAN}};
  for (const auto& [loss, gradient] : cases) {
    const Poisoned cpu = poisoned_steps(kCpu, loss, gradient);
    const Poisoned there = poisoned_steps(device(), loss, gradient);
    EXPECT_FALSE(cpu.message.empty());
    EXPECT_EQ(there.message, cpu.message);
    EXPECT_EQ(there.weights[1], there.weights[0]);
    for (std::size_t i = 0; i < cpu.weights[2].size(); ++i) {
      ASSERT_NEAR(there.weights[2][i], cpu.weights[2][i], 1e-6) << i;
    }
  }
}

/// Losses of the first steps of a job.
std::vector<double> losses(const std::function<void(Device, const Observer&)>& job, Device device) {
  std::vector<double> values;
  job(device, [&](const Progress& p) { values.push_back(p.values.front().value); });
  return values;
}

// From files to steps: batches, tokenizer, masks, validation and checkpoints of a job on a device.
TEST_P(Jobs, TrainOnADeviceAsOnTheCpu) {
  const TempDir dir;
  const tiny::Data data(dir.path() / "data");
  const TrainerConfig three{.lr = 2e-3F, .steps = 3, .warmup = 1};
  Rng rng(5);
  Tokenizer tokenizer(tiny::kTokenizer, rng);
  tokenizer.freeze();
  const auto train = [&](Device device, const Observer& observe) {
    const TokenizerJob job{
        .model = tiny::kTokenizer, .trainer = three, .batch = 4, .device = device};
    train_tokenizer(job, data.unlabelled, observe);
  };
  const auto pretrain_too = [&](Device device, const Observer& observe) {
    tokenizer.to(device);
    const PretrainJob job{.backbone = tiny::kBackbone,
                          .objective = tiny::kObjective,
                          .trainer = three,
                          .batch = 4,
                          .device = device};
    pretrain(job, tokenizer, data.unlabelled, observe);
  };
  const auto finetune_too = [&](Device device, const Observer& observe) {
    FinetuneJob job =
        tiny::finetune_job(Strategy::full, tiny::files(dir.path() / name(device.type)));
    job.trainer = three;
    job.batch = 4;
    job.train_jets = 12;
    job.validation = Validation::fixed;
    job.evaluations = 1;
    job.device = device;
    finetune(job, data.splits, {tiny::backbone_weights(), {}}, observe);
  };
  // Of the second step of each job: reads of the device, the one of loss and report among them.
  // The tokenizer's codebook is kept on the host.
  const auto waits_of_a_step = [](const auto& job) {
    std::vector<std::uint64_t> waits;
    job(device(), [&](const Progress&) { waits.push_back(device_waits()); });
    return waits.at(1) - waits.at(0);
  };
  EXPECT_EQ(waits_of_a_step(pretrain_too), 1U);
  EXPECT_EQ(waits_of_a_step(finetune_too), 1U);
  std::filesystem::remove_all(dir.path() / name(device().type));
  for (const auto& job : std::vector<std::function<void(Device, const Observer&)>>{
           finetune_too, train, pretrain_too}) {
    const auto here = losses(job, kCpu), there = losses(job, device());
    ASSERT_EQ(here.size(), 3U);
    ASSERT_EQ(there.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(there[i], here[i], 1e-3 * std::abs(here[i])) << "step " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ModuleTo, kTestDevices, device_name);
INSTANTIATE_TEST_SUITE_P(Devices, NonFinite, kTestDevices, device_name);
INSTANTIATE_TEST_SUITE_P(Devices, Jobs, kTestDevices, device_name);

}  // namespace
}  // namespace tessera
