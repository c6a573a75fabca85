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

  [[nodiscard]] AttentionLayout layout() const {
    return {heads,
            width,
            q_stride,
            kv_stride,
            scale,
            q_segments.cu_seqlens().data(),
            kv_segments.cu_seqlens().data(),
            causal.empty() ? nullptr : causal.data(),
            q_segments.count(),
            kv_segments.max_length()};
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

float default_scale(float scale, std::int64_t width) {
  return scale != 0 ? scale : 1.0F / std::sqrt(static_cast<float>(width));
}

float* data(const Tensor& t) { return t.span<float>().data(); }

}  // namespace

// With P = softmax(S), S = scale q k^T:  dV = P^T dO;  dS = P (dO V^T - rowsum(P dO V^T));
// dq = scale dS k;  dk = scale dS^T q.
Tensor attention(const Tensor& qkv0, const Segments& segments, const AttentionOptions& options) {
  TESSERA_CHECK(qkv0.rank() == 4 && qkv0.shape(1) == 3 && qkv0.shape(0) == segments.total(),
                "attention: qkv must be ({}, 3, H, D), got {}", segments.total(), qkv0.shape());
  const Tensor qkv = qkv0.detach().contiguous();
  const std::int64_t t = qkv.shape(0), h = qkv.shape(2), d = qkv.shape(3), row = h * d;
  Problem p{segments, segments, causal_flags(segments, options), h, d,
            3 * row,  3 * row,  default_scale(options.scale, d)};
  check_problem(p);
  Tensor out = Tensor::empty({t, h, d}, DType::f32, qkv.device());
  kForward(qkv.device(), data(qkv), data(qkv) + row, data(qkv) + 2 * row, p.layout(), data(out),
           Stream{});
  const auto backward = [saved = Saved(qkv), p, row](std::span<const Tensor> g) {
    const Tensor& x = saved.get();
    const Tensor dout = g[0].contiguous();
    Tensor dx = Tensor::empty(x.shape(), DType::f32, x.device());
    kBackward(x.device(), data(x), data(x) + row, data(x) + 2 * row, data(dout), p.layout(),
              data(dx), data(dx) + row, data(dx) + 2 * row, Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(out, {qkv0}, backward);
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
  Tensor out = Tensor::empty(q.shape(), DType::f32, q.device());
  kForward(q.device(), data(q), data(kv), data(kv) + row, p.layout(), data(out), Stream{});
  const auto backward = [sq = Saved(q), skv = Saved(kv), p, row](std::span<const Tensor> g) {
    const Tensor &query = sq.get(), &keys = skv.get();
    const Tensor dout = g[0].contiguous();
    Tensor dq = Tensor::empty(query.shape(), DType::f32, query.device());
    Tensor dkv = Tensor::empty(keys.shape(), DType::f32, keys.device());
    kBackward(query.device(), data(query), data(keys), data(keys) + row, data(dout), p.layout(),
              data(dq), data(dkv), data(dkv) + row, Stream{});
    return std::vector<Tensor>{dq, dkv};
  };
  return differentiable(out, {q0, kv0}, backward);
}

}  // namespace tessera
