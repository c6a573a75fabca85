// Attention forward. A warp has 16 queries; their scores against the keys in shared memory stay in
// registers, and the weights enter the second product from there. A whole segment's keys at once
// (forward_kernel): the softmax is exact, in a single pass. Blocks of 16 keys beyond the last one
// are skipped; what is hidden lies in the last block that is not.
#pragma once

#include "kernels/attention/strip.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

/// Scores of a strip against 16 kBlocks keys.
template <int kBlocks>
struct Row {
  Block at[kBlocks];
};

// The largest of the four lanes of a row, their sum.
TESSERA_DEVICE float quad_max(float v) {
  v = max(v, shfl_xor(v, 1));
  return max(v, shfl_xor(v, 2));
}
TESSERA_DEVICE float quad_sum(float v) {
  v += shfl_xor(v, 1);
  return v + shfl_xor(v, 2);
}

// Scores of queries [row, row + 16) against the first `blocks` blocks of a tile that begins at key
// `key`; block `masked` holds hidden pairs. The largest of each of the lane's two rows grows `top`.
template <class T, int kWidth, int kBlocks, int kRows>
TESSERA_DEVICE void score(Row<kBlocks>& s, const Scores& f, const Strip<T, kWidth>& q,
                          const Tile<T, kRows, kWidth>& k, int row, int key, int blocks, int masked,
                          float (&top)[2]) {
  TESSERA_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    if (b < blocks) {
      multiply<T, kWidth>(s.at[b], q, k, kStrip * b);
      finish_scores<false>(f, row, key + kStrip * b, b == masked, s.at[b]);
      TESSERA_UNROLL
      for (int e = 0; e < 8; ++e) {
        top[e / 2 % 2] = max(top[e / 2 % 2], s.at[b][e / 4].c[e % 4]);
      }
    }
  }
  top[0] = quad_max(top[0]);
  top[1] = quad_max(top[1]);
}

// sum and out take in the tile: weights ex2(score - shift) of its values. sum is the lane's part.
template <class T, int kWidth, int kBlocks, int kRows>
TESSERA_DEVICE void weigh(Row<kBlocks>& s, const Scores& f, const Tile<T, kRows, kWidth>& v,
                          int row, int key, int blocks, const float (&shift)[2], float (&sum)[2],
                          Sum<kWidth>& out) {
  TESSERA_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    if (b < blocks) {
      const Mask mask = mask_of<false>(f, row, key + kStrip * b);
      TESSERA_UNROLL
      for (int e = 0; e < 8; ++e) {
        const float weight = ex2(s.at[b][e / 4].c[e % 4] - shift[e / 2 % 2]);
        sum[e / 2 % 2] += weight;
        s.at[b][e / 4].c[e % 4] = mask.of(weight, e);
      }
      Part<T, 16, 16> weights;
      round_to(weights, s.at[b][0], s.at[b][1]);
      add_rows<T, kWidth>(out, weights, v, kStrip * b);
    }
  }
}

// A row that has seen only -inf has the maximum -inf: 0 stands for it, so that ex2 gives 0, not
// NaN.
TESSERA_DEVICE float shift_of(float top) { return top == kNever ? 0.0F : top; }

// The result of a strip and the logarithm of its rows' sums.
template <class T, int kWidth>
TESSERA_DEVICE void store_forward(const AttentionLayout& l, const Jet& jet, int head, int row,
                                  const Sum<kWidth>& sum, const float (&top)[2],
                                  const float (&weight)[2], T* out) {
  const std::int64_t first = jet.at.q0 + row;
  float factor[2];
  TESSERA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float total = quad_sum(weight[half]);
    factor[half] = jet.at.keys == 0 ? 0.0F : growth(l) / total;
    if (lane() % 4 == 0 && row + acc_row(2 * half) < jet.at.queries) {
      stg(l.kept.lse + (jet.head + head) * l.kept.queries + first + acc_row(2 * half),
          top[half] + lg2(total));
    }
  }
  const Target<T> to{out + (first * l.heads + jet.head + head) * l.width, l.heads * l.width,
                     jet.at.queries - row, static_cast<int>(l.width)};
  store_strip<kWidth>(sum, factor, to);
}

template <class T, int kWidth, int kRows>
struct ForwardSmem {
  static constexpr int kHeads = group_of<T, kWidth>(kRows);
  HeadTile<T, kHeads, kRows, kWidth> q[kHeads], k[kHeads], v[kHeads];
};

/// Blocks asked of a multiprocessor: those that the registers allow without a spill.
template <class T, int kWidth, int kRows>
constexpr int kResident = (sizeof(T) == 2 ? kWidth <= 32 : kWidth * kRows <= 1024) ? 2 : 1;

/// Where the queries, keys and values of a block's heads begin.
template <class T>
struct Inputs {
  const T *q, *k, *v;

  TESSERA_DEVICE Source<T> queries(const AttentionLayout& l, const Jet& jet) const {
    return {q + jet.at.q0 * l.q_stride + jet.head * l.width, l.q_stride, jet.at.queries, jet.heads,
            static_cast<int>(l.width)};
  }
  TESSERA_DEVICE Source<T> keys(const AttentionLayout& l, const Jet& jet) const {
    return {k + jet.at.k0 * l.kv_stride + jet.head * l.width, l.kv_stride, jet.at.keys, jet.heads,
            static_cast<int>(l.width)};
  }
  TESSERA_DEVICE Source<T> values(const AttentionLayout& l, const Jet& jet) const {
    return {v + jet.at.k0 * l.kv_stride + jet.head * l.width, l.kv_stride, jet.at.keys, jet.heads,
            static_cast<int>(l.width)};
  }
};

template <class T, int kWidth, int kRows>
TESSERA_GLOBAL void __launch_bounds__(kThreads, kResident<T, kWidth, kRows>)
    forward_kernel(Inputs<T> in, AttentionLayout l, const AttentionItem* items, T* out) {
  using Smem = ForwardSmem<T, kWidth, kRows>;
  TESSERA_SMEM(Smem, s);
  const Jet jet = jet_of(l, items, Smem::kHeads);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.q, in.queries(l, jet), 0);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.k, in.keys(l, jet), 0);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.v, in.values(l, jet), 0);
  cp_async_wait<0>();
  sync_block();
  const int strips = strips_of(jet.at.queries);
  for (int item = warp(); item < jet.heads * strips; item += kWarps) {
    const int head = item / strips;
    const int row = item % strips * kStrip;
    const Scores f(l, jet, head);
    const int blocks = f.blocks(row);
    Strip<T, kWidth> q;
    q.load_from(s.q[head], row);
    Row<kRows / kStrip> p;
    float top[2] = {kNever, kNever};
    score<T, kWidth>(p, f, q, s.k[head], row, 0, blocks, blocks - 1, top);
    const float shift[2] = {shift_of(top[0]), shift_of(top[1])};
    float sum[2] = {0, 0};
    Sum<kWidth> result;
    result.clear();
    weigh<T, kWidth>(p, f, s.v[head], row, 0, blocks, shift, sum, result);
    store_forward<T, kWidth>(l, jet, head, row, result, top, sum, out);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
