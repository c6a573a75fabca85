#include "kernels/cross_entropy/cross_entropy.h"

#include <algorithm>

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/matmul/matmul.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

constexpr auto kSoftmax = TESSERA_KERNEL(softmax_cross_entropy);
constexpr auto kScaleRows = TESSERA_KERNEL(scale_rows);
constexpr auto kColumnSums = TESSERA_KERNEL(column_sums);
constexpr std::int64_t kChunkRows = 256;

void check_targets(const char* op, const Tensor& targets, std::int64_t rows, std::int64_t classes) {
  TESSERA_CHECK(targets.shape() == Shape{rows}, "{}: targets must be ({}), got {}", op, rows,
                targets.shape());
  for (const std::int32_t y : targets.span<const std::int32_t>()) {
    TESSERA_CHECK(y >= 0 && y < classes, "{}: target {} is outside [0, {})", op, y, classes);
  }
}

Tensor sum_columns(const Tensor& x) {
  Tensor out = Tensor::empty({x.shape(1)}, DType::f32, x.device());
  kColumnSums(x.device(), x.view<const float, 2>(), out.view<float, 1>(), Stream{});
  return out;
}

}  // namespace

// d loss_i / d logits_ic = p_ic - [c = y_i]
Tensor cross_entropy(const Tensor& logits0, const Tensor& targets) {
  TESSERA_CHECK(logits0.rank() == 2, "cross_entropy: logits must be (N, C), got {}",
                logits0.shape());
  check_targets("cross_entropy", targets, logits0.shape(0), logits0.shape(1));
  const Tensor logits = logits0.detach().contiguous();
  Tensor loss = Tensor::empty({logits.shape(0)}, DType::f32, logits.device());
  const Tensor slope = Tensor::empty(logits.shape(), DType::f32, logits.device());
  kSoftmax(logits.device(), logits.view<const float, 2>(), targets.view<const std::int32_t, 1>(),
           1.0F, loss.view<float, 1>(), slope.view<float, 2>(), Stream{});
  return differentiable(loss, {logits0}, [saved = Saved(slope)](std::span<const Tensor> g) {
    const Tensor up = g[0].contiguous();
    Tensor dx = Tensor::empty(saved.get().shape(), DType::f32, up.device());
    kScaleRows(up.device(), saved.get().view<const float, 2>(), up.view<const float, 1>(),
               dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  });
}

// dlogits = (softmax - onehot) / T;  dh = dlogits W;  dW = dlogits^T h;  db = column sums. Chunks
// are added in order.
Tensor linear_cross_entropy(const Tensor& h0, const Tensor& weight0, const Tensor& bias0,
                            const Tensor& targets) {
  const std::int64_t t = h0.shape(0), v = weight0.shape(0), d = weight0.shape(1);
  TESSERA_CHECK(h0.rank() == 2 && h0.shape(1) == d,
                "linear_cross_entropy: h must be (T, {}), got {}", d, h0.shape());
  check_targets("linear_cross_entropy", targets, t, v);
  const bool tape =
      grad_enabled() && (h0.requires_grad() || weight0.requires_grad() || bias0.requires_grad());
  const Tensor h = h0.detach().contiguous(), weight = weight0.detach().contiguous(),
               bias = bias0.detach();
  const Device device = h.device();
  const Tensor losses = Tensor::empty({t}, DType::f32, device);
  Tensor dh, dw, db;
  if (tape) {
    dh = Tensor::empty({t, d}, DType::f32, device);
    dw = Tensor::zeros({v, d}, DType::f32, device);
    db = Tensor::zeros({v}, DType::f32, device);
  }
  {
    const NoGrad off;
    const float factor = 1.0F / static_cast<float>(std::max<std::int64_t>(1, t));
    for (std::int64_t row = 0; row < t; row += kChunkRows) {
      const std::int64_t end = std::min(t, row + kChunkRows);
      const Tensor part = h.slice(0, row, end);
      const Tensor logits = linear(part, weight, bias);  // (256, V)
      const Tensor slope = tape ? logits : logits.slice(0, 0, 0);
      kSoftmax(device, logits.view<const float, 2>(),
               targets.slice(0, row, end).view<const std::int32_t, 1>(), factor,
               losses.slice(0, row, end).view<float, 1>(), slope.view<float, 2>(), Stream{});
      if (tape) {
        copy_into(dh.slice(0, row, end), matmul(logits, weight));
        accumulate(dw, matmul(logits.transpose(0, 1), part));
        accumulate(db, sum_columns(logits));
      }
    }
  }
  const Tensor loss = mean(losses).detach();
  if (!tape) {
    return loss;
  }
  const auto backward = [sh = Saved(dh), sw = Saved(dw),
                         sb = Saved(db)](std::span<const Tensor> g) {
    const float up = g[0].item();
    return std::vector<Tensor>{scale(sh.get(), up), scale(sw.get(), up), scale(sb.get(), up)};
  };
  return differentiable(loss, {h0, weight0, bias0}, backward);
}

}  // namespace tessera
