// Segments longer than a block's 128 rows: a block has 128 queries (or keys) of one head, the
// others pass through shared memory 64 at a time, the next ones on their way while these are met.
// Forward corrects sum and result as the running maximum grows (Dao, "FlashAttention-2", 2023).
#pragma once

#include "kernels/attention/backward.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWindow = 64;
constexpr int kWindowBlocks = kWindow / kStrip;

TESSERA_DEVICE int windows_of(int rows) { return (rows + kWindow - 1) / kWindow; }
TESSERA_DEVICE int clamp(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

/// Two windows of two tensors: one is met while the other arrives.
template <class T, int kWidth>
struct Windows {
  HeadTile<T, 1, kWindow, kWidth> a[2][1], b[2][1];

  TESSERA_DEVICE void load(int window, const Source<T>& from_a, const Source<T>& from_b) {
    load_rows<T, 1, kWindow, kWidth>(a[window % 2], from_a, window * kWindow);
    load_rows<T, 1, kWindow, kWidth>(b[window % 2], from_b, window * kWindow);
  }
};

// Calls body(window) for windows [begin, end) in turn, each between two barriers; load(window)
// starts its two groups of copies.
template <class Load, class Body>
TESSERA_DEVICE void for_each_window(int begin, int end, Load load, Body body) {
  if (begin < end) {
    load(begin);
  }
  for (int window = begin; window < end; ++window) {
    if (window + 1 < end) {
      load(window + 1);
      cp_async_wait<2>();
    } else {
      cp_async_wait<0>();
    }
    sync_block();
    body(window);
    sync_block();  // the window may be overwritten
  }
}

template <class T, int kWidth>
struct LongForwardSmem {
  HeadTile<T, 1, kAttentionBlock, kWidth> q[1];
  Windows<T, kWidth> kv;
};

// The last window that the block's queries see; with dbias the others hold zeros to be written.
TESSERA_DEVICE int seen_windows(const Jet& jet) {
  const int reach = jet.part.causal != 0 && jet.part.first + kAttentionBlock < jet.at.keys
                        ? jet.part.first + kAttentionBlock
                        : jet.at.keys;
  return windows_of(reach);
}

template <class T, int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    long_forward_kernel(Inputs<T> in, AttentionLayout l, const AttentionItem* items, T* out) {
  using Smem = LongForwardSmem<T, kWidth>;
  TESSERA_SMEM(Smem, s);
  const Jet jet = jet_of(l, items, 1);
  const Scores f(l, jet, 0);
  const int row = jet.part.first + kStrip * warp();
  load_rows<T, 1, kAttentionBlock, kWidth>(s.q, in.queries(l, jet), jet.part.first);
  cp_async_wait<0>();
  sync_block();
  Strip<T, kWidth> q;
  if (row < jet.at.queries) {
    q.load_from(s.q[0], kStrip * warp());
  }
  float top[2] = {kNever, kNever};
  float sum[2] = {0, 0};
  Sum<kWidth> result;
  result.clear();
  const int seen = row < jet.at.queries ? f.blocks(row) : 0;
  const Source<T> keys = in.keys(l, jet);
  const Source<T> values = in.values(l, jet);
  const auto load = [&](int window) { s.kv.load(window, keys, values); };
  for_each_window(0, seen_windows(jet), load, [&](int window) {
    const int before = window * kWindowBlocks;
    const int blocks = clamp(seen - before, 0, kWindowBlocks);
    if (blocks == 0) {
      return;
    }
    Row<kWindowBlocks> p;
    float shrink[2] = {top[0], top[1]};
    score<T, kWidth>(p, f, q, s.kv.a[window % 2][0], row, window * kWindow, blocks,
                     seen - 1 - before, top);
    const float shift[2] = {shift_of(top[0]), shift_of(top[1])};
    TESSERA_UNROLL
    for (int half = 0; half < 2; ++half) {
      shrink[half] = ex2(shrink[half] - shift[half]);
      sum[half] *= shrink[half];
    }
    TESSERA_UNROLL
    for (int e = 0; e < kWidth / 2; ++e) {
      result.at[e / 4].c[e % 4] *= shrink[e / 2 % 2];
    }
    weigh<T, kWidth>(p, f, s.kv.b[window % 2][0], row, window * kWindow, blocks, shift, sum,
                     result);
  });
  if (row < jet.at.queries) {
    store_forward<T, kWidth>(l, jet, 0, row, result, top, sum, out);
  }
}

template <class T, int kWidth>
struct LongQuerySmem {
  HeadTile<T, 1, kAttentionBlock, kWidth> q[1], dout[1];
  Windows<T, kWidth> kv;
  float lse[1][kAttentionBlock], delta[1][kAttentionBlock];
};

// Owners of queries; keeps delta for the owners of keys.
template <class T, int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    long_query_kernel(Inputs<T> in, const T* dout, AttentionLayout l, const AttentionItem* items,
                      Gradients<T> g) {
  using Smem = LongQuerySmem<T, kWidth>;
  TESSERA_SMEM(Smem, s);
  const Jet jet = jet_of(l, items, 1);
  const Scores f(l, jet, 0);
  const int first = jet.part.first;
  const int strip = kStrip * warp();
  const int query = first + strip;
  load_rows<T, 1, kAttentionBlock, kWidth>(s.q, in.queries(l, jet), first);
  load_rows<T, 1, kAttentionBlock, kWidth>(s.dout, results(dout, l, jet), first);
  load_numbers(s.lse, l.kept.lse, l, jet, first, -kNever);
  cp_async_wait<0>();
  sync_block();
  const Source<T> out = results(static_cast<const T*>(l.kept.out), l, jet);
  row_deltas<T, 1, kAttentionBlock, kWidth>(s.delta, s.dout, out, first);
  sync_block();
  const int mine_at = first + linear_thread();
  if (linear_thread() < kAttentionBlock && mine_at < jet.at.queries) {
    stg(l.kept.delta + jet.head * l.kept.queries + jet.at.q0 + mine_at,
        s.delta[0][linear_thread()]);
  }
  QueryStrip<T, kWidth> mine;
  mine.dq.clear();
  int seen = 0;
  if (query < jet.at.queries) {
    seen = f.blocks(query);
    mine.q.load_from(s.q[0], strip);
    mine.dout.load_from(s.dout[0], strip);
    mine.rows_from(s.lse[0] + strip, s.delta[0] + strip);
  }
  const Source<T> keys = in.keys(l, jet);
  const Source<T> values = in.values(l, jet);
  const auto load = [&](int window) { s.kv.load(window, keys, values); };
  for_each_window(0, seen_windows(jet), load, [&](int window) {
    const int before = window * kWindowBlocks;
    take_keys<T, kWidth>(mine, f, s.kv.a[window % 2][0], s.kv.b[window % 2][0], query,
                         window * kWindow, clamp(seen - before, 0, kWindowBlocks),
                         seen - 1 - before, g.dbias);
  });
  if (query < jet.at.queries) {
    store_queries(mine, f, jet, 0, query, g);
  }
}

template <class T, int kWidth>
struct LongKeySmem {
  HeadTile<T, 1, kAttentionBlock, kWidth> k[1], v[1];
  Windows<T, kWidth> queries;
  float lse[2][1][kWindow], delta[2][1][kWindow];
};

// Owners of keys.
template <class T, int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    long_key_kernel(Inputs<T> in, const T* dout, AttentionLayout l, const AttentionItem* items,
                    Gradients<T> g) {
  using Smem = LongKeySmem<T, kWidth>;
  TESSERA_SMEM(Smem, s);
  const Jet jet = jet_of(l, items, 1);
  const Scores f(l, jet, 0);
  const int first = jet.part.first;
  const int key = first + kStrip * warp();
  load_rows<T, 1, kAttentionBlock, kWidth>(s.k, in.keys(l, jet), first);
  load_rows<T, 1, kAttentionBlock, kWidth>(s.v, in.values(l, jet), first);
  cp_async_wait<0>();
  sync_block();
  KeyStrip<T, kWidth> mine;
  mine.dk.clear();
  mine.dv.clear();
  if (key < jet.at.keys) {
    mine.k.load_from(s.k[0], kStrip * warp());
    mine.v.load_from(s.v[0], kStrip * warp());
  }
  const Source<T> queries = in.queries(l, jet);
  const Source<T> gradients = results(dout, l, jet);
  const auto load = [&](int window) {
    load_numbers(s.lse[window % 2], l.kept.lse, l, jet, window * kWindow, -kNever);
    load_numbers(s.delta[window % 2], l.kept.delta, l, jet, window * kWindow, 0.0F);
    s.queries.load(window, queries, gradients);
  };
  const int begin = f.causal ? first / kWindow : 0;  // earlier queries see no key of ours
  for_each_window(begin, windows_of(jet.at.queries), load, [&](int window) {
    if (key < jet.at.keys) {
      const int before = window * kWindowBlocks;
      take_queries<T, kWidth>(mine, f, s.queries.a[window % 2][0], s.queries.b[window % 2][0],
                              s.lse[window % 2][0], s.delta[window % 2][0], key, window * kWindow,
                              clamp(f.causal ? key / kStrip - before : 0, 0, kWindowBlocks),
                              clamp(strips_of(jet.at.queries) - before, 0, kWindowBlocks));
    }
  });
  if (key < jet.at.keys) {
    store_keys(mine, l, jet, 0, key, g);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
