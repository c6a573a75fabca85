// One head of one segment, and the small products it is made of: operands in rows of whole vectors
// or in panels of keys. Re-included once per SIMD target.
#if defined(TESSERA_ATTENTION_TASK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_TASK_INL_H_
#undef TESSERA_ATTENTION_TASK_INL_H_
#else
#define TESSERA_ATTENTION_TASK_INL_H_
#endif

#include "kernels/attention/attention_task.h"
#include "kernels/matmul/epilogue-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace tile::HWY_NAMESPACE;  // NOLINT: the tile and the helpers of this target

/// Rows of floats, `ld` apart.
struct Rows {
  const float* data;
  std::int64_t ld;
};

/// One head of one segment.
struct HeadTask {
  Rows q, k, v, dout;  // first row of each
  float *out, *dq, *dk, *dv;
  std::int64_t queries, keys, width;
  float scale;
  bool causal;
  const float* bias;  // (queries, keys) or null
  float* dbias;       // the same
  float dropout;
  RngKey key;
  std::uint64_t first_pair;  // element of the dropout stream of pair (0, 0)
  std::int64_t q_stride, kv_stride, out_stride;

  HWY_INLINE std::int64_t Visible(std::int64_t query) const {
    return causal && query + 1 < keys ? query + 1 : keys;
  }
};

HWY_INLINE HeadTask TaskOf(const AttentionCall& c, std::int64_t index) {
  const AttentionLayout& l = c.layout;
  const std::int64_t s = index / l.heads, head = index % l.heads, at = head * l.width;
  const std::int64_t q0 = l.q_offsets[s], k0 = l.kv_offsets[s], out_stride = l.heads * l.width;
  const std::int64_t q_at = q0 * l.q_stride + at, k_at = k0 * l.kv_stride + at;
  const std::int64_t out_at = q0 * out_stride + at;
  const std::int64_t pair = head * l.pair_offsets[l.segments] + l.pair_offsets[s];
  return {.q = {c.q + q_at, l.q_stride},
          .k = {c.k + k_at, l.kv_stride},
          .v = {c.v + k_at, l.kv_stride},
          .dout = {c.dout != nullptr ? c.dout + out_at : nullptr, out_stride},
          .out = c.out != nullptr ? c.out + out_at : nullptr,
          .dq = c.dq != nullptr ? c.dq + q_at : nullptr,
          .dk = c.dk != nullptr ? c.dk + k_at : nullptr,
          .dv = c.dv != nullptr ? c.dv + k_at : nullptr,
          .queries = l.q_offsets[s + 1] - q0,
          .keys = l.kv_offsets[s + 1] - k0,
          .width = l.width,
          .scale = l.scale,
          .causal = l.causal != nullptr && l.causal[s] != 0,
          .bias = l.bias != nullptr ? l.bias + pair : nullptr,
          .dbias = c.dbias != nullptr ? c.dbias + pair : nullptr,
          .dropout = l.dropout,
          .key = l.key,
          .first_pair = static_cast<std::uint64_t>(pair),
          .q_stride = l.q_stride,
          .kv_stride = l.kv_stride,
          .out_stride = out_stride};
}

/// Bump allocator over the thread's scratch.
struct Scratch {
  float* next;
  HWY_INLINE float* Take(std::int64_t floats) {
    float* p = next;
    next += (floats + kWidestVector - 1) / kWidestVector * kWidestVector;
    return p;
  }
};

HWY_INLINE std::int64_t RoundUp(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// Rows of whole vectors: x itself, or a copy with zeros behind each row.
HWY_INLINE Rows WholeVectors(const Rows& x, std::int64_t rows, std::int64_t width,
                             Scratch& scratch) {
  const std::int64_t lanes = LaneCount(), ld = RoundUp(width, lanes);
  if (width == ld) {
    return x;
  }
  float* out = scratch.Take(rows * ld);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t d = 0; d < ld; d += lanes) {
      hn::StoreU(LoadN(width - d, x.data + i * x.ld + d), D(), out + i * ld + d);
    }
  }
  return {out, ld};
}

// Panels [D][two vectors of keys]. Lanes beyond the keys are left as they are: what comes of them
// is masked.
HWY_INLINE const float* KeyPanels(const Rows& x, std::int64_t keys, std::int64_t width,
                                  Scratch& scratch) {
  const std::int64_t panel = 2 * LaneCount();
  float* out = scratch.Take(RoundUp(keys, panel) * width);
  for (std::int64_t j = 0; j < keys; j += panel) {
    const std::int64_t rows = keys - j < panel ? keys - j : panel;
    Transpose(x.data + j * x.ld, x.ld, rows, width, panel, out + j * width);
  }
  return out;
}

// c (rows, columns) = a (rows, k) b (k, columns), b in rows of whole vectors.
HWY_INLINE void Product(const Operand& a, std::int64_t rows, const Rows& b, std::int64_t k,
                        std::int64_t columns, float* c, std::int64_t ld, bool accumulate) {
  const std::int64_t lanes = LaneCount();
  for (std::int64_t j = 0; j < columns; j += 2 * lanes) {
    const std::int64_t left = columns - j;
    if (left >= 2 * lanes) {
      TileOf<2>(rows, a, b.data + j, b.ld, k, ToRows<true>{c + j, ld, left, nullptr, accumulate});
    } else if (left == lanes) {
      TileOf<1>(rows, a, b.data + j, b.ld, k, ToRows<true>{c + j, ld, left, nullptr, accumulate});
    } else if (left > lanes) {
      TileOf<2>(rows, a, b.data + j, b.ld, k, ToRows<false>{c + j, ld, left, nullptr, accumulate});
    } else {
      TileOf<1>(rows, a, b.data + j, b.ld, k, ToRows<false>{c + j, ld, left, nullptr, accumulate});
    }
  }
}

// s (rows, keys) = a (rows, D) times panels of keys, whole vectors stored.
HWY_INLINE void Scores(const Rows& a, std::int64_t rows, const float* panels, std::int64_t width,
                       std::int64_t keys, float* s, std::int64_t ld) {
  const std::int64_t lanes = LaneCount(), panel = 2 * lanes;
  const Operand left{a.data, a.ld, 1};
  for (std::int64_t j = 0; j < keys; j += panel) {
    const ToRows<true> out{s + j, ld, panel, nullptr, false};
    if (keys - j > lanes) {
      TileOf<2>(rows, left, panels + j * width, panel, width, out);
    } else {
      TileOf<1>(rows, left, panels + j * width, panel, width, out);
    }
  }
}

HWY_INLINE void ZeroRun(float* x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += LaneCount()) {
    StoreN(hn::Zero(D()), n - j, x + j);
  }
}

HWY_INLINE void ZeroRows(float* x, std::int64_t stride, std::int64_t rows, std::int64_t width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    ZeroRun(x + i * stride, width);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
