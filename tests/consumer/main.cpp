// The smallest programs on the installed library: the devices and a kernel, then a training step of
// a tau momentum regression on a dataset directory.
#include <cmath>
#include <cstdio>
#include <memory>

#include "core/check.h"
#include "core/device.h"
#include "core/tensor.h"
#include "kernels/layernorm/layernorm.h"
#include "train/batcher.h"
#include "train/task_model.h"
#include "train/tasks.h"
#include "train/trainer.h"

namespace {

using tessera::Tensor;

bool kernel_runs() {
  for (const tessera::Device device : tessera::devices()) {
    std::printf("%s\n", tessera::name(device.type));
  }
  const Tensor y = tessera::layer_norm(Tensor::full({2, 3}, 1.5F), Tensor::full({3}, 1),
                                       Tensor::full({3}, 0.25F));
  return y.to_vector<float>()[5] == 0.25F;
}

bool step_runs(const char* directory) {
  const auto data = std::make_shared<const tessera::Dataset>(directory);
  tessera::Batcher batches(data, {.max_constituents = 16}, {.jets = 32}, 1,
                           select_jets(tessera::Task::tau_pt, *data));
  const tessera::Batch batch = batches.next();
  tessera::Rng rng(1);
  const tessera::TaskModel model({.backbone = {.width = 16, .blocks = 1, .heads = 2}}, rng);
  tessera::Trainer trainer({{model.named_parameters()}}, {.steps = 1});
  const float loss = trainer.step([&] { return model.loss(model(batch), batch); });
  std::printf("%llu jets, %llu constituents, loss %g\n",
              static_cast<unsigned long long>(batch.size()),
              static_cast<unsigned long long>(batch.tokens()), static_cast<double>(loss));
  return batch.size() == 32 && std::isfinite(loss);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return argc == 2 && kernel_runs() && step_runs(argv[1]) ? 0 : 1;
  } catch (const tessera::Error& e) {
    std::fprintf(stderr, "%s\n", e.message().c_str());
    return tessera::exit_code(e.kind());
  }
}
