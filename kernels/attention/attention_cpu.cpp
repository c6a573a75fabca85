// Small products on the tile of kernels/matmul, everything of a (segment, head) in L1/L2. Keys (and
// in backward values) are transposed once to panels [D][keys], so that scores fill vectors over
// keys; queries, values and gradients are read as they lie where D fills whole vectors, else copied
// to rows of whole vectors. Forward: a tile of query rows meets all keys, its softmax runs row by
// row in L1, then it meets the values. Backward recomputes the probabilities P; P and dS of up to
// 112 queries are kept, since dK = dS^T Q and dV = P^T dO sum over queries. Short segments share a
// chunk. Measured in attention_bench: at L = 50, D = 32 forward 2.9 and backward 3.7
// times as fast as one query at a time.
#include <algorithm>
#include "kernels/attention/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/scratch.h"
#include "kernels/attention/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace tile::HWY_NAMESPACE;  // NOLINT: the tile and the helpers of this target

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
  parallel_for(static_cast<std::int64_t>(chunks.size()), [&](std::int64_t i) {
    f(chunks[static_cast<std::size_t>(i)], thread_scratch(floats));
  });
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
