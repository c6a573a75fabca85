// The heads of a segment that a block works on, and how products become scores.
#pragma once

#include <cstdint>

#include "core/gpu/tile.cuh"
#include "core/gpu/warp.cuh"
#include "kernels/attention/attention_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kStrip = 16;  // rows of a warp, and columns that meet them at a time
constexpr float kLog2E = 1.44269504F;
constexpr float kNever = -__builtin_huge_valf();

TESSERA_DEVICE int strips_of(int rows) { return (rows + kStrip - 1) / kStrip; }

/// A block's share: heads [head, head + heads) of a segment.
struct Jet {
  AttentionPlace at;
  AttentionPart part;
  int head, heads;
};

// Groups of heads of one item are neighbouring blocks.
TESSERA_DEVICE Jet jet_of(const AttentionLayout& l, const AttentionItem* items, int group) {
  const auto heads = static_cast<int>(l.heads);
  const auto groups = static_cast<unsigned>((heads + group - 1) / group);
  const AttentionItem* item = items + block_idx().x / groups;
  const int head = static_cast<int>(block_idx().x % groups) * group;
  return {ldg(&item->place), ldg(&item->part), head, heads - head < group ? heads - head : group};
}

/// One head: scores in units of ln 2, scale and bias folded with log2 e, so that ex2 is the
/// exponential.
struct Scores {
  const AttentionLayout& l;
  AttentionPlace at;
  std::int64_t first_pair;  // element of bias and dropout of query 0, key 0
  bool causal;

  TESSERA_DEVICE Scores(const AttentionLayout& layout, const Jet& jet, int head)
      : l(layout),
        at(jet.at),
        first_pair((jet.head + head) * layout.kept.pairs + jet.part.pair),
        causal(jet.part.causal != 0) {}

  TESSERA_DEVICE std::int64_t pair(int query, int key) const {
    return first_pair + static_cast<std::int64_t>(query) * at.keys + key;
  }
  TESSERA_DEVICE bool inside(int query, int key) const {
    return query < at.queries && key < at.keys;
  }
  TESSERA_DEVICE bool visible(int query, int key) const {
    return key < at.keys && (!causal || key <= query);
  }
  // Blocks of keys that the queries [row, row + 16) see; the last one is seen in part.
  TESSERA_DEVICE int blocks(int row) const {
    const int all = strips_of(at.keys);
    return causal && row / kStrip + 1 < all ? row / kStrip + 1 : all;
  }
};

/// Scores of a strip of 16 and a block of 16.
using Block = Acc<16, 8>[2];

TESSERA_DEVICE int block_column(int e) { return 8 * (e / 4) + acc_column(e % 4); }
TESSERA_DEVICE int block_row(int e) { return acc_row(e % 4); }

// Rows are queries, columns keys, or the other way round.
template <bool kTransposed>
struct Pair {
  int query, key;
  TESSERA_DEVICE Pair(int row, int column)
      : query(kTransposed ? column : row), key(kTransposed ? row : column) {}
};

// Products to scores; hidden pairs get -inf where the block holds any.
template <bool kTransposed>
TESSERA_DEVICE void finish_scores(const Scores& f, int row, int column, bool masked, Block& s) {
  const float scale = f.l.scale * kLog2E;
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    s[e / 4].c[e % 4] *= scale;
  }
  if (f.l.bias != nullptr) {
    TESSERA_UNROLL
    for (int e = 0; e < 8; ++e) {
      const Pair<kTransposed> p(row + block_row(e), column + block_column(e));
      const float bias = f.inside(p.query, p.key) ? ldg(f.l.bias + f.pair(p.query, p.key)) : 0.0F;
      s[e / 4].c[e % 4] = fma(bias, kLog2E, s[e / 4].c[e % 4]);
    }
  }
  if (masked) {
    TESSERA_UNROLL
    for (int e = 0; e < 8; ++e) {
      const Pair<kTransposed> p(row + block_row(e), column + block_column(e));
      s[e / 4].c[e % 4] = f.visible(p.query, p.key) ? s[e / 4].c[e % 4] : kNever;
    }
  }
}

/// Which of a lane's eight elements of a block dropout keeps, a bit each.
struct Mask {
  unsigned bits = 0xff;

  // Chosen, not multiplied: a dropped infinity is zero, not NaN.
  TESSERA_DEVICE float of(float x, int e) const { return (bits >> e & 1U) != 0 ? x : 0.0F; }
};

// The ten rounds of a random number are in the program once, not eight times.
template <bool kTransposed>
TESSERA_DEVICE Mask mask_of(const Scores& f, int row, int column) {
  Mask mask;
  if (f.l.dropout == 0.0F) {
    return mask;
  }
  mask.bits = 0;
  TESSERA_KEEP_ROLLED
  for (int e = 0; e < 8; ++e) {
    const Pair<kTransposed> p(row + block_row(e), column + block_column(e));
    const auto pair = static_cast<std::uint64_t>(f.pair(p.query, p.key));
    mask.bits |= (f.l.key.uniform(pair) >= f.l.dropout ? 1U : 0U) << e;
  }
  return mask;
}
// What the kept ones grow by.
TESSERA_DEVICE float growth(const AttentionLayout& l) { return 1.0F / (1.0F - l.dropout); }

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
