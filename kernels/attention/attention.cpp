#include "kernels/attention/attention.h"

#include <cmath>

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

/// A layout with the host arrays that it points to.
struct Problem {
  Segments q_segments, kv_segments;
  std::vector<std::uint8_t> causal;
  std::int64_t heads, width, q_stride, kv_stride;
  float scale;
  std::vector<std::int64_t> pair_offsets{};
  float dropout = 0;
  RngKey key{};

  [[nodiscard]] AttentionLayout layout(const float* bias) const {
    return {heads,
            width,
            q_stride,
            kv_stride,
            scale,
            q_segments.cu_seqlens().data(),
            kv_segments.cu_seqlens().data(),
            causal.empty() ? nullptr : causal.data(),
            q_segments.count(),
            bias,
            pair_offsets.data(),
            dropout,
            key};
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

float* data(const Tensor& t) { return t.span<float>().data(); }
float* data_or_null(const Tensor& t) { return t.defined() ? data(t) : nullptr; }

/// A gradient buffer for the bias where one is asked for.
Tensor bias_gradient(const Saved& bias, bool wanted) {
  return wanted ? Tensor::empty(bias.get().shape(), DType::f32, bias.get().device()) : Tensor{};
}

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
  const bool has_bias = bias.defined(), bias_grad = has_bias && options.bias.requires_grad();
  Tensor out = Tensor::empty({t, h, d}, DType::f32, qkv.device());
  kForward(qkv.device(), data(qkv), data(qkv) + row, data(qkv) + 2 * row,
           p.layout(data_or_null(bias)), data(out), Stream{});
  const auto backward = [saved = Saved(qkv), sb = has_bias ? Saved(bias) : Saved(), has_bias,
                         bias_grad, p, row](std::span<const Tensor> g) {
    const Tensor& x = saved.get();
    const Tensor dout = g[0].contiguous();
    Tensor dx = Tensor::empty(x.shape(), DType::f32, x.device());
    const Tensor dbias = bias_gradient(sb, bias_grad);
    kBackward(x.device(), data(x), data(x) + row, data(x) + 2 * row, data(dout),
              p.layout(has_bias ? data(sb.get()) : nullptr), data(dx), data(dx) + row,
              data(dx) + 2 * row, data_or_null(dbias), Stream{});
    return gradients({dx}, has_bias, dbias);
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
  const bool has_bias = bias.defined(), bias_grad = has_bias && options.bias.requires_grad();
  Tensor out = Tensor::empty(q.shape(), DType::f32, q.device());
  kForward(q.device(), data(q), data(kv), data(kv) + row, p.layout(data_or_null(bias)), data(out),
           Stream{});
  const auto backward = [sq = Saved(q), skv = Saved(kv), sb = has_bias ? Saved(bias) : Saved(),
                         has_bias, bias_grad, p, row](std::span<const Tensor> g) {
    const Tensor &query = sq.get(), &keys = skv.get();
    const Tensor dout = g[0].contiguous();
    Tensor dq = Tensor::empty(query.shape(), DType::f32, query.device());
    Tensor dkv = Tensor::empty(keys.shape(), DType::f32, keys.device());
    const Tensor dbias = bias_gradient(sb, bias_grad);
    kBackward(query.device(), data(query), data(keys), data(keys) + row, data(dout),
              p.layout(has_bias ? data(sb.get()) : nullptr), data(dq), data(dkv), data(dkv) + row,
              data_or_null(dbias), Stream{});
    return gradients({dq, dkv}, has_bias, dbias);
  };
  return differentiable(out, with_bias({q0, kv0}, options.bias), backward);
}

}  // namespace tessera
