#include "kernels/reduce/reduce.h"

#include <algorithm>

#include "core/autograd.h"
#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {
constexpr auto kSum = TESSERA_KERNEL(reduce_sum);
constexpr Kernel<reduce_blocks_signature> kBlocks{
    "reduce_blocks", nullptr, TESSERA_CUDA_SLOT(reduce_blocks), TESSERA_SIMT_SLOT(reduce_blocks)};

// x (n), or sums of its blocks, of blocks of these ..., as few as one block of a device takes.
Tensor few_enough(Tensor x) {
  while (x.device() != kCpu && x.size() > kSumBlock) {
    const Tensor sums = Tensor::empty({chunk_count(x.size(), kSumBlock)}, DType::f32, x.device());
    kBlocks(x.device(), x.view<const float, 1>(), sums.view<float, 1>(), Stream{});
    x = sums;
  }
  return x;
}
}  // namespace

Tensor sum(const Tensor& x0) {
  const Tensor x = x0.detach().contiguous();
  Tensor total = Tensor::empty({1}, DType::f32, x.device());
  kSum(x.device(), few_enough(x.reshape({x.size()})).view<const float, 1>(), total.view<float, 1>(),
       Stream{});
  const auto backward = [shape = x.shape()](std::span<const Tensor> g) {
    Tensor dx = Tensor::empty(shape, DType::f32, g[0].device());
    fill(dx, g[0]);
    return std::vector<Tensor>{dx};
  };
  return differentiable(total.reshape(Shape()), {x0}, backward);
}

Tensor mean(const Tensor& x) {
  return scale(sum(x), 1.0F / static_cast<float>(std::max<std::int64_t>(1, x.size())));
}

Tensor weighted_sum(const Tensor& x, const Tensor& w) { return sum(mul(x, w)); }

}  // namespace tessera
