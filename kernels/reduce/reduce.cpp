#include "kernels/reduce/reduce.h"

#include <algorithm>

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {
constexpr auto kSum = TESSERA_KERNEL(reduce_sum);
}  // namespace

Tensor sum(const Tensor& x0) {
  const Tensor x = x0.detach().contiguous();
  Tensor total = Tensor::empty({1}, DType::f32, x.device());
  kSum(x.device(), x.reshape({x.size()}).view<const float, 1>(), total.view<float, 1>(), Stream{});
  const auto backward = [shape = x.shape()](std::span<const Tensor> g) {
    return std::vector<Tensor>{Tensor::full(shape, g[0].item(), DType::f32, g[0].device())};
  };
  return differentiable(total.reshape(Shape()), {x0}, backward);
}

Tensor mean(const Tensor& x) {
  return scale(sum(x), 1.0F / static_cast<float>(std::max<std::int64_t>(1, x.size())));
}

Tensor weighted_sum(const Tensor& x, const Tensor& w) { return sum(mul(x, w)); }

}  // namespace tessera
