#include "kernels/elementwise/elementwise.h"

#include "core/autograd.h"
#include "kernels/matmul/matmul.h"

namespace tessera {
namespace {

constexpr auto kPointwise = TESSERA_KERNEL(pointwise);
constexpr auto kRowwise = TESSERA_KERNEL(rowwise);
constexpr auto kColumnSums = TESSERA_KERNEL(column_sums);
constexpr auto kActivationForward = TESSERA_KERNEL(activation_forward);
constexpr auto kActivationBackward = TESSERA_KERNEL(activation_backward);

View<const float, 1> flat(const Tensor& t) { return t.reshape({t.size()}).view<const float, 1>(); }

Tensor combine(Pointwise kind, float alpha, const Tensor& a0, float beta, const Tensor& b0,
               const char* op) {
  TESSERA_CHECK(a0.shape() == b0.shape(), "{}: shapes must be equal, got {} and {}", op, a0.shape(),
                b0.shape());
  const Tensor a = a0.detach().contiguous(), b = b0.detach().contiguous();
  Tensor out = Tensor::empty(a.shape(), DType::f32, a.device());
  kPointwise(a.device(), kind, alpha, flat(a), beta, flat(b),
             out.reshape({out.size()}).view<float, 1>(), Stream{});
  return out;
}

Tensor row_op(Pointwise kind, const Tensor& x, const Tensor& row) {
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  kRowwise(x.device(), kind, x.view<const float, 2>(), row.view<const float, 1>(),
           y.view<float, 2>(), Stream{});
  return y;
}

Tensor sum_columns(const Tensor& x) {
  Tensor out = Tensor::empty({x.shape(1)}, DType::f32, x.device());
  kColumnSums(x.device(), x.view<const float, 2>(), out.view<float, 1>(), Stream{});
  return out;
}

void check_row(const char* op, const Tensor& x, const Tensor& row) {
  TESSERA_CHECK(x.rank() == 2 && row.shape() == Shape{x.shape(1)},
                "{}: x must be (T, d) and row (d), got {} and {}", op, x.shape(), row.shape());
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  return differentiable(combine(Pointwise::sum, 1, a, 1, b, "add"), {a, b},
                        [](std::span<const Tensor> g) {
                          return std::vector<Tensor>{g[0], g[0]};
                        });
}

// d(ab) = b da + a db
Tensor mul(const Tensor& a, const Tensor& b) {
  const auto backward = [sa = Saved(a), sb = Saved(b)](std::span<const Tensor> g) {
    return std::vector<Tensor>{mul(g[0], sb.get()), mul(g[0], sa.get())};
  };
  return differentiable(combine(Pointwise::product, 1, a, 1, b, "mul"), {a, b}, backward);
}

Tensor scale(const Tensor& x, float factor) {
  return differentiable(
      combine(Pointwise::sum, factor, x, 0, x, "scale"), {x},
      [factor](std::span<const Tensor> g) { return std::vector<Tensor>{scale(g[0], factor)}; });
}

// y = x * r:  dx = dy * r;  dr = sum over rows of dy * x.
Tensor mul_rows(const Tensor& x0, const Tensor& row0) {
  check_row("mul_rows", x0, row0);
  const Tensor x = x0.detach().contiguous(), row = row0.detach().contiguous();
  const auto backward = [sx = Saved(x), sr = Saved(row)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    return std::vector<Tensor>{row_op(Pointwise::product, dy, sr.get()),
                               sum_columns(mul(dy, sx.get()))};
  };
  return differentiable(row_op(Pointwise::product, x, row), {x0, row0}, backward);
}

Tensor add_rows(const Tensor& x0, const Tensor& row0) {
  check_row("add_rows", x0, row0);
  return differentiable(
      row_op(Pointwise::sum, x0.detach().contiguous(), row0.detach().contiguous()), {x0, row0},
      [](std::span<const Tensor> g) {
        return std::vector<Tensor>{g[0], sum_columns(g[0].contiguous())};
      });
}

namespace {

// The vector code of activations lives with the GEMM epilogue that uses it most.
Tensor activation(const Tensor& x0, Activation kind) {
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  kActivationForward(x.device(), flat(x), y.reshape({y.size()}).view<float, 1>(), kind, Stream{});
  const auto backward = [saved = Saved(x), kind](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty(dy.shape(), DType::f32, dy.device());
    kActivationBackward(dy.device(), flat(dy), flat(saved.get()),
                        dx.reshape({dx.size()}).view<float, 1>(), kind, Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

}  // namespace

Tensor relu(const Tensor& x) { return activation(x, Activation::relu); }
Tensor gelu(const Tensor& x) { return activation(x, Activation::gelu); }
Tensor silu(const Tensor& x) { return activation(x, Activation::silu); }

}  // namespace tessera
