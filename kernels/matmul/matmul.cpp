#include "kernels/matmul/matmul.h"

#include <algorithm>

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/product.h"

namespace tessera {
namespace {

constexpr auto kGemm = TESSERA_KERNEL(gemm);
constexpr auto kGemmBf16 = TESSERA_KERNEL(gemm_bf16);
constexpr auto kRowsBf16 = TESSERA_DEVICE_KERNEL(gemm_rows_bf16);
constexpr auto kSumsBf16 = TESSERA_DEVICE_KERNEL(gemm_sums_bf16);
constexpr auto kPointwise = TESSERA_KERNEL(pointwise);
// The tables of an element type.
template <class T>
constexpr auto kActivationBackward = TESSERA_KERNEL(activation_backward);
template <class T>
constexpr auto kColumnSums = TESSERA_KERNEL(column_sums);
template <>
constexpr auto kActivationBackward<bf16> = TESSERA_DEVICE_KERNEL(activation_backward_bf16);
template <>
constexpr auto kColumnSums<bf16> = TESSERA_DEVICE_KERNEL(column_sums_bf16);

template <class T = float>
OperandOf<T> plain(const Tensor& t) {
  return {t.view<const T, 2>().data, t.shape(1), 1};
}
template <class T = float>
OperandOf<T> transposed(const Tensor& t) {
  return {t.view<const T, 2>().data, 1, t.shape(1)};
}

/// Where and how products are made.
struct Multiplier {
  Device device;
  Precision precision;

  Tensor operator()(Operand a, Operand b, std::int64_t m, std::int64_t k, std::int64_t n,
                    const GemmEpilogue& epilogue = {}, const Tensor& panels = {}) const {
    Tensor c = Tensor::empty({m, n}, DType::f32, device);
    const std::int64_t floats = device == kCpu
                                    ? gemm_workspace(k, n, precision)
                                    : std::max(GemmPlan(m, n, k).workspace(m, n),
                                               product_scratch(m, k, n, device, precision));
    const Tensor scratch = panels.defined() ? panels : Tensor::empty({floats}, DType::f32, device);
    gemm_at(precision)(device, a, b, c.view<float, 2>(), k, epilogue, scratch.view<float, 1>(),
                       Stream{});
    return c;
  }
  // Rows of bf16 to rows of bf16.
  Tensor operator()(OperandOf<bf16> a, Operand b, std::int64_t m, std::int64_t k, std::int64_t n,
                    const EpilogueOf<bf16>& epilogue = {}, const Tensor& /*panels*/ = {}) const {
    Tensor c = Tensor::empty({m, n}, DType::bf16, device);
    kRowsBf16(device, a, b, c.view<bf16, 2>(), k, epilogue, Stream{});
    return c;
  }
  // Their sums over rows, f32.
  Tensor operator()(OperandOf<bf16> a, OperandOf<bf16> b, std::int64_t m, std::int64_t k,
                    std::int64_t n) const {
    Tensor c = Tensor::empty({m, n}, DType::f32, device);
    const Tensor scratch = Tensor::empty({GemmPlan(m, n, k).workspace(m, n)}, DType::f32, device);
    kSumsBf16(device, a, b, c.view<float, 2>(), k, GemmEpilogue{}, scratch.view<float, 1>(),
              Stream{});
    return c;
  }
};

// On the device of an operand, at the precision of the call.
Multiplier multiplier_for(const Tensor& operand) {
  check_precision(precision(), operand.device());
  return {operand.device(), precision()};
}

thread_local PackedWeights* packed_weights = nullptr;

// Panels of a listed weight, (O, I), that outlive the call; sets `packed` where they hold it.
Tensor kept_panels(const Tensor& weight, bool& packed) {
  PackedWeights::Entry* entry = PackedWeights::find(weight);
  if (entry == nullptr) {
    return {};
  }
  const bool fits = entry->panels.defined() && entry->precision == precision();
  packed = fits && entry->version == weight.version();
  if (!fits) {
    const NoArena heap;
    entry->precision = precision();
    entry->panels =
        Tensor::empty({gemm_workspace(weight.shape(1), weight.shape(0), entry->precision)},
                      DType::f32, weight.device());
  }
  entry->version = weight.version();
  return entry->panels;
}

Tensor flat(const Tensor& t) { return t.reshape({t.size()}); }

// y = act(z), z = x W^T + b:  dz = dy * act'(z);  dx = dz W;  dW = dz^T x;  db = sum over rows of
// dz.
template <class T>
struct LinearBackward {
  Saved x, weight, kept;  ///< kept: act'(z) on the cpu, where it is half of act(z); z on devices
  Activation activation;
  Multiplier multiply;
  bool needs_x, needs_weight, needs_bias;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    Tensor dz = g[0].contiguous();
    const Device device = dz.device();
    if (activation != Activation::none) {
      dz = times_slope(dz);
    }
    const std::int64_t t = dz.shape(0), o = dz.shape(1), i = weight.get().shape(1);
    Tensor dx, dw, db;
    if (needs_x) {
      dx = multiply(plain<T>(dz), plain(weight.get()), t, o, i);  // (T, I)
    }
    if (needs_weight) {
      dw = multiply(transposed<T>(dz), plain<T>(x.get()), o, t, i);  // (O, I)
    }
    if (needs_bias) {
      db = Tensor::empty({o}, DType::f32, device);
      kColumnSums<T>(device, dz.view<const T, 2>(), db.view<float, 1>(), Stream{});
    }
    return {dx, dw, db};
  }

 private:
  [[nodiscard]] Tensor times_slope(const Tensor& dy) const {
    Tensor dz = Tensor::empty(dy.shape(), dtype_of<T>, dy.device());
    const auto up = flat(dy).view<const T, 1>(), with = flat(kept.get()).view<const T, 1>();
    const auto out = flat(dz).view<T, 1>();
    if constexpr (std::is_same_v<T, float>) {
      if (dy.device() == kCpu) {
        kPointwise(kCpu, Pointwise::product, 1.0F, up, 1.0F, with, out, Stream{});
        return dz;
      }
    }
    kActivationBackward<T>(dy.device(), up, with, out, activation, Stream{});
    return dz;
  }
};

template <class T>
Tensor linear_of(const Tensor& x0, const Tensor& weight0, const Tensor& bias0,
                 Activation activation) {
  const Tensor x = x0.detach().contiguous(), weight = weight0.detach().contiguous();
  const std::int64_t t = x.shape(0), o = weight.shape(0), i = x.shape(1);
  const Multiplier multiply = multiplier_for(x);
  EpilogueOf<T> epilogue{.activation = activation};
  Tensor bias, kept;
  if (bias0.defined()) {
    bias = bias0.detach().contiguous();
    epilogue.bias = bias.view<const float, 1>().data;
  }
  const bool tape =
      grad_enabled() && (x0.requires_grad() || weight0.requires_grad() || bias0.requires_grad());
  if (tape && activation != Activation::none) {
    kept = Tensor::empty({t, o}, dtype_of<T>, x.device());
    (x.device() == kCpu ? epilogue.slope : epilogue.keep) = kept.view<T, 2>().data;
  }
  const Tensor panels =
      tape || t == 0 || x.device() != kCpu ? Tensor{} : kept_panels(weight0, epilogue.packed);
  Tensor y = multiply(plain<T>(x), transposed(weight), t, i, o, epilogue, panels);  // (T, O)
  if (!tape) {
    return y;
  }
  return differentiable(
      y, {x0, weight0, bias0},
      LinearBackward<T>{Saved(x), Saved(weight), Saved(kept), activation, multiply,
                        x0.requires_grad(), weight0.requires_grad(), bias0.requires_grad()});
}

}  // namespace

const Kernel<gemm_signature>& gemm_at(Precision precision) {
  return precision == Precision::bf16 ? kGemmBf16 : kGemm;
}

std::int64_t gemm_workspace(std::int64_t k, std::int64_t n, Precision precision) {
  constexpr std::int64_t kWidest = 32;  // columns of the widest panel
  const std::int64_t columns = (n + kWidest - 1) / kWidest * kWidest;
  if (k > kGemmWideK) {
    return 0;
  }
  return precision == Precision::f32 ? k * columns : (k + 31) / 32 * 16 * columns;  // whole steps
}

PackedWeights::PackedWeights(std::vector<Tensor> weights) : previous_(packed_weights) {
  for (Tensor& w : weights) {
    entries_.push_back({std::move(w), {}, 0});
  }
  packed_weights = this;
}

PackedWeights::~PackedWeights() { packed_weights = previous_; }

PackedWeights::Entry* PackedWeights::find(const Tensor& weight) {
  if (packed_weights == nullptr) {
    return nullptr;
  }
  for (Entry& entry : packed_weights->entries_) {
    if (entry.weight.impl() == weight.impl()) {
      return &entry;
    }
  }
  return nullptr;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation) {
  TESSERA_CHECK(x.rank() == 2 && weight.rank() == 2 && x.shape(1) == weight.shape(1),
                "linear: x must be (T, I) and weight (O, I), got {} and {}", x.shape(),
                weight.shape());
  TESSERA_CHECK(!bias.defined() || bias.shape() == Shape{weight.shape(0)},
                "linear: bias must be ({}), got {}", weight.shape(0), bias.shape());
  check_same_device("linear", {&x, &weight, &bias});
  if (is_host_bf16(x)) {
    return linear_of<float>(x.to(DType::f32), weight, bias, activation).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? linear_of<bf16>(x, weight, bias, activation)
                                  : linear_of<float>(x, weight, bias, activation);
}

Tensor matmul(const Tensor& a0, const Tensor& b0) {
  TESSERA_CHECK(a0.rank() == 2 && b0.rank() == 2 && a0.shape(1) == b0.shape(0),
                "matmul: a must be (M, K) and b (K, N), got {} and {}", a0.shape(), b0.shape());
  check_same_device("matmul", {&a0, &b0});
  const Tensor a = a0.detach().contiguous(), b = b0.detach().contiguous();
  const std::int64_t m = a.shape(0), k = a.shape(1), n = b.shape(1);
  const Multiplier multiply = multiplier_for(a);
  // da = dc b^T, db = a^T dc
  const auto backward = [sa = Saved(a), sb = Saved(b), m, k, n,
                         multiply](std::span<const Tensor> g) {
    const Tensor dc = g[0].contiguous();
    return std::vector<Tensor>{multiply(plain(dc), transposed(sb.get()), m, n, k),
                               multiply(transposed(sa.get()), plain(dc), k, m, n)};
  };
  return differentiable(multiply(plain(a), plain(b), m, k, n), {a0, b0}, backward);
}

}  // namespace tessera
