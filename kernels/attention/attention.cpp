#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/autograd.h"

namespace tessera {
namespace {

constexpr auto kForward = TESSERA_KERNEL(attention_forward);
constexpr auto kBackward = TESSERA_KERNEL(attention_backward);
constexpr Kernel<attention_forward_bf16_signature> kForwardBf16{
    "attention_forward_bf16", nullptr, TESSERA_CUDA_SLOT(attention_forward_bf16),
    TESSERA_SIMT_SLOT(attention_forward_bf16)};
constexpr Kernel<attention_backward_bf16_signature> kBackwardBf16{
    "attention_backward_bf16", nullptr, TESSERA_CUDA_SLOT(attention_backward_bf16),
    TESSERA_SIMT_SLOT(attention_backward_bf16)};

// The kernels of an element type.
void forward(Device device, const float* q, const float* k, const float* v,
             const AttentionLayout& l, float* out) {
  kForward(device, q, k, v, l, out, Stream{});
}
void forward(Device device, const bf16* q, const bf16* k, const bf16* v, const AttentionLayout& l,
             bf16* out) {
  kForwardBf16(device, q, k, v, l, out, Stream{});
}
void backward(Device device, const float* q, const float* k, const float* v, const float* dout,
              const AttentionLayout& l, float* dq, float* dk, float* dv, float* dbias) {
  kBackward(device, q, k, v, dout, l, dq, dk, dv, dbias, Stream{});
}
void backward(Device device, const bf16* q, const bf16* k, const bf16* v, const bf16* dout,
              const AttentionLayout& l, bf16* dq, bf16* dk, bf16* dv, float* dbias) {
  kBackwardBf16(device, q, k, v, dout, l, dq, dk, dv, dbias, Stream{});
}

std::vector<std::uint8_t> causal_flags(const Segments& segments, const AttentionOptions& options) {
  if (options.causal_segments.empty() && options.causal) {
    return std::vector<std::uint8_t>(static_cast<std::size_t>(segments.count()), 1);
  }
  return options.causal_segments;
}

template <class T = float>
T* data(const Tensor& t) {
  return t.reshape({t.size()}).view<T, 1>().data;
}
float* data_or_null(const Tensor& t) { return t.defined() ? data(t) : nullptr; }

/// What a device reads of the host's arrays, in one buffer: one copy a call. Longest segments
/// first, so that none of them is left for the end.
class DevicePlan {
 public:
  DevicePlan(const Segments& q, const Segments& kv, const std::vector<std::int64_t>& pairs,
             const std::vector<std::uint8_t>& flags, Device device) {
    const auto longest = [&](std::int32_t s) { return std::max(q.length(s), kv.length(s)); };
    std::vector<std::int32_t> order(static_cast<std::size_t>(q.count()));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::ranges::greater(), longest);
    for (const std::int32_t s : order) {
      const auto at = static_cast<std::size_t>(s);
      const AttentionItem item{{q.cu_seqlens()[at], kv.cu_seqlens()[at], q.length(s), kv.length(s)},
                               {pairs[at], 0, flags.empty() ? 0 : flags[at]}};
      add(item, longest(s));
    }
    kept_.queries = q.total();
    kept_.pairs = pairs.back();
    upload(device);
  }
  [[nodiscard]] const AttentionKept& kept() const { return kept_; }

 private:
  void add(const AttentionItem& item, int length) {
    if (length > kAttentionBlock) {
      add_blocks(item, item.place.queries, q_blocks_);
      add_blocks(item, item.place.keys, k_blocks_);
    } else if (length > 0) {
      const bool fits_half = length <= kAttentionRows[1],
                 fits_quarter = length <= kAttentionRows[2];
      ++kept_.item_counts[int{fits_half} + int{fits_quarter}];
      items_.push_back(item);
    }
  }
  static void add_blocks(AttentionItem item, int rows, std::vector<AttentionItem>& to) {
    for (item.part.first = 0; item.part.first < rows; item.part.first += kAttentionBlock) {
      to.push_back(item);
    }
  }
  void upload(Device device) {
    kept_.q_block_count = static_cast<int>(q_blocks_.size());
    kept_.k_block_count = static_cast<int>(k_blocks_.size());
    const std::size_t n = items_.size() + q_blocks_.size() + k_blocks_.size();
    const Tensor host =
        Tensor::empty({static_cast<std::int64_t>(n * sizeof(AttentionItem))}, DType::u8);
    auto* to = reinterpret_cast<AttentionItem*>(host.span<std::uint8_t>().data());
    to = std::ranges::copy(items_, to).out;
    to = std::ranges::copy(q_blocks_, to).out;
    std::ranges::copy(k_blocks_, to);
    bytes_ = host.to(device);
    kept_.items = reinterpret_cast<const AttentionItem*>(bytes_.view<const std::uint8_t, 1>().data);
    kept_.q_blocks = kept_.items + items_.size();
    kept_.k_blocks = kept_.q_blocks + q_blocks_.size();
    items_ = q_blocks_ = k_blocks_ = {};
  }

  std::vector<AttentionItem> items_, q_blocks_, k_blocks_;  // until they are uploaded
  Tensor bytes_;
  AttentionKept kept_{};
};

/// A layout with the arrays that it points to.
struct Problem {
  Segments q_segments, kv_segments;
  std::vector<std::uint8_t> causal;
  std::int64_t heads, width, q_stride, kv_stride;
  float scale;
  std::vector<std::int64_t> pair_offsets{};
  float dropout = 0;
  RngKey key{};
  std::shared_ptr<const DevicePlan> plan{};
  Tensor lse{};  // (H, Tq), devices only

  [[nodiscard]] AttentionLayout layout(const Tensor& bias) const {
    AttentionLayout l{heads,
                      width,
                      q_stride,
                      kv_stride,
                      scale,
                      q_segments.cu_seqlens().data(),
                      kv_segments.cu_seqlens().data(),
                      causal.empty() ? nullptr : causal.data(),
                      q_segments.count(),
                      data_or_null(bias),
                      pair_offsets.data(),
                      dropout,
                      key};
    if (plan != nullptr) {
      point_to_device(l);
    }
    return l;
  }
  void prepare(Device device) {
    if (device != kCpu) {
      plan = std::make_shared<DevicePlan>(q_segments, kv_segments, pair_offsets, causal, device);
      lse = Tensor::empty({heads, q_segments.total()}, DType::f32, device);
    }
  }

 private:
  void point_to_device(AttentionLayout& l) const {
    const Device device = lse.device();
    l.q_offsets = q_segments.on(device).view<const std::int32_t, 1>().data;
    l.kv_offsets = kv_segments.on(device).view<const std::int32_t, 1>().data;
    l.pair_offsets = nullptr;  // the plan holds what kernels need of these two
    l.causal = nullptr;
    l.kept = plan->kept();
    l.kept.lse = data(lse);
  }
};

void check_problem(const Problem& p) {
  TESSERA_CHECK(p.q_segments.count() == p.kv_segments.count(),
                "attention: {} query segments, {} key segments", p.q_segments.count(),
                p.kv_segments.count());
  TESSERA_CHECK(p.causal.empty() || static_cast<int>(p.causal.size()) == p.q_segments.count(),
                "attention: {} causal flags for {} segments", p.causal.size(),
                p.q_segments.count());
}

// Where each segment's block of query-key pairs begins, and the number of all pairs.
std::vector<std::int64_t> pair_offsets(const Segments& q, const Segments& kv) {
  std::vector<std::int64_t> offsets{0};
  for (int s = 0; s < q.count(); ++s) {
    offsets.push_back(offsets.back() + std::int64_t{q.length(s)} * kv.length(s));
  }
  return offsets;
}

/// Takes over bias and dropout; returns the bias as the kernels read it, or an undefined tensor.
Tensor add_bias_and_dropout(Problem& p, const AttentionOptions& options) {
  TESSERA_CHECK(options.dropout >= 0 && options.dropout < 1,
                "attention: dropout must be in [0, 1), got {}", options.dropout);
  p.pair_offsets = pair_offsets(p.q_segments, p.kv_segments);
  p.dropout = options.dropout;
  p.key = options.key;
  if (!options.bias.defined()) {
    return {};
  }
  TESSERA_CHECK(options.bias.shape() == (Shape{p.heads, p.pair_offsets.back()}),
                "attention: bias must be ({}, {}), got {}", p.heads, p.pair_offsets.back(),
                options.bias.shape());
  return options.bias.detach().contiguous();
}

float default_scale(float scale, std::int64_t width) {
  return scale != 0 ? scale : 1.0F / std::sqrt(static_cast<float>(width));
}

/// A gradient buffer for the bias where one is asked for.
Tensor bias_gradient(const Saved& bias, bool wanted) {
  return wanted ? Tensor::empty(bias.get().shape(), DType::f32, bias.get().device()) : Tensor{};
}

/// A problem with its bias and, for devices, its result: what backward reads beside q, k and v.
struct Kept {
  Problem problem;
  Saved bias, out;
  bool has_bias, bias_grad;

  Kept(const Problem& p, const Tensor& bias_values, const Tensor& result, bool needs_bias)
      : problem(p),
        bias(bias_values.defined() ? Saved(bias_values) : Saved()),
        out(result.device() == kCpu ? Saved() : Saved(result)),
        has_bias(bias_values.defined()),
        bias_grad(has_bias && needs_bias) {}

  // dq, dk, dv are filled; returns dbias where it is wanted.
  template <class T>
  Tensor gradients(const T* q, const T* k, const T* v, const Tensor& dout, T* dq, T* dk,
                   T* dv) const {
    AttentionLayout l = problem.layout(has_bias ? bias.get() : Tensor());
    const Tensor dbias = bias_gradient(bias, bias_grad);
    Tensor delta;
    if (dout.device() != kCpu) {
      delta = Tensor::empty(problem.lse.shape(), DType::f32, dout.device());
      l.kept.out = data<T>(out.get());
      l.kept.delta = data(delta);
    }
    backward(dout.device(), q, k, v, static_cast<const T*>(data<T>(dout)), l, dq, dk, dv,
             data_or_null(dbias));
    return dbias;
  }
};

std::vector<Tensor> with_bias(std::vector<Tensor> tensors, const Tensor& bias) {
  if (bias.defined()) {
    tensors.push_back(bias);
  }
  return tensors;
}

// The gradients in the order of the inputs; the bias has its place also where it needs none.
std::vector<Tensor> gradients(std::vector<Tensor> tensors, bool has_bias, const Tensor& dbias) {
  if (has_bias) {
    tensors.push_back(dbias);
  }
  return tensors;
}

/// Both passes of attention, where q, k and v lie in one tensor.
template <class T>
Tensor self_attention(const Tensor& qkv0, const Segments& segments,
                      const AttentionOptions& options) {
  const Tensor qkv = qkv0.detach().contiguous();
  const std::int64_t h = qkv.shape(2), d = qkv.shape(3), row = h * d;
  Problem p{segments, segments, causal_flags(segments, options), h, d,
            3 * row,  3 * row,  default_scale(options.scale, d)};
  check_problem(p);
  const Tensor bias = add_bias_and_dropout(p, options);
  p.prepare(qkv.device());
  Tensor out = Tensor::empty({qkv.shape(0), h, d}, qkv.dtype(), qkv.device());
  const T* x = data<T>(qkv);
  forward(qkv.device(), x, x + row, x + 2 * row, p.layout(bias), data<T>(out));
  const Kept kept(p, bias, out, options.bias.requires_grad());
  const auto backward = [saved = Saved(qkv), kept, row](std::span<const Tensor> g) {
    const Tensor& inputs = saved.get();
    Tensor dx = Tensor::empty(inputs.shape(), inputs.dtype(), inputs.device());
    const T* in = data<T>(inputs);
    T* to = data<T>(dx);
    const Tensor dbias = kept.gradients<T>(in, in + row, in + 2 * row, g[0].contiguous(), to,
                                           to + row, to + 2 * row);
    return gradients({dx}, kept.has_bias, dbias);
  };
  return differentiable(out, with_bias({qkv0}, options.bias), backward);
}

/// Both passes of attention of one batch to another.
template <class T>
Tensor attention_between(const Tensor& q0, const Tensor& kv0, const Segments& q_segments,
                         const Segments& kv_segments, const AttentionOptions& options) {
  const Tensor q = q0.detach().contiguous(), kv = kv0.detach().contiguous();
  const std::int64_t h = q.shape(1), d = q.shape(2), row = h * d;
  Problem p{q_segments, kv_segments, causal_flags(q_segments, options), h, d,
            row,        2 * row,     default_scale(options.scale, d)};
  check_problem(p);
  const Tensor bias = add_bias_and_dropout(p, options);
  p.prepare(q.device());
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());
  const T* x = data<T>(kv);
  forward(q.device(), static_cast<const T*>(data<T>(q)), x, x + row, p.layout(bias), data<T>(out));
  const Kept kept(p, bias, out, options.bias.requires_grad());
  const auto backward = [sq = Saved(q), skv = Saved(kv), kept, row](std::span<const Tensor> g) {
    const Tensor &query = sq.get(), &keys = skv.get();
    Tensor dq = Tensor::empty(query.shape(), query.dtype(), query.device());
    Tensor dkv = Tensor::empty(keys.shape(), keys.dtype(), keys.device());
    const T* in = data<T>(keys);
    T* to = data<T>(dkv);
    const Tensor dbias = kept.gradients<T>(data<T>(query), in, in + row, g[0].contiguous(),
                                           data<T>(dq), to, to + row);
    return gradients({dq, dkv}, kept.has_bias, dbias);
  };
  return differentiable(out, with_bias({q0, kv0}, options.bias), backward);
}

}  // namespace

// With P = softmax(S), S = scale q k^T + bias, dropout mask M (0 or 1 / (1 - p)):
// dV = (M P)^T dO;  dP = M (dO V^T);  dS = P (dP - rowsum(P dP));
// dq = scale dS k;  dk = scale dS^T q;  dbias = dS.
Tensor attention(const Tensor& qkv, const Segments& segments, const AttentionOptions& options) {
  TESSERA_CHECK(qkv.rank() == 4 && qkv.shape(1) == 3 && qkv.shape(0) == segments.total(),
                "attention: qkv must be ({}, 3, H, D), got {}", segments.total(), qkv.shape());
  check_same_device("attention", {&qkv, &options.bias});
  if (qkv.dtype() != DType::bf16) {
    return self_attention<float>(qkv, segments, options);
  }
  return qkv.device() == kCpu
             ? self_attention<float>(qkv.to(DType::f32), segments, options).to(DType::bf16)
             : self_attention<bf16>(qkv, segments, options);
}

Tensor cross_attention(const Tensor& q, const Tensor& kv, const Segments& q_segments,
                       const Segments& kv_segments, const AttentionOptions& options) {
  TESSERA_CHECK(q.rank() == 3 && q.shape(0) == q_segments.total(),
                "cross_attention: q must be ({}, H, D), got {}", q_segments.total(), q.shape());
  TESSERA_CHECK(kv.shape() == (Shape{kv_segments.total(), 2, q.shape(1), q.shape(2)}),
                "cross_attention: kv must be ({}, 2, {}, {}), got {}", kv_segments.total(),
                q.shape(1), q.shape(2), kv.shape());
  check_same_device("cross_attention", {&q, &kv, &options.bias});
  if (q.dtype() != DType::bf16) {
    return attention_between<float>(q, kv, q_segments, kv_segments, options);
  }
  return q.device() == kCpu ? attention_between<float>(q.to(DType::f32), kv.to(DType::f32),
                                                       q_segments, kv_segments, options)
                                  .to(DType::bf16)
                            : attention_between<bf16>(q, kv, q_segments, kv_segments, options);
}

}  // namespace tessera
