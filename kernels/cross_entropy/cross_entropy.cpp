#include "kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <bit>

#include "core/autograd.h"
#include "core/indices.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/product.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

constexpr auto kSoftmax = TESSERA_KERNEL(softmax_cross_entropy);
constexpr auto kScaleRows = TESSERA_KERNEL(scale_rows);
constexpr auto kColumnSums = TESSERA_KERNEL(column_sums);
// The cpu has none of these: there the chunks of logits are small enough for the cache.
constexpr Kernel<cross_entropy_loss_signature> kLoss{"cross_entropy_loss", nullptr,
                                                     TESSERA_CUDA_SLOT(cross_entropy_loss),
                                                     TESSERA_SIMT_SLOT(cross_entropy_loss)};
constexpr Kernel<cross_entropy_loss_bf16_signature> kLossBf16{
    "cross_entropy_loss_bf16", nullptr, TESSERA_CUDA_SLOT(cross_entropy_loss_bf16),
    TESSERA_SIMT_SLOT(cross_entropy_loss_bf16)};
constexpr Kernel<cross_entropy_gradients_signature> kGradients{
    "cross_entropy_gradients", nullptr, TESSERA_CUDA_SLOT(cross_entropy_gradients),
    TESSERA_SIMT_SLOT(cross_entropy_gradients)};
constexpr std::int64_t kChunkRows = 256;

// Rows whose logits exist at a time. On devices as many that they take about as much memory as h,
// so that they stay in the cache between the products (Liger-Kernel, Hsu et al. 2024).
std::int64_t chunk_rows(std::int64_t t, std::int64_t v, std::int64_t d, Device device) {
  if (device == kCpu) {
    return kChunkRows;
  }
  const std::int64_t widening =
      std::max<std::int64_t>(1, (v + d - 1) / std::max<std::int64_t>(1, d));
  const auto rows = static_cast<std::uint64_t>((t + widening - 1) / widening);
  return std::max(kChunkRows, static_cast<std::int64_t>(std::bit_ceil(rows)));
}

// Targets of a device or the host, checked; returned on `device`.
Tensor checked_targets(const char* op, const Tensor& targets, std::int64_t rows,
                       std::int64_t classes, Device device) {
  TESSERA_CHECK(targets.shape() == Shape{rows}, "{}: targets must be ({}), got {}", op, rows,
                targets.shape());
  check_indices(op, "target", targets, classes);
  return targets.to(device).contiguous();
}

// x (n, d) or (n) times one number of its device, which the host need not know.
Tensor scaled_by(const Tensor& x, const Tensor& factor) {
  if (x.device() == kCpu) {
    return scale(x, factor.item());
  }
  const Tensor rows = x.rank() == 1 ? x.reshape({x.size(), 1}) : x;
  const Tensor factors = Tensor::empty({rows.shape(0)}, DType::f32, x.device());
  fill(factors, factor);
  const Tensor y = Tensor::empty(rows.shape(), DType::f32, x.device());
  kScaleRows(x.device(), rows.view<const float, 2>(), factors.view<const float, 1>(),
             y.view<float, 2>(), Stream{});
  return y.reshape(x.shape());
}

// Contiguous weights of the rows, or none of them: the kernel reads that as ones.
Tensor weights_of(const char* op, const Tensor& row_weight, std::int64_t rows, Device device) {
  if (!row_weight.defined()) {
    return Tensor::empty({0}, DType::f32, device);
  }
  TESSERA_CHECK(row_weight.shape() == Shape{rows}, "{}: row_weight must be ({}), got {}", op, rows,
                row_weight.shape());
  return row_weight.detach().contiguous();
}

Operand plain(const Tensor& t) { return {t.view<const float, 2>().data, t.strides()[0], 1}; }
Operand transposed(const Tensor& t) { return {t.view<const float, 2>().data, 1, t.strides()[0]}; }

// Logits (rows, v) of a chunk. On the cpu rows are whole cache lines, and never a multiple of 2 KiB
// apart: the rows of a tile would share one set of the first cache.
Tensor chunk_logits(std::int64_t rows, std::int64_t v, Device device) {
  if (device != kCpu) {
    return Tensor::empty({rows, v}, DType::f32, device);
  }
  const std::int64_t lines = (v + 15) / 16, floats = 16 * (lines % 32 == 0 ? lines + 1 : lines);
  return Tensor::empty({rows, floats}, DType::f32, device).slice(1, 0, v);
}

// Scratch of products (m, k) (k, n); devices pack nothing, their libraries want some.
Tensor panels_of(std::int64_t m, std::int64_t k, std::int64_t n, Device device,
                 Precision precision) {
  const std::int64_t floats = device == kCpu ? gemm_workspace(k, n, precision)
                                             : product_scratch(m, k, n, device, precision);
  return Tensor::empty({floats}, DType::f32, device);
}

/// A right operand whose panels are packed at the first product and reused by the next.
struct Packed {
  Operand b;
  Precision precision;
  Tensor panels;
  bool packed = false;

  Packed(Operand operand, std::int64_t m, std::int64_t k, std::int64_t n, Device device,
         Precision p)
      : b(operand), precision(p), panels(panels_of(m, k, n, device, p)) {}

  void multiply(Operand a, const Tensor& c, std::int64_t k, const float* bias = nullptr) {
    gemm_at(precision)(c.device(), a, b, c.view<float, 2>(), k, {.bias = bias, .packed = packed},
                       panels.view<float, 1>(), Stream{});
    packed = true;
  }
};

// c += a b
void multiply_add(Operand a, Operand b, const Tensor& c, std::int64_t k, const Tensor& panels,
                  Precision precision) {
  gemm_at(precision)(c.device(), a, b, c.view<float, 2>(), k, {.accumulate = true},
                     panels.view<float, 1>(), Stream{});
}

Tensor sum_columns(const Tensor& x) {
  Tensor out = Tensor::empty({x.shape(1)}, DType::f32, x.device());
  kColumnSums(x.device(), x.view<const float, 2>(), out.view<float, 1>(), Stream{});
  return out;
}

/// The pass over the rows, in chunks where gradients are made. Those that nobody needs stay
/// undefined.
struct FusedPass {
  Tensor h, weight, bias, targets, row_weight;
  float factor;
  bool tape;
  Precision precision;
  Tensor losses{}, dh{}, dw{}, db{};  // (T), (T, d), (V, d), (V)

  void allocate(bool needs_h, bool needs_weight, bool needs_bias) {
    const Device device = h.device();
    losses = Tensor::empty({h.shape(0)}, DType::f32, device);
    if (tape && needs_h) {
      dh = Tensor::empty(h.shape(), DType::f32, device);
    }
    if (tape && needs_weight) {
      dw = Tensor::zeros(weight.shape(), DType::f32, device);
    }
    if (tape && needs_bias) {
      db = Tensor::zeros(bias.shape(), DType::f32, device);
    }
  }

  // What is not kept has no rows.
  [[nodiscard]] Tensor or_nothing(const Tensor& t, const Shape& nothing) const {
    return t.defined() ? t : Tensor::empty(nothing, DType::f32, h.device());
  }
  [[nodiscard]] bool rounded() const { return precision == Precision::bf16; }
  [[nodiscard]] std::int64_t unit_depth() const {
    return rounded() ? PackedRows::kBf16Depth : PackedRows::kF32Depth;
  }

  void run() {
    const NoGrad off;
    const bool gradients = dh.defined() || dw.defined() || db.defined();
    const bool device = h.device() != kCpu;
    if (device && !gradients && h.shape(1) <= LossScratch::widest(unit_depth())) {
      run_without_logits();
    } else if (device && gradients && rounded() && h.shape(1) <= GradientScratch::kWidest) {
      run_in_tiles();
    } else {
      run_in_chunks();
    }
  }

  void run_without_logits() const {
    const LossScratch shape(weight.shape(0), h.shape(1), unit_depth());
    const Tensor scratch = Tensor::empty({shape.size}, DType::f32, h.device());
    const auto& kernel = rounded() ? kLossBf16 : kLoss;
    kernel(h.device(), h.view<const float, 2>(), weight.view<const float, 2>(),
           or_nothing(bias, {0}).view<const float, 1>(), targets.view<const std::int32_t, 1>(),
           row_weight.view<const float, 1>(), losses.view<float, 1>(), scratch.view<float, 1>(),
           Stream{});
  }

  void run_in_tiles() const {
    const std::int64_t d = h.shape(1);
    const GradientScratch shape(h.shape(0), weight.shape(0), d);
    const Tensor scratch = Tensor::empty({shape.size}, DType::f32, h.device());
    const Tensor to_h = or_nothing(dh, {0, d}), to_weight = or_nothing(dw, {0, d}),
                 to_bias = or_nothing(db, {0});
    kGradients(h.device(), h.view<const float, 2>(), weight.view<const float, 2>(),
               or_nothing(bias, {0}).view<const float, 1>(), targets.view<const std::int32_t, 1>(),
               row_weight.view<const float, 1>(), factor, losses.view<float, 1>(),
               to_h.view<float, 2>(), to_weight.view<float, 2>(), to_bias.view<float, 1>(),
               scratch.view<float, 1>(), Stream{});
  }

  void run_in_chunks() {
    const Device device = h.device();
    const std::int64_t t = h.shape(0), v = weight.shape(0), d = weight.shape(1);
    const std::int64_t chunk = chunk_rows(t, v, d, device);
    Packed forward(transposed(weight), chunk, d, v, device, precision);
    Packed back(plain(weight), chunk, v, d, device, precision);
    const Tensor logits = chunk_logits(std::min(t, chunk), v, device);
    const Tensor panels = panels_of(v, chunk, d, device, precision);
    for (std::int64_t row = 0; row < t; row += chunk) {
      const std::int64_t rows = std::min(t - row, chunk);
      const Tensor z = logits.slice(0, 0, rows);
      const Tensor part = h.slice(0, row, row + rows);
      forward.multiply(plain(part), z, d,
                       bias.defined() ? bias.view<const float, 1>().data : nullptr);
      softmax(z, row, rows);
      if (dh.defined()) {
        back.multiply(plain(z), dh.slice(0, row, row + rows), v);
      }
      if (dw.defined()) {
        multiply_add(transposed(z), plain(part), dw, rows, panels, precision);
      }
      if (db.defined()) {
        accumulate(db, sum_columns(z));
      }
    }
  }

  // Losses of the rows and, with a tape, their slopes in place of the logits.
  void softmax(const Tensor& z, std::int64_t row, std::int64_t rows) const {
    const Tensor weights =
        row_weight.size() > 0 ? row_weight.slice(0, row, row + rows) : row_weight;
    kSoftmax(z.device(), z.view<const float, 2>(),
             targets.slice(0, row, row + rows).view<const std::int32_t, 1>(),
             weights.view<const float, 1>(), factor,
             losses.slice(0, row, row + rows).view<float, 1>(),
             (tape ? z : z.slice(0, 0, 0)).view<float, 2>(), Stream{});
  }
};

}  // namespace

// d loss_i / d logits_ic = w_i (p_ic - [c = y_i])
Tensor cross_entropy(const Tensor& logits0, const Tensor& targets0, const Tensor& row_weight) {
  TESSERA_CHECK(logits0.rank() == 2, "cross_entropy: logits must be (T, C), got {}",
                logits0.shape());
  check_same_device("cross_entropy", {&logits0, &row_weight});
  const Tensor targets = checked_targets("cross_entropy", targets0, logits0.shape(0),
                                         logits0.shape(1), logits0.device());
  const Tensor logits = logits0.detach().contiguous();
  const Tensor weights = weights_of("cross_entropy", row_weight, logits.shape(0), logits.device());
  Tensor loss = Tensor::empty({logits.shape(0)}, DType::f32, logits.device());
  const Tensor slope = Tensor::empty(logits.shape(), DType::f32, logits.device());
  kSoftmax(logits.device(), logits.view<const float, 2>(), targets.view<const std::int32_t, 1>(),
           weights.view<const float, 1>(), 1.0F, loss.view<float, 1>(), slope.view<float, 2>(),
           Stream{});
  return differentiable(loss, {logits0}, [saved = Saved(slope)](std::span<const Tensor> g) {
    const Tensor up = g[0].contiguous();
    Tensor dx = Tensor::empty(saved.get().shape(), DType::f32, up.device());
    kScaleRows(up.device(), saved.get().view<const float, 2>(), up.view<const float, 1>(),
               dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  });
}

// dlogits = w (softmax - onehot) / normaliser;  dh = dlogits W;  dW = dlogits^T h;  db = column
// sums. Chunks are added in order.
Tensor linear_cross_entropy(const Tensor& h0, const Tensor& weight0, const Tensor& bias0,
                            const Tensor& targets0, const Tensor& row_weight, double normaliser) {
  TESSERA_CHECK(h0.rank() == 2 && weight0.rank() == 2 && h0.shape(1) == weight0.shape(1),
                "linear_cross_entropy: h must be (T, d) and weight (V, d), got {} and {}",
                h0.shape(), weight0.shape());
  const std::int64_t t = h0.shape(0), v = weight0.shape(0);
  TESSERA_CHECK(!bias0.defined() || bias0.shape() == Shape{v},
                "linear_cross_entropy: bias must be ({}), got {}", v, bias0.shape());
  check_same_device("linear_cross_entropy", {&h0, &weight0, &bias0, &row_weight});
  const Tensor targets = checked_targets("linear_cross_entropy", targets0, t, v, h0.device());
  const double divisor =
      normaliser > 0 ? normaliser : static_cast<double>(std::max<std::int64_t>(1, t));
  FusedPass pass{.h = h0.detach().contiguous(),
                 .weight = weight0.detach().contiguous(),
                 .bias = bias0.defined() ? bias0.detach().contiguous() : Tensor(),
                 .targets = targets,
                 .row_weight = weights_of("linear_cross_entropy", row_weight, t, h0.device()),
                 .factor = static_cast<float>(1 / divisor),
                 .tape = grad_enabled() &&
                         (h0.requires_grad() || weight0.requires_grad() || bias0.requires_grad()),
                 .precision = precision()};
  check_precision(pass.precision, h0.device());
  pass.allocate(h0.requires_grad(), weight0.requires_grad(), bias0.requires_grad());
  pass.run();
  Tensor loss = scale(sum(pass.losses), pass.factor).detach();
  if (!pass.tape) {
    return loss;
  }
  const auto backward = [sh = Saved(pass.dh), sw = Saved(pass.dw),
                         sb = Saved(pass.db)](std::span<const Tensor> g) {
    const auto scaled = [&](const Saved& s) {
      const Tensor& gradient = s.get();
      return gradient.defined() ? scaled_by(gradient, g[0]) : Tensor();
    };
    return std::vector<Tensor>{scaled(sh), scaled(sw), scaled(sb)};
  };
  return differentiable(loss, {h0, weight0, bias0}, backward);
}

}  // namespace tessera
