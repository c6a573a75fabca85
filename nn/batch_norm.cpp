#include "nn/batch_norm.h"

#include "core/autograd.h"
#include "kernels/batchnorm/batchnorm.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

void move_towards(const Tensor& running, const Tensor& value) {
  const NoGrad off;
  copy_into(running,
            add(scale(running, 1.0F - BatchNorm::kMomentum), scale(value, BatchNorm::kMomentum)));
}

}  // namespace

BatchNorm::BatchNorm(std::int64_t width) {
  weight = parameter("weight", Tensor::full({width}, 1.0F));
  bias = parameter("bias", Tensor::zeros({width}));
  running_mean = buffer("running_mean", Tensor::zeros({width}));
  running_var = buffer("running_var", Tensor::full({width}, 1.0F));
}

Tensor BatchNorm::operator()(const Tensor& x) const {
  if (!training()) {
    return batch_norm_with(x, weight, bias, running_mean, running_var);
  }
  const BatchNormResult r = batch_norm(x, weight, bias);
  if (x.shape(0) > 1) {
    move_towards(running_mean, r.mean);
    move_towards(running_var, r.variance);
  }
  return r.y;
}

}  // namespace tessera
