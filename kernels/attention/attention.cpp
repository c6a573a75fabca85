#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/autograd.h"

namespace tessera {
namespace {

constexpr auto kForward = TESSERA_KERNEL(attention_forward);
constexpr auto kBackward = TESSERA_KERNEL(attention_backward);

std::vector<std::uint8_t> causal_flags(const Segments& segments, const AttentionOptions& options) {
  if (options.causal_segments.empty() && options.causal) {
    return std::vector<std::uint8_t>(static_cast<std::size_t>(segments.count()), 1);
  }
  return options.causal_segments;
}

float* data(const Tensor& t) { return t.reshape({t.size()}).view<float, 1>().data; }
float* data_or_null(const Tensor& t) { return t.defined() ? data(t) : nullptr; }

// Blocks of rows of all segments, longest segments first, so that none of them is left for the end.
std::vector<AttentionItem> items_of(const Segments& segments) {
  std::vector<std::int32_t> order;
  for (std::int32_t s = 0; s < segments.count(); ++s) {
    order.push_back(s);
  }
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [&](std::int32_t s) { return segments.length(s); });
  std::vector<AttentionItem> items;
  for (const std::int32_t s : order) {
    for (std::int32_t first = 0; first < segments.length(s); first += kAttentionBlock) {
      items.push_back({s, first});
    }
  }
  return items;
}

template <class T>
std::size_t bytes_of(const std::vector<T>& v) {
  return v.size() * sizeof(T);
}

/// What a device reads of the host's arrays, in one buffer: one copy a call.
struct DevicePlan {
  Tensor bytes;
  std::size_t q_items, k_items, causal;  ///< where they begin; the pair offsets come first
  int q_item_count, k_item_count;

  DevicePlan(const Segments& q, const Segments& kv, const std::vector<std::int64_t>& pairs,
             const std::vector<std::uint8_t>& flags, Device device) {
    const std::vector<AttentionItem> queries = items_of(q), keys = items_of(kv);
    q_items = bytes_of(pairs);
    k_items = q_items + bytes_of(queries);
    causal = k_items + bytes_of(keys);
    q_item_count = static_cast<int>(queries.size());
    k_item_count = static_cast<int>(keys.size());
    const Tensor host =
        Tensor::empty({static_cast<std::int64_t>(causal + flags.size())}, DType::u8);
    std::uint8_t* to = host.span<std::uint8_t>().data();
    std::memcpy(to, pairs.data(), q_items);
    std::ranges::copy(queries, reinterpret_cast<AttentionItem*>(to + q_items));
    std::ranges::copy(keys, reinterpret_cast<AttentionItem*>(to + k_items));
    std::ranges::copy(flags, to + causal);
    bytes = host.to(device);
  }
  template <class T>
  [[nodiscard]] const T* at(std::size_t offset) const {
    return reinterpret_cast<const T*>(bytes.view<const std::uint8_t, 1>().data + offset);
  }
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
  Tensor lse{};  // (Tq, H), devices only

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
      lse = Tensor::empty({q_segments.total(), heads}, DType::f32, device);
    }
  }

 private:
  void point_to_device(AttentionLayout& l) const {
    const Device device = lse.device();
    l.q_offsets = q_segments.on(device).view<const std::int32_t, 1>().data;
    l.kv_offsets = kv_segments.on(device).view<const std::int32_t, 1>().data;
    l.pair_offsets = plan->at<std::int64_t>(0);
    l.causal = causal.empty() ? nullptr : plan->at<std::uint8_t>(plan->causal);
    l.kept = {.q_items = plan->at<AttentionItem>(plan->q_items),
              .k_items = plan->at<AttentionItem>(plan->k_items),
              .q_item_count = plan->q_item_count,
              .k_item_count = plan->k_item_count,
              .lse = data(lse)};
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
  Tensor backward(const float* q, const float* k, const float* v, const Tensor& dout, float* dq,
                  float* dk, float* dv) const {
    AttentionLayout l = problem.layout(has_bias ? bias.get() : Tensor());
    const Tensor dbias = bias_gradient(bias, bias_grad);
    Tensor delta;
    if (dout.device() != kCpu) {
      delta = Tensor::empty(problem.lse.shape(), DType::f32, dout.device());
      l.kept.out = data(out.get());
      l.kept.delta = data(delta);
    }
    kBackward(dout.device(), q, k, v, data(dout), l, dq, dk, dv, data_or_null(dbias), Stream{});
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

}  // namespace

// With P = softmax(S), S = scale q k^T + bias, dropout mask M (0 or 1 / (1 - p)):
// dV = (M P)^T dO;  dP = M (dO V^T);  dS = P (dP - rowsum(P dP));
// dq = scale dS k;  dk = scale dS^T q;  dbias = dS.
Tensor attention(const Tensor& qkv0, const Segments& segments, const AttentionOptions& options) {
  TESSERA_CHECK(qkv0.rank() == 4 && qkv0.shape(1) == 3 && qkv0.shape(0) == segments.total(),
                "attention: qkv must be ({}, 3, H, D), got {}", segments.total(), qkv0.shape());
  const Tensor qkv = qkv0.detach().contiguous();
  const std::int64_t t = qkv.shape(0), h = qkv.shape(2), d = qkv.shape(3), row = h * d;
  Problem p{segments, segments, causal_flags(segments, options), h, d,
            3 * row,  3 * row,  default_scale(options.scale, d)};
  check_problem(p);
  const Tensor bias = add_bias_and_dropout(p, options);
  p.prepare(qkv.device());
  Tensor out = Tensor::empty({t, h, d}, DType::f32, qkv.device());
  kForward(qkv.device(), data(qkv), data(qkv) + row, data(qkv) + 2 * row, p.layout(bias), data(out),
           Stream{});
  const Kept kept(p, bias, out, options.bias.requires_grad());
  const auto backward = [saved = Saved(qkv), kept, row](std::span<const Tensor> g) {
    const Tensor& x = saved.get();
    Tensor dx = Tensor::empty(x.shape(), DType::f32, x.device());
    const Tensor dbias = kept.backward(data(x), data(x) + row, data(x) + 2 * row, g[0].contiguous(),
                                       data(dx), data(dx) + row, data(dx) + 2 * row);
    return gradients({dx}, kept.has_bias, dbias);
  };
  return differentiable(out, with_bias({qkv0}, options.bias), backward);
}

Tensor cross_attention(const Tensor& q0, const Tensor& kv0, const Segments& q_segments,
                       const Segments& kv_segments, const AttentionOptions& options) {
  TESSERA_CHECK(q0.rank() == 3 && q0.shape(0) == q_segments.total(),
                "cross_attention: q must be ({}, H, D), got {}", q_segments.total(), q0.shape());
  TESSERA_CHECK(kv0.shape() == (Shape{kv_segments.total(), 2, q0.shape(1), q0.shape(2)}),
                "cross_attention: kv must be ({}, 2, {}, {}), got {}", kv_segments.total(),
                q0.shape(1), q0.shape(2), kv0.shape());
  const Tensor q = q0.detach().contiguous(), kv = kv0.detach().contiguous();
  const std::int64_t h = q.shape(1), d = q.shape(2), row = h * d;
  Problem p{q_segments, kv_segments, causal_flags(q_segments, options), h, d,
            row,        2 * row,     default_scale(options.scale, d)};
  check_problem(p);
  const Tensor bias = add_bias_and_dropout(p, options);
  p.prepare(q.device());
  Tensor out = Tensor::empty(q.shape(), DType::f32, q.device());
  kForward(q.device(), data(q), data(kv), data(kv) + row, p.layout(bias), data(out), Stream{});
  const Kept kept(p, bias, out, options.bias.requires_grad());
  const auto backward = [sq = Saved(q), skv = Saved(kv), kept, row](std::span<const Tensor> g) {
    const Tensor &query = sq.get(), &keys = skv.get();
    Tensor dq = Tensor::empty(query.shape(), DType::f32, query.device());
    Tensor dkv = Tensor::empty(keys.shape(), DType::f32, keys.device());
    const Tensor dbias = kept.backward(data(query), data(keys), data(keys) + row, g[0].contiguous(),
                                       data(dq), data(dkv), data(dkv) + row);
    return gradients({dq, dkv}, kept.has_bias, dbias);
  };
  return differentiable(out, with_bias({q0, kv0}, options.bias), backward);
}

}  // namespace tessera
