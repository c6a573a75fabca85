#include "kernels/softmax/softmax.h"

#include "core/autograd.h"

namespace tessera {
namespace {

constexpr auto kForward = TESSERA_KERNEL(softmax_forward);
constexpr auto kBackward = TESSERA_KERNEL(softmax_backward);

// softmax:      dx_j = y_j (dy_j - sum_k dy_k y_k)
// log_softmax:  dx_j = dy_j - exp(y_j) sum_k dy_k
Tensor normalised(SoftmaxKind kind, const Tensor& x0, const char* op) {
  TESSERA_CHECK(x0.rank() == 2, "{}: x must be (N, C), got {}", op, x0.shape());
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  kForward(x.device(), kind, x.view<const float, 2>(), y.view<float, 2>(), Stream{});
  const auto backward = [kind, saved = Saved(y)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty(dy.shape(), DType::f32, dy.device());
    kBackward(dy.device(), kind, dy.view<const float, 2>(), saved.get().view<const float, 2>(),
              dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

}  // namespace

Tensor softmax(const Tensor& x) { return normalised(SoftmaxKind::probability, x, "softmax"); }

Tensor log_softmax(const Tensor& x) { return normalised(SoftmaxKind::logarithm, x, "log_softmax"); }

}  // namespace tessera
