// Small products on the tile of kernels/matmul, everything of a (segment, head) in L1/L2. Keys (and
// in backward values) are transposed once to panels [D][keys], so that scores fill vectors over
// keys; queries, values and gradients are read as they lie where D fills whole vectors, else copied
// to rows of whole vectors. Forward: a tile of query rows meets all keys, its softmax runs row by
// row in L1, then it meets the values. Backward recomputes the probabilities P; P and dS of up to
// 112 queries are kept, since dK = dS^T Q and dV = P^T dO sum over queries. Short segments share a
// chunk. Measured in attention_bench: at L = 50, D = 32 forward 2.9 and backward 3.7
// times as fast as one query at a time.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <limits>
#include <memory>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/philox-inl.h"
#include "kernels/matmul/tile-inl.h"

#ifndef TESSERA_ATTENTION_ONCE
#define TESSERA_ATTENTION_ONCE
namespace tessera::cpu {
/// A call: inputs, gradients (or null), what every thread needs.
struct AttentionCall {
  const float *q, *k, *v, *dout;
  AttentionLayout layout;
  float *out, *dq, *dk, *dv, *dbias;
};

/// Tasks [begin, end), numbered segment * heads + head.
struct AttentionChunk {
  std::int64_t begin, end;
  double cost;
};

constexpr std::int64_t kQueryBlock = 112;  // queries whose P and dS are kept at a time
constexpr std::int64_t kWidestVector = 16;

/// Floats of scratch for segments of at most these lengths, at any SIMD level.
inline std::int64_t attention_scratch(std::int64_t queries, std::int64_t keys, std::int64_t width) {
  const std::int64_t panels = (keys + 2 * kWidestVector - 1) / (2 * kWidestVector);
  const std::int64_t all_keys = panels * 2 * kWidestVector;
  const std::int64_t block = queries < kQueryBlock ? queries : kQueryBlock;
  return 2 * all_keys * width + (2 * keys + 2 * block) * (width + kWidestVector) +
         2 * block * (all_keys + kWidestVector);
}
}  // namespace tessera::cpu
#endif

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

HeadTask TaskOf(const AttentionCall& c, std::int64_t index) {
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

/// Sums to rows of c: whole vectors, or `valid` floats.
template <bool kWhole>
struct ToRows {
  static constexpr bool kUnrolled = kWhole;
  float* c;
  std::int64_t ld, valid;
  bool accumulate;

  HWY_INLINE bool Continues() const { return accumulate; }
  template <int kVectors>
  HWY_INLINE void First(V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      v[j] = hn::Zero(D());
    }
  }
  template <int kVectors>
  HWY_INLINE void Load(int row, V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      const float* from = c + row * ld + j * LaneCount();
      v[j] = kWhole ? hn::LoadU(D(), from) : LoadN(valid - j * LaneCount(), from);
    }
  }
  template <int kVectors>
  HWY_INLINE void Store(int row, const V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      float* to = c + row * ld + j * LaneCount();
      if (kWhole) {
        hn::StoreU(v[j], D(), to);
      } else {
        StoreN(v[j], valid - j * LaneCount(), to);
      }
    }
  }
};

// c (rows, columns) = a (rows, k) b (k, columns), b in rows of whole vectors.
HWY_INLINE void Product(const Operand& a, std::int64_t rows, const Rows& b, std::int64_t k,
                        std::int64_t columns, float* c, std::int64_t ld, bool accumulate) {
  const std::int64_t lanes = LaneCount();
  for (std::int64_t j = 0; j < columns; j += 2 * lanes) {
    const std::int64_t left = columns - j;
    if (left >= 2 * lanes) {
      TileOf<2>(rows, a, b.data + j, b.ld, k, ToRows<true>{c + j, ld, left, accumulate});
    } else if (left == lanes) {
      TileOf<1>(rows, a, b.data + j, b.ld, k, ToRows<true>{c + j, ld, left, accumulate});
    } else if (left > lanes) {
      TileOf<2>(rows, a, b.data + j, b.ld, k, ToRows<false>{c + j, ld, left, accumulate});
    } else {
      TileOf<1>(rows, a, b.data + j, b.ld, k, ToRows<false>{c + j, ld, left, accumulate});
    }
  }
}

// s (rows, keys) = a (rows, D) times panels of keys, whole vectors stored.
HWY_INLINE void Scores(const Rows& a, std::int64_t rows, const float* panels, std::int64_t width,
                       std::int64_t keys, float* s, std::int64_t ld) {
  const std::int64_t lanes = LaneCount(), panel = 2 * lanes;
  const Operand left{a.data, a.ld, 1};
  for (std::int64_t j = 0; j < keys; j += panel) {
    const ToRows<true> out{s + j, ld, panel, false};
    if (keys - j > lanes) {
      TileOf<2>(rows, left, panels + j * width, panel, width, out);
    } else {
      TileOf<1>(rows, left, panels + j * width, panel, width, out);
    }
  }
}

// x := x times the dropout mask of query i, which is 0 or 1 / (1 - p).
HWY_INLINE void Drop(const HeadTask& t, std::int64_t i, std::int64_t n, float* x) {
  if (t.dropout == 0.0F) {
    return;
  }
  DropRun(t.key, t.first_pair + static_cast<std::uint64_t>(i * t.keys), t.dropout,
          1.0F / (1.0F - t.dropout), x, n, x);
}

HWY_INLINE void ZeroRun(float* x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += LaneCount()) {
    StoreN(hn::Zero(D()), n - j, x + j);
  }
}

void ZeroRows(float* x, std::int64_t stride, std::int64_t rows, std::int64_t width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    ZeroRun(x + i * stride, width);
  }
}

// s (keys) := softmax of query i's scaled and biased scores over its first n keys, zero beyond;
// whole vectors written. n fills kVectors vectors but for the last.
template <int kVectors>
HWY_INLINE void SoftmaxInRegisters(const HeadTask& t, std::int64_t i, std::int64_t n, float* s) {
  const std::int64_t lanes = LaneCount();
  constexpr int kLast = kVectors - 1;
  const auto last = Head(n - kLast * lanes);
  const V scale = hn::Set(D(), t.scale);
  V x[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    x[j] = hn::Mul(hn::Load(D(), s + j * lanes), scale);
  }
  if (t.bias != nullptr) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      x[j] = hn::Add(x[j], LoadN(n - j * lanes, t.bias + i * t.keys + j * lanes));
    }
  }
  const V lowest = hn::Set(D(), -std::numeric_limits<float>::infinity());
  x[kLast] = hn::IfThenElse(last, x[kLast], lowest);
  V top = x[0];
#pragma GCC unroll 4
  for (int j = 1; j < kVectors; ++j) {
    top = hn::Max(top, x[j]);
  }
  top = hn::MaxOfLanes(D(), top);
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    x[j] = Exp(hn::Sub(x[j], top));
  }
  x[kLast] = hn::IfThenElseZero(last, x[kLast]);
  V sum = x[0];
#pragma GCC unroll 4
  for (int j = 1; j < kVectors; ++j) {
    sum = hn::Add(sum, x[j]);
  }
  const V share = Reciprocal(hn::SumOfLanes(D(), sum));
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    hn::Store(hn::Mul(x[j], share), D(), s + j * lanes);
  }
}

// The same for rows of any length.
void SoftmaxInMemory(const HeadTask& t, std::int64_t i, std::int64_t n, float* s) {
  const std::int64_t lanes = LaneCount();
  const V scale = hn::Set(D(), t.scale);
  V top = hn::Set(D(), -std::numeric_limits<float>::infinity());
  for (std::int64_t j = 0; j < n; j += lanes) {
    V x = hn::Mul(hn::Load(D(), s + j), scale);
    if (t.bias != nullptr) {
      x = hn::Add(x, LoadN(n - j, t.bias + i * t.keys + j));
    }
    hn::Store(x, D(), s + j);
    top = hn::Max(top, hn::IfThenElse(Head(n - j), x, top));
  }
  top = hn::MaxOfLanes(D(), top);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < n; j += lanes) {
    const V e = hn::IfThenElseZero(Head(n - j), Exp(hn::Sub(hn::Load(D(), s + j), top)));
    hn::Store(e, D(), s + j);
    sum = hn::Add(sum, e);
  }
  const V share = Reciprocal(hn::SumOfLanes(D(), sum));
  for (std::int64_t j = 0; j < n; j += lanes) {
    hn::Store(hn::Mul(hn::Load(D(), s + j), share), D(), s + j);
  }
}

// Probabilities of query i over all keys, zero where invisible.
HWY_INLINE void Probabilities(const HeadTask& t, std::int64_t i, float* s) {
  const std::int64_t lanes = LaneCount(), n = t.Visible(i);
  if (n <= lanes) {
    SoftmaxInRegisters<1>(t, i, n, s);
  } else if (n <= 2 * lanes) {
    SoftmaxInRegisters<2>(t, i, n, s);
  } else if (n <= 3 * lanes) {
    SoftmaxInRegisters<3>(t, i, n, s);
  } else if (n <= 4 * lanes) {
    SoftmaxInRegisters<4>(t, i, n, s);
  } else {
    SoftmaxInMemory(t, i, n, s);
  }
  for (std::int64_t j = RoundUp(n, lanes); j < t.keys; j += lanes) {
    hn::Store(hn::Zero(D()), D(), s + j);
  }
}

// Distance between rows of scores: an odd number of cache lines, so that rows spread over the sets.
HWY_INLINE std::int64_t ScoreStride(std::int64_t keys) {
  const std::int64_t floats = RoundUp(keys, 2 * LaneCount());
  return floats / kWidestVector % 2 == 0 ? floats + kWidestVector : floats;
}

void ForwardHead(const HeadTask& t, Scratch scratch) {
  if (t.keys == 0) {
    ZeroRows(t.out, t.out_stride, t.queries, t.width);
    return;
  }
  const float* keys_t = KeyPanels(t.k, t.keys, t.width, scratch);
  const Rows values = WholeVectors(t.v, t.keys, t.width, scratch);
  const std::int64_t ld = ScoreStride(t.keys);
  float* p = scratch.Take(kMaxRows * ld);
  for (std::int64_t i = 0; i < t.queries;) {
    const std::int64_t rows = TileRows(t.queries - i), seen = t.Visible(i + rows - 1);
    Scores({t.q.data + i * t.q.ld, t.q.ld}, rows, keys_t, t.width, seen, p, ld);
    for (std::int64_t r = 0; r < rows; ++r) {
      Probabilities(t, i + r, p + r * ld);
      Drop(t, i + r, seen, p + r * ld);
    }
    Product({p, ld, 1}, rows, values, seen, t.width, t.out + i * t.out_stride, t.out_stride, false);
    i += rows;
  }
}

// ds (keys) := scale p (m dP - sum of p m dP) with the dropout mask m, dbias the same without
// scale; p := m p.
HWY_INLINE void SoftmaxSlope(const HeadTask& t, std::int64_t i, float* p, float* ds) {
  const std::int64_t lanes = LaneCount(), n = t.Visible(i);
  Drop(t, i, n, ds);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < n; j += lanes) {
    const V slope = hn::IfThenElseZero(Head(n - j), hn::Load(D(), ds + j));
    hn::Store(slope, D(), ds + j);
    sum = hn::MulAdd(hn::Load(D(), p + j), slope, sum);
  }
  const V mean = hn::SumOfLanes(D(), sum), scale = hn::Set(D(), t.scale);
  std::int64_t j = 0;
  for (; j < n; j += lanes) {
    const V slope = hn::Mul(hn::Load(D(), p + j), hn::Sub(hn::Load(D(), ds + j), mean));
    if (t.dbias != nullptr) {
      StoreN(slope, t.keys - j, t.dbias + i * t.keys + j);
    }
    hn::Store(hn::Mul(slope, scale), D(), ds + j);
  }
  for (; j < t.keys; j += lanes) {
    hn::Store(hn::Zero(D()), D(), ds + j);
    if (t.dbias != nullptr) {
      StoreN(hn::Zero(D()), t.keys - j, t.dbias + i * t.keys + j);
    }
  }
  Drop(t, i, n, p);
}

// dK and dV of all keys from the queries [first, first + count): sums over them.
HWY_INLINE void KeyGradients(const HeadTask& t, std::int64_t first, std::int64_t count,
                             const float* p, const float* ds, std::int64_t ld, const Rows& q,
                             const Rows& dout) {
  for (std::int64_t j = 0; j < t.keys;) {
    const std::int64_t rows = TileRows(t.keys - j);
    // Causal: queries before key j do not see it.
    const std::int64_t blind = !t.causal || j <= first ? 0 : j - first < count ? j - first : count;
    const std::int64_t left = count - blind, at = blind * ld + j;
    Product({p + at, 1, ld}, rows, {dout.data + blind * dout.ld, dout.ld}, left, t.width,
            t.dv + j * t.kv_stride, t.kv_stride, first > 0);
    Product({ds + at, 1, ld}, rows, {q.data + blind * q.ld, q.ld}, left, t.width,
            t.dk + j * t.kv_stride, t.kv_stride, first > 0);
    j += rows;
  }
}

void BackwardHead(const HeadTask& t, Scratch scratch) {
  if (t.keys == 0 || t.queries == 0) {
    ZeroRows(t.dq, t.q_stride, t.queries, t.width);
    ZeroRows(t.dk, t.kv_stride, t.keys, t.width);
    ZeroRows(t.dv, t.kv_stride, t.keys, t.width);
    return;
  }
  const float* keys_t = KeyPanels(t.k, t.keys, t.width, scratch);
  const float* values_t = KeyPanels(t.v, t.keys, t.width, scratch);
  const Rows keys = WholeVectors(t.k, t.keys, t.width, scratch);
  const std::int64_t ld = ScoreStride(t.keys);
  const std::int64_t most = t.queries < kQueryBlock ? t.queries : kQueryBlock;
  float *p = scratch.Take(most * ld), *ds = scratch.Take(most * ld);
  for (std::int64_t first = 0; first < t.queries; first += kQueryBlock) {
    const std::int64_t count = t.queries - first < kQueryBlock ? t.queries - first : kQueryBlock;
    Scratch block = scratch;
    const Rows q = WholeVectors({t.q.data + first * t.q.ld, t.q.ld}, count, t.width, block);
    const Rows dout =
        WholeVectors({t.dout.data + first * t.dout.ld, t.dout.ld}, count, t.width, block);
    for (std::int64_t i = 0; i < count;) {
      const std::int64_t rows = TileRows(count - i), seen = t.Visible(first + i + rows - 1);
      float *p_rows = p + i * ld, *ds_rows = ds + i * ld;
      Scores({q.data + i * q.ld, q.ld}, rows, keys_t, t.width, seen, p_rows, ld);
      Scores({dout.data + i * dout.ld, dout.ld}, rows, values_t, t.width, seen, ds_rows, ld);
      for (std::int64_t r = 0; r < rows; ++r) {
        Probabilities(t, first + i + r, p_rows + r * ld);
        SoftmaxSlope(t, first + i + r, p_rows + r * ld, ds_rows + r * ld);
      }
      Product({ds_rows, ld, 1}, rows, keys, seen, t.width, t.dq + (first + i) * t.q_stride,
              t.q_stride, false);
      i += rows;
    }
    KeyGradients(t, first, count, p, ds, ld, q, dout);
  }
}

void ForwardChunk(const AttentionCall& call, const AttentionChunk& chunk, float* scratch) {
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i) {
    ForwardHead(TaskOf(call, i), {scratch});
  }
}

void BackwardChunk(const AttentionCall& call, const AttentionChunk& chunk, float* scratch) {
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i) {
    BackwardHead(TaskOf(call, i), {scratch});
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ForwardChunk);
HWY_EXPORT(BackwardChunk);

namespace {

constexpr double kChunkCost = 3e5;  // multiply-adds: 10 us and more, against 1 us for a chunk

// Short segments are put together with all their heads, long ones split by head. The costliest
// chunks come first, so that none of them is left for the end.
std::vector<AttentionChunk> chunks_of(const AttentionLayout& l) {
  std::vector<AttentionChunk> chunks;
  double open = 2 * kChunkCost;  // cost of the last chunk if it takes more
  for (std::int64_t s = 0; s < l.segments; ++s) {
    const double queries = l.q_offsets[s + 1] - l.q_offsets[s];
    const double keys = l.kv_offsets[s + 1] - l.kv_offsets[s];
    const double cost = 300 + (queries * keys + queries + keys) * static_cast<double>(2 * l.width);
    const bool split = cost * static_cast<double>(l.heads) > kChunkCost;
    for (std::int64_t task = s * l.heads; task < (s + 1) * l.heads; ++task) {
      const bool joins = split ? false : open < kChunkCost || task % l.heads != 0;
      if (joins) {
        chunks.back().end = task + 1;
        chunks.back().cost += cost;
      } else {
        chunks.push_back({task, task + 1, cost});
      }
      open = split ? 2 * kChunkCost : chunks.back().cost;
    }
  }
  std::stable_sort(
      chunks.begin(), chunks.end(),
      [](const AttentionChunk& a, const AttentionChunk& b) { return a.cost > b.cost; });
  return chunks;
}

// This thread's scratch, on a cache line.
float* scratch_of(std::int64_t floats) {
  thread_local std::vector<float> scratch;
  const auto size = static_cast<std::size_t>(floats + kWidestVector);
  if (scratch.size() < size) {
    scratch.resize(size);
  }
  void* p = scratch.data();
  std::size_t space = size * sizeof(float);
  return static_cast<float*>(std::align(
      kWidestVector * sizeof(float), static_cast<std::size_t>(floats) * sizeof(float), p, space));
}

// f(chunk, scratch) for all tasks.
template <class F>
void for_each_chunk(const AttentionLayout& l, F f) {
  std::int64_t queries = 0, keys = 0;
  for (int s = 0; s < l.segments; ++s) {
    queries = std::max<std::int64_t>(queries, l.q_offsets[s + 1] - l.q_offsets[s]);
    keys = std::max<std::int64_t>(keys, l.kv_offsets[s + 1] - l.kv_offsets[s]);
  }
  const std::int64_t floats = attention_scratch(queries, keys, l.width);
  const std::vector<AttentionChunk> chunks = chunks_of(l);
  parallel_for(static_cast<std::int64_t>(chunks.size()),
               [&](std::int64_t i) { f(chunks[static_cast<std::size_t>(i)], scratch_of(floats)); });
}

}  // namespace

void attention_forward(const float* q, const float* k, const float* v, AttentionLayout l,
                       float* out, Stream) {
  const AttentionCall call{.q = q, .k = k, .v = v, .layout = l, .out = out};
  for_each_chunk(l, [&](const AttentionChunk& chunk, float* scratch) {
    HWY_DYNAMIC_DISPATCH(ForwardChunk)(call, chunk, scratch);
  });
}

void attention_backward(const float* q, const float* k, const float* v, const float* dout,
                        AttentionLayout l, float* dq, float* dk, float* dv, float* dbias, Stream) {
  const AttentionCall call{.q = q,
                           .k = k,
                           .v = v,
                           .dout = dout,
                           .layout = l,
                           .dq = dq,
                           .dk = dk,
                           .dv = dv,
                           .dbias = dbias};
  for_each_chunk(l, [&](const AttentionChunk& chunk, float* scratch) {
    HWY_DYNAMIC_DISPATCH(BackwardChunk)(call, chunk, scratch);
  });
}

}  // namespace tessera::cpu
#endif
