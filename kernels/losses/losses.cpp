#include "kernels/losses/losses.h"

#include "core/autograd.h"
#include "core/indices.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

constexpr auto kResidual = TESSERA_KERNEL(residual_loss);
constexpr auto kFocal = TESSERA_KERNEL(focal);
constexpr auto kScaleRows = TESSERA_KERNEL(scale_rows);

Tensor residual(const Tensor& prediction0, const Tensor& target, float delta, const char* op) {
  TESSERA_CHECK(prediction0.shape() == target.shape(), "{}: prediction is {}, target is {}", op,
                prediction0.shape(), target.shape());
  const Tensor p = prediction0.detach().contiguous(),
               t = target.detach().to(p.device()).contiguous();
  const Shape flat{p.size()};
  Tensor loss = Tensor::empty(p.shape(), DType::f32, p.device());
  const Tensor slope = Tensor::empty(p.shape(), DType::f32, p.device());
  kResidual(p.device(), p.reshape(flat).view<const float, 1>(),
            t.reshape(flat).view<const float, 1>(), delta, loss.reshape(flat).view<float, 1>(),
            slope.reshape(flat).view<float, 1>(), Stream{});
  return differentiable(loss, {prediction0}, [saved = Saved(slope)](std::span<const Tensor> g) {
    return std::vector<Tensor>{mul(g[0], saved.get())};
  });
}

}  // namespace

Tensor squared_error(const Tensor& prediction, const Tensor& target) {
  return residual(prediction, target, 0, "squared_error");
}

Tensor huber_loss(const Tensor& prediction, const Tensor& target, float delta) {
  TESSERA_CHECK(delta > 0, "huber_loss: delta must be positive, got {}", delta);
  return residual(prediction, target, delta, "huber_loss");
}

// With l = ln p_y, u = 1 - p_y:  dL/dl = w (gamma u^(gamma-1) p_y l - u^gamma),  dl/dz_c = [c = y]
// - p_c.
Tensor focal_loss(const Tensor& logits0, const Tensor& targets, const Tensor& class_weight,
                  float gamma) {
  const std::int64_t n = logits0.shape(0), c = logits0.shape(1);
  TESSERA_CHECK(targets.shape() == Shape{n} && class_weight.shape() == Shape{c},
                "focal_loss: targets must be ({}) and class_weight ({}), got {} and {}", n, c,
                targets.shape(), class_weight.shape());
  check_indices("focal_loss", "target", targets, c);
  const Tensor logits = logits0.detach().contiguous();
  Tensor loss = Tensor::empty({n}, DType::f32, logits.device());
  const Tensor slope = Tensor::empty({n, c}, DType::f32, logits.device());
  kFocal(logits.device(), logits.view<const float, 2>(),
         targets.to(logits.device()).view<const std::int32_t, 1>(),
         class_weight.to(logits.device()).view<const float, 1>(), gamma, loss.view<float, 1>(),
         slope.view<float, 2>(), Stream{});
  return differentiable(loss, {logits0}, [saved = Saved(slope)](std::span<const Tensor> g) {
    const Tensor up = g[0].contiguous();
    Tensor dx = Tensor::empty(saved.get().shape(), DType::f32, up.device());
    kScaleRows(up.device(), saved.get().view<const float, 2>(), up.view<const float, 1>(),
               dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  });
}

}  // namespace tessera
