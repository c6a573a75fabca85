#include "kernels/elementwise/elementwise.h"

#include "core/autograd.h"
#include "kernels/matmul/matmul.h"

namespace tessera {
namespace {

// The tables of an element type.
template <class T>
constexpr auto kPointwise = TESSERA_KERNEL(pointwise);
template <class T>
constexpr auto kRowwise = TESSERA_KERNEL(rowwise);
template <class T>
constexpr auto kColumnSums = TESSERA_KERNEL(column_sums);
template <class T>
constexpr auto kActivationForward = TESSERA_KERNEL(activation_forward);
template <class T>
constexpr auto kActivationBackward = TESSERA_KERNEL(activation_backward);
template <>
constexpr auto kPointwise<bf16> = TESSERA_DEVICE_KERNEL(pointwise_bf16);
template <>
constexpr auto kRowwise<bf16> = TESSERA_DEVICE_KERNEL(rowwise_bf16);
template <>
constexpr auto kColumnSums<bf16> = TESSERA_DEVICE_KERNEL(column_sums_bf16);
template <>
constexpr auto kActivationForward<bf16> = TESSERA_DEVICE_KERNEL(activation_forward_bf16);
template <>
constexpr auto kActivationBackward<bf16> = TESSERA_DEVICE_KERNEL(activation_backward_bf16);

template <class T>
PlacedView<T, 1> flat(const Tensor& t) {
  return t.reshape({t.size()}).view<T, 1>();
}

template <class T>
Tensor combine_of(Pointwise kind, float alpha, const Tensor& a, float beta, const Tensor& b) {
  Tensor out = Tensor::empty(a.shape(), dtype_of<T>, a.device());
  kPointwise<T>(a.device(), kind, alpha, flat<const T>(a), beta, flat<const T>(b), flat<T>(out),
                Stream{});
  return out;
}

Tensor combine(Pointwise kind, float alpha, const Tensor& a0, float beta, const Tensor& b0,
               const char* op) {
  TESSERA_CHECK(a0.shape() == b0.shape() && a0.dtype() == b0.dtype(),
                "{}: shapes and types must be equal, got {} {} and {} {}", op, name(a0.dtype()),
                a0.shape(), name(b0.dtype()), b0.shape());
  check_same_device(op, {&a0, &b0});
  const Tensor a = a0.detach().contiguous(), b = b0.detach().contiguous();
  if (is_host_bf16(a)) {
    return combine_of<float>(kind, alpha, a.to(DType::f32), beta, b.to(DType::f32)).to(DType::bf16);
  }
  return a.dtype() == DType::bf16 ? combine_of<bf16>(kind, alpha, a, beta, b)
                                  : combine_of<float>(kind, alpha, a, beta, b);
}

template <class T>
Tensor row_op_of(Pointwise kind, const Tensor& x, const Tensor& row) {
  Tensor y = Tensor::empty(x.shape(), dtype_of<T>, x.device());
  kRowwise<T>(x.device(), kind, x.view<const T, 2>(), row.view<const float, 1>(), y.view<T, 2>(),
              Stream{});
  return y;
}

Tensor row_op(Pointwise kind, const Tensor& x, const Tensor& row) {
  if (is_host_bf16(x)) {
    return row_op_of<float>(kind, x.to(DType::f32), row).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? row_op_of<bf16>(kind, x, row) : row_op_of<float>(kind, x, row);
}

template <class T>
Tensor sum_columns_of(const Tensor& x) {
  Tensor out = Tensor::empty({x.shape(1)}, DType::f32, x.device());
  kColumnSums<T>(x.device(), x.view<const T, 2>(), out.view<float, 1>(), Stream{});
  return out;
}

// f32, whatever x is.
Tensor sum_columns(const Tensor& x) {
  return x.dtype() == DType::bf16 && !is_host_bf16(x) ? sum_columns_of<bf16>(x)
                                                      : sum_columns_of<float>(x.to(DType::f32));
}

void check_row(const char* op, const Tensor& x, const Tensor& row) {
  TESSERA_CHECK(x.rank() == 2 && row.shape() == Shape{x.shape(1)},
                "{}: x must be (T, d) and row (d), got {} and {}", op, x.shape(), row.shape());
  check_same_device(op, {&x, &row});
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
template <class T>
Tensor activation_of(const Tensor& x0, Activation kind) {
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty(x.shape(), dtype_of<T>, x.device());
  kActivationForward<T>(x.device(), flat<const T>(x), flat<T>(y), kind, Stream{});
  const auto backward = [saved = Saved(x), kind](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty(dy.shape(), dtype_of<T>, dy.device());
    kActivationBackward<T>(dy.device(), flat<const T>(dy), flat<const T>(saved.get()), flat<T>(dx),
                           kind, Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

Tensor activation(const Tensor& x, Activation kind) {
  if (is_host_bf16(x)) {
    return activation_of<float>(x.to(DType::f32), kind).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? activation_of<bf16>(x, kind) : activation_of<float>(x, kind);
}

}  // namespace

Tensor relu(const Tensor& x) { return activation(x, Activation::relu); }
Tensor gelu(const Tensor& x) { return activation(x, Activation::gelu); }
Tensor silu(const Tensor& x) { return activation(x, Activation::silu); }

}  // namespace tessera
