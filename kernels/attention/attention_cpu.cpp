// One task per (segment, head), everything of it in L1/L2. Keys (and in backward values) are
// transposed once to (D, L), so that a query's scores fill vectors over keys without horizontal
// sums; values are read as they lie, D across lanes.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <numeric>

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

#ifndef TESSERA_ATTENTION_ONCE
#define TESSERA_ATTENTION_ONCE
namespace tessera::cpu {
/// One head of one segment: first rows of its queries, keys, values; counts; scratch.
struct HeadTask {
  const float *q, *k, *v;
  std::int64_t queries, keys, width, q_stride, kv_stride, out_stride;
  float scale;
  bool causal;
  float* scratch;     // (2 D + 3) * keys floats
  const float* bias;  // (queries, keys) or null
  float* dbias;       // the same
  float dropout;
  RngKey key;
  std::uint64_t first_pair;  // element of the dropout stream of pair (0, 0)
};
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void Transpose(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width,
               float* out) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t d = 0; d < width; ++d) {
      out[d * rows + i] = x[i * stride + d];
    }
  }
}

HWY_INLINE std::int64_t VisibleKeys(const HeadTask& t, std::int64_t query) {
  return t.causal && query + 1 < t.keys ? query + 1 : t.keys;
}

// p (keys) := softmax of query i's scores over its first n keys.
HWY_INLINE void Probabilities(const HeadTask& t, std::int64_t i, const float* keys_t,
                              std::int64_t n, float* p) {
  VectorMatrix(t.q + i * t.q_stride, t.width, keys_t, t.keys, n, t.scale, p);
  if (t.bias != nullptr) {
    Axpy(1.0F, t.bias + i * t.keys, p, n);
  }
  const float sum = ExpSum(p, n, Largest(p, n));
  Scale(1.0F / sum, p, n);
}

// x := x times the dropout mask of query i, which is 0 or 1 / (1 - p).
HWY_INLINE void Drop(const HeadTask& t, std::int64_t i, std::int64_t n, float* x) {
  if (t.dropout == 0.0F) {
    return;
  }
  const float kept = 1.0F / (1.0F - t.dropout);
  const std::uint64_t first = t.first_pair + static_cast<std::uint64_t>(i * t.keys);
  for (std::int64_t j = 0; j < n; ++j) {
    // Chosen, not multiplied: a dropped infinity is zero, not NaN.
    x[j] = t.key.uniform(first + static_cast<std::uint64_t>(j)) >= t.dropout ? x[j] * kept : 0.0F;
  }
}

void ForwardHead(const HeadTask& t, float* out) {
  float* keys_t = t.scratch;
  float* p = keys_t + t.width * t.keys;
  Transpose(t.k, t.kv_stride, t.keys, t.width, keys_t);
  for (std::int64_t i = 0; i < t.queries; ++i) {
    const std::int64_t n = VisibleKeys(t, i);
    float* row = out + i * t.out_stride;
    if (n == 0) {
      for (std::int64_t d = 0; d < t.width; ++d) {
        row[d] = 0.0F;
      }
      continue;
    }
    Probabilities(t, i, keys_t, n, p);
    Drop(t, i, n, p);
    VectorMatrix(p, n, t.v, t.kv_stride, t.width, 1.0F, row);
  }
}

void ZeroRows(float* x, std::int64_t stride, std::int64_t rows, std::int64_t width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t d = 0; d < width; ++d) {
      x[i * stride + d] = 0.0F;
    }
  }
}

void BackwardHead(const HeadTask& t, const float* dout, float* dq, float* dk, float* dv) {
  float* keys_t = t.scratch;
  float* values_t = keys_t + t.width * t.keys;
  float* p = values_t + t.width * t.keys;
  float* ds = p + t.keys;
  float* dropped = ds + t.keys;
  Transpose(t.k, t.kv_stride, t.keys, t.width, keys_t);
  Transpose(t.v, t.kv_stride, t.keys, t.width, values_t);
  ZeroRows(dk, t.kv_stride, t.keys, t.width);
  ZeroRows(dv, t.kv_stride, t.keys, t.width);
  for (std::int64_t i = 0; i < t.queries; ++i) {
    const std::int64_t n = VisibleKeys(t, i);
    const float* q = t.q + i * t.q_stride;
    const float* up = dout + i * t.out_stride;
    if (t.dbias != nullptr) {
      ZeroRows(t.dbias + i * t.keys, 0, 1, t.keys);
    }
    if (n == 0) {
      ZeroRows(dq + i * t.q_stride, 0, 1, t.width);
      continue;
    }
    Probabilities(t, i, keys_t, n, p);
    VectorMatrix(up, t.width, values_t, t.keys, n, 1.0F, ds);
    Drop(t, i, n, ds);  // dP
    const float mean = Dot(p, ds, n);
    for (std::int64_t j = 0; j < n; ++j) {
      ds[j] = p[j] * (ds[j] - mean);
      dropped[j] = p[j];
    }
    Drop(t, i, n, dropped);
    if (t.dbias != nullptr) {
      Axpy(1.0F, ds, t.dbias + i * t.keys, n);
    }
    Scale(t.scale, ds, n);
    VectorMatrix(ds, n, t.k, t.kv_stride, t.width, 1.0F, dq + i * t.q_stride);
    for (std::int64_t j = 0; j < n; ++j) {
      Axpy(ds[j], q, dk + j * t.kv_stride, t.width);
      Axpy(dropped[j], up, dv + j * t.kv_stride, t.width);
    }
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ForwardHead);
HWY_EXPORT(BackwardHead);

namespace {

// Segments by falling length, so that the longest does not come last and alone.
std::vector<int> longest_first(const AttentionLayout& l) {
  std::vector<int> order(static_cast<std::size_t>(l.segments));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return l.kv_offsets[a + 1] - l.kv_offsets[a] > l.kv_offsets[b + 1] - l.kv_offsets[b];
  });
  return order;
}

// Calls f(task, first query row, first key row, head) for each (segment, head).
template <class F>
void for_each_head(const float* q, const float* k, const float* v, const AttentionLayout& l,
                   float* dbias, F f) {
  const std::vector<int> order = longest_first(l);
  parallel_for(std::int64_t{l.segments} * l.heads, [&](std::int64_t chunk) {
    const int s = order[static_cast<std::size_t>(chunk / l.heads)];
    const std::int64_t head = chunk % l.heads, at = head * l.width;
    const std::int64_t q0 = l.q_offsets[s], k0 = l.kv_offsets[s];
    const std::int64_t keys = l.kv_offsets[s + 1] - k0;
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<std::size_t>((2 * l.width + 3) * keys));
    const std::int64_t pairs = l.pair_offsets[l.segments];
    const std::int64_t pair = head * pairs + l.pair_offsets[s];
    const HeadTask task{.q = q + q0 * l.q_stride + at,
                        .k = k + k0 * l.kv_stride + at,
                        .v = v + k0 * l.kv_stride + at,
                        .queries = l.q_offsets[s + 1] - q0,
                        .keys = keys,
                        .width = l.width,
                        .q_stride = l.q_stride,
                        .kv_stride = l.kv_stride,
                        .out_stride = l.heads * l.width,
                        .scale = l.scale,
                        .causal = l.causal != nullptr && l.causal[s] != 0,
                        .scratch = scratch.data(),
                        .bias = l.bias != nullptr ? l.bias + pair : nullptr,
                        .dbias = dbias != nullptr ? dbias + pair : nullptr,
                        .dropout = l.dropout,
                        .key = l.key,
                        .first_pair = static_cast<std::uint64_t>(pair)};
    f(task, q0, k0, at);
  });
}

}  // namespace

void attention_forward(const float* q, const float* k, const float* v, AttentionLayout l,
                       float* out, Stream) {
  for_each_head(q, k, v, l, nullptr,
                [&](const HeadTask& task, std::int64_t q0, std::int64_t, std::int64_t at) {
                  HWY_DYNAMIC_DISPATCH(ForwardHead)(task, out + q0 * task.out_stride + at);
                });
}

void attention_backward(const float* q, const float* k, const float* v, const float* dout,
                        AttentionLayout l, float* dq, float* dk, float* dv, float* dbias, Stream) {
  for_each_head(q, k, v, l, dbias,
                [&](const HeadTask& task, std::int64_t q0, std::int64_t k0, std::int64_t at) {
                  HWY_DYNAMIC_DISPATCH(BackwardHead)
                  (task, dout + q0 * task.out_stride + at, dq + q0 * l.q_stride + at,
                   dk + k0 * l.kv_stride + at, dv + k0 * l.kv_stride + at);
                });
}

}  // namespace tessera::cpu
#endif
