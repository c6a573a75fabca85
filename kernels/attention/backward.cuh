// Attention backward, deterministic: probabilities are recomputed twice, once for the owners of
// keys (dk, dv) and once for the owners of queries (dq, dbias), so that each gradient has one
// owner, who adds in a fixed order: seven products instead of five. With P = ex2(S - lse), mask M,
// delta = rowsum(dO O) = rowsum(P M dP):
//   dS = P (M dP - delta);  dq = scale dS k;  dk = scale dS^T q;  dv = (M P)^T dO;  dbias = dS.
// Queries beyond the last have lse = +inf: their P is 0 without a mask.
#pragma once

#include "kernels/attention/forward.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

template <class T>
struct Gradients {
  T *dq, *dk, *dv;
  float* dbias;
};

// delta of rows [first, first + kRows) of the result, whose gradient is in the tiles.
template <class T, int kHeads, int kRows, int kWidth>
TESSERA_DEVICE void row_deltas(float (&delta)[kHeads][kRows],
                               const HeadTile<T, kHeads, kRows, kWidth> (&dout)[kHeads],
                               const Source<T>& out, int first) {
  constexpr int kUnits = kWidth / kUnit<T>;  // lanes of a row
  const bool whole = is_whole<kWidth>(out);
  const int filled = kStrip * strips_of(out.rows - first);
  for_each_unit<T, kHeads, kWidth>(
      filled < kRows ? filled : kRows, [&](int row, int head, int unit) {
        float sum = 0;
        if (head < out.heads && first + row < out.rows) {
          float x[kUnit<T>];
          float y[kUnit<T>];
          read_unit(x, unit_at(out, first + row, head, unit), out.width - unit * kUnit<T>, whole);
          get_unit(y, dout[head], row, unit);
          TESSERA_UNROLL
          for (int e = 0; e < kUnit<T>; ++e) {
            sum = fma(x[e], y[e], sum);
          }
        }
        TESSERA_UNROLL
        for (int step = kUnits / 2; step > 0; step /= 2) {
          sum += shfl_xor(sum, step);
        }
        if (unit == 0) {
          delta[head][row] = sum;
        }
      });
}

// Of rows [first, first + kRows) of a number a row and head, `beyond` where there is none.
template <int kHeads, int kRows>
TESSERA_DEVICE void load_numbers(float (&to)[kHeads][kRows], const float* from,
                                 const AttentionLayout& l, const Jet& jet, int first,
                                 float beyond) {
  for (int i = linear_thread(); i < kHeads * kRows; i += kThreads) {
    const int head = i / kRows;
    const int row = first + i % kRows;
    const bool there = head < jet.heads && row < jet.at.queries;
    to[head][i % kRows] =
        there ? ldg(from + (jet.head + head) * l.kept.queries + jet.at.q0 + row) : beyond;
  }
}

/// 16 keys and their gradients so far.
template <class T, int kWidth>
struct KeyStrip {
  Strip<T, kWidth> k, v;
  Sum<kWidth> dk, dv;
};

// Rows are keys, columns queries: M P in place of the products k q^T, dS in place of v dO^T. lse
// and delta are those of the block's queries.
TESSERA_DEVICE void key_slopes(const Scores& f, int key, int query, bool masked, const float* lse,
                               const float* delta, Block& p, Block& ds) {
  finish_scores<true>(f, key, query, masked, p);
  const Mask mask = mask_of<true>(f, key, query);
  const float grow = growth(f.l);
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    const float share = ex2(p[e / 4].c[e % 4] - lse[block_column(e)]);
    const float slope = mask.of(ds[e / 4].c[e % 4], e) * grow;
    ds[e / 4].c[e % 4] = share * (slope - delta[block_column(e)]);
    p[e / 4].c[e % 4] = mask.of(share, e);
  }
}

// Takes in the queries of blocks [begin, end) of tiles whose first query is `query`.
template <class T, int kWidth, int kRows>
TESSERA_DEVICE void take_queries(KeyStrip<T, kWidth>& mine, const Scores& f,
                                 const Tile<T, kRows, kWidth>& q,
                                 const Tile<T, kRows, kWidth>& dout, const float* lse,
                                 const float* delta, int key, int query, int begin, int end) {
  TESSERA_KEEP_ROLLED
  for (int b = begin; b < end; ++b) {
    Block p;
    Block ds;
    multiply<T, kWidth>(p, mine.k, q, kStrip * b);
    multiply<T, kWidth>(ds, mine.v, dout, kStrip * b);
    const int first = query + kStrip * b;
    key_slopes(f, key, first, f.causal && first == key, lse + kStrip * b, delta + kStrip * b, p,
               ds);
    Part<T, 16, 16> weights;
    round_to(weights, p[0], p[1]);
    add_rows<T, kWidth>(mine.dv, weights, dout, kStrip * b);
    round_to(weights, ds[0], ds[1]);
    add_rows<T, kWidth>(mine.dk, weights, q, kStrip * b);
  }
}

template <class T, int kWidth>
TESSERA_DEVICE void store_keys(const KeyStrip<T, kWidth>& mine, const AttentionLayout& l,
                               const Jet& jet, int head, int key, const Gradients<T>& g) {
  const std::int64_t at = (jet.at.k0 + key) * l.kv_stride + (jet.head + head) * l.width;
  const int rows = jet.at.keys - key;
  const int width = static_cast<int>(l.width);
  const float scale[2] = {l.scale, l.scale};
  const float grow[2] = {growth(l), growth(l)};
  store_strip<kWidth>(mine.dk, scale, Target<T>{g.dk + at, l.kv_stride, rows, width});
  store_strip<kWidth>(mine.dv, grow, Target<T>{g.dv + at, l.kv_stride, rows, width});
}

/// 16 queries and their gradient so far; lse and delta of the lane's two rows.
template <class T, int kWidth>
struct QueryStrip {
  Strip<T, kWidth> q, dout;
  Sum<kWidth> dq;
  float lse[2], delta[2];

  TESSERA_DEVICE void rows_from(const float* all_lse, const float* all_delta) {
    TESSERA_UNROLL
    for (int half = 0; half < 2; ++half) {
      lse[half] = all_lse[acc_row(2 * half)];
      delta[half] = all_delta[acc_row(2 * half)];
    }
  }
};

// dS in place of the products q k^T.
TESSERA_DEVICE void query_slopes(const Scores& f, int query, int key, bool masked,
                                 const float (&lse)[2], const float (&delta)[2], const Block& dp,
                                 Block& s) {
  finish_scores<false>(f, query, key, masked, s);
  const Mask mask = mask_of<false>(f, query, key);
  const float grow = growth(f.l);
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    const int half = e / 2 % 2;
    const float slope = mask.of(dp[e / 4].c[e % 4], e) * grow;
    s[e / 4].c[e % 4] = ex2(s[e / 4].c[e % 4] - lse[half]) * (slope - delta[half]);
  }
}

// dbias of a block: dS, or zeros of what no query sees.
TESSERA_DEVICE void store_bias_gradient(const Scores& f, int query, int key, const Block& ds,
                                        float* dbias) {
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    const int i = query + block_row(e);
    const int j = key + block_column(e);
    if (f.inside(i, j)) {
      stg(dbias + f.pair(i, j), ds[e / 4].c[e % 4]);
    }
  }
}

// Takes in the keys of the first `blocks` blocks of tiles whose first key is `key`.
template <class T, int kWidth, int kRows>
TESSERA_DEVICE void take_keys(QueryStrip<T, kWidth>& mine, const Scores& f,
                              const Tile<T, kRows, kWidth>& k, const Tile<T, kRows, kWidth>& v,
                              int query, int key, int blocks, int masked, float* dbias) {
  TESSERA_KEEP_ROLLED
  for (int b = 0; b < blocks; ++b) {
    Block ds;
    Block dp;
    multiply<T, kWidth>(ds, mine.q, k, kStrip * b);
    multiply<T, kWidth>(dp, mine.dout, v, kStrip * b);
    query_slopes(f, query, key + kStrip * b, b == masked, mine.lse, mine.delta, dp, ds);
    if (dbias != nullptr) {
      store_bias_gradient(f, query, key + kStrip * b, ds, dbias);
    }
    Part<T, 16, 16> weights;
    round_to(weights, ds[0], ds[1]);
    add_rows<T, kWidth>(mine.dq, weights, k, kStrip * b);
  }
}

template <class T, int kWidth>
TESSERA_DEVICE void store_queries(const QueryStrip<T, kWidth>& mine, const Scores& f,
                                  const Jet& jet, int head, int query, const Gradients<T>& g) {
  const float scale[2] = {f.l.scale, f.l.scale};
  const std::int64_t at = (jet.at.q0 + query) * f.l.q_stride + (jet.head + head) * f.l.width;
  store_strip<kWidth>(
      mine.dq, scale,
      Target<T>{g.dq + at, f.l.q_stride, jet.at.queries - query, static_cast<int>(f.l.width)});
  if (g.dbias != nullptr) {
    const Block none{};
    for (int b = f.blocks(query); b < strips_of(jet.at.keys); ++b) {
      store_bias_gradient(f, query, kStrip * b, none, g.dbias);
    }
  }
}

/// Rows of the result, or of its gradient.
template <class T>
TESSERA_DEVICE Source<T> results(const T* data, const AttentionLayout& l, const Jet& jet) {
  return {data + (jet.at.q0 * l.heads + jet.head) * l.width, l.heads * l.width, jet.at.queries,
          jet.heads, static_cast<int>(l.width)};
}

template <class T, int kWidth, int kRows>
struct BackwardSmem {
  static constexpr int kHeads = group_of<T, kWidth>(kRows);
  HeadTile<T, kHeads, kRows, kWidth> q[kHeads], k[kHeads], v[kHeads], dout[kHeads];
  float lse[kHeads][kRows], delta[kHeads][kRows];
};

// Whole segments: everything is read once.
template <class T, int kWidth, int kRows>
TESSERA_GLOBAL void __launch_bounds__(kThreads, kResident<T, kWidth, kAttentionBlock>)
    backward_kernel(Inputs<T> in, const T* dout, AttentionLayout l, const AttentionItem* items,
                    Gradients<T> g) {
  using Smem = BackwardSmem<T, kWidth, kRows>;
  TESSERA_SMEM(Smem, s);
  const Jet jet = jet_of(l, items, Smem::kHeads);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.dout, results(dout, l, jet), 0);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.q, in.queries(l, jet), 0);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.k, in.keys(l, jet), 0);
  load_rows<T, Smem::kHeads, kRows, kWidth>(s.v, in.values(l, jet), 0);
  load_numbers(s.lse, l.kept.lse, l, jet, 0, -kNever);
  cp_async_wait<0>();
  sync_block();
  const Source<T> out = results(static_cast<const T*>(l.kept.out), l, jet);
  row_deltas<T, Smem::kHeads, kRows, kWidth>(s.delta, s.dout, out, 0);
  sync_block();
  const int key_strips = strips_of(jet.at.keys);
  const int query_strips = strips_of(jet.at.queries);
  const int strips = key_strips + query_strips;
  for (int item = warp(); item < jet.heads * strips; item += kWarps) {
    const int head = item / strips;
    const int strip = item % strips;
    const Scores f(l, jet, head);
    if (strip < key_strips) {
      const int key = kStrip * strip;
      KeyStrip<T, kWidth> mine;
      mine.k.load_from(s.k[head], key);
      mine.v.load_from(s.v[head], key);
      mine.dk.clear();
      mine.dv.clear();
      take_queries<T, kWidth>(mine, f, s.q[head], s.dout[head], s.lse[head], s.delta[head], key, 0,
                              f.causal ? strip : 0, query_strips);
      store_keys(mine, l, jet, head, key, g);
    } else {
      const int query = kStrip * (strip - key_strips);
      QueryStrip<T, kWidth> mine;
      mine.q.load_from(s.q[head], query);
      mine.dout.load_from(s.dout[head], query);
      mine.dq.clear();
      mine.rows_from(s.lse[head] + query, s.delta[head] + query);
      const int blocks = f.blocks(query);
      take_keys<T, kWidth>(mine, f, s.k[head], s.v[head], query, 0, blocks, blocks - 1, g.dbias);
      store_queries(mine, f, jet, head, query, g);
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
