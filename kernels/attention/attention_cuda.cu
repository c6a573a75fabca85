// Ragged attention, fp32, after FlashAttention-2 (Dao 2023): no score reaches memory, no atomics.
// Forward: a block owns 64 queries of one (segment, head), a warp 16 of them; keys and values pass
// through shared memory 32 at a time, the softmax is corrected as the running maximum grows. Kept:
// the result and the logarithm of each row's sum. Backward recomputes the probabilities twice, once
// for the owners of queries (dq, dbias) and once for the owners of keys (dk, dv): seven products
// instead of five, and each gradient has one owner, who adds in a fixed order.
// A lane holds 4 x 4 of a warp's 16 x 32 scores, row r + 4 i and column c + 8 j with r = lane / 8,
// c = lane % 8: rows of shared memory are 4 floats longer than the head is wide, so that the eight
// columns that 16-byte reads touch at once lie in all banks. Tensor cores would replace products()
// and add_rows(), which alone know this layout.
// The blocks asked of a multiprocessor are those that the registers allow without a spill.
// Traffic: forward 16 T H D + 4 T H bytes, backward 48 T H D and the tiles again from cache.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/attention/attention_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStrip = 16;  // rows of a warp
constexpr int kRows = kStrip * kWarps;
constexpr int kTile = 32;  // rows that meet a strip at a time
constexpr int kPad = 4;
constexpr float kLog2E = 1.44269504F;
constexpr float kNever = -__builtin_huge_valf();
static_assert(kRows == kAttentionBlock);

/// Rows of a head in shared memory.
template <int kCount, int kWidth>
struct alignas(16) Rows {
  float at[kCount][kWidth + kPad];
};

TESSERA_DEVICE int row_of(int i) { return lane() / 8 + 4 * i; }
TESSERA_DEVICE int column_of(int j) { return lane() % 8 + 8 * j; }
TESSERA_DEVICE const Float4& vector_at(const float* p) {
  return *reinterpret_cast<const Float4*>(p);
}

/// One head of the segment of an item.
struct Head {
  std::int64_t head, q0, k0;  // first rows of the segment
  std::int64_t pair;          // element of bias and dropout of pair (0, 0)
  int first, queries, keys;
  bool causal;

  TESSERA_DEVICE bool visible(int query, int key) const {
    return query < queries && key < keys && (!causal || key <= query);
  }
};

// Heads of an item are neighbouring blocks: they share the sectors of narrow rows.
TESSERA_DEVICE Head head_of(const AttentionLayout& l, const AttentionItem* items) {
  const auto heads = static_cast<unsigned>(l.heads);
  const AttentionItem item = ldg(items + block_idx().x / heads);
  const std::int64_t head = block_idx().x % heads;
  const std::int32_t q0 = ldg(l.q_offsets + item.segment);
  const std::int32_t k0 = ldg(l.kv_offsets + item.segment);
  return {head,
          q0,
          k0,
          head * ldg(l.pair_offsets + l.segments) + ldg(l.pair_offsets + item.segment),
          item.first,
          ldg(l.q_offsets + item.segment + 1) - q0,
          ldg(l.kv_offsets + item.segment + 1) - k0,
          l.causal != nullptr && ldg(l.causal + item.segment) != 0};
}

// Rows [0, kCount) of a matrix; zeros beyond `count` rows and `width` columns.
template <int kCount, int kWidth>
TESSERA_DEVICE void load_rows(Rows<kCount, kWidth>& target, const float* source,
                              std::int64_t stride, int count, std::int64_t width) {
  for (int i = linear_thread(); i < kCount * kWidth; i += kThreads) {
    const int row = i / kWidth;
    const int d = i % kWidth;
    target.at[row][d] = row < count && d < width ? ldg(source + row * stride + d) : 0.0F;
  }
}

// s = strip (16, D) times tile^T (D, 32), d ascending.
template <int kWidth>
TESSERA_DEVICE void products(const float (*strip)[kWidth + kPad], const Rows<kTile, kWidth>& tile,
                             float (&s)[4][4]) {
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    s[e / 4][e % 4] = 0;
  }
  for (int d = 0; d < kWidth; d += 4) {
    Float4 b[4];
    TESSERA_UNROLL
    for (int j = 0; j < 4; ++j) {
      b[j] = vector_at(&tile.at[column_of(j)][d]);
    }
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Float4 a = vector_at(&strip[row_of(i)][d]);
      TESSERA_UNROLL
      for (int j = 0; j < 4; ++j) {
        s[i][j] = fma(a.x, b[j].x, s[i][j]);
        s[i][j] = fma(a.y, b[j].y, s[i][j]);
        s[i][j] = fma(a.z, b[j].z, s[i][j]);
        s[i][j] = fma(a.w, b[j].w, s[i][j]);
      }
    }
  }
}

// sum (rows r + 4 i, columns c + 8 m) += weights (16, 32) times tile (32, D), rows ascending.
template <int kWidth>
TESSERA_DEVICE void add_rows(const Rows<kStrip, kTile>& weights, const Rows<kTile, kWidth>& tile,
                             float (&sum)[4][kWidth / 8]) {
  for (int k = 0; k < kTile; k += 4) {
    Float4 w[4];
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      w[i] = vector_at(&weights.at[row_of(i)][k]);
    }
    TESSERA_UNROLL
    for (int m = 0; m < kWidth / 8; ++m) {
      const float x = tile.at[k][column_of(m)];
      const float y = tile.at[k + 1][column_of(m)];
      const float z = tile.at[k + 2][column_of(m)];
      const float t = tile.at[k + 3][column_of(m)];
      TESSERA_UNROLL
      for (int i = 0; i < 4; ++i) {
        sum[i][m] = fma(w[i].x, x, sum[i][m]);
        sum[i][m] = fma(w[i].y, y, sum[i][m]);
        sum[i][m] = fma(w[i].z, z, sum[i][m]);
        sum[i][m] = fma(w[i].w, t, sum[i][m]);
      }
    }
  }
}

// The lane's part of a strip's weights, for all lanes of the warp.
TESSERA_DEVICE void share(const float (&mine)[4][4], Rows<kStrip, kTile>& weights) {
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    weights.at[row_of(e / 4)][column_of(e % 4)] = mine[e / 4][e % 4];
  }
}

// Over the eight lanes of a row, in every one of them.
TESSERA_DEVICE float row_sum(float v) {
  for (int step = 4; step > 0; step /= 2) {
    v += shfl_xor(v, step);
  }
  return v;
}
TESSERA_DEVICE float row_max(float v) {
  for (int step = 4; step > 0; step /= 2) {
    v = max(v, shfl_xor(v, step));
  }
  return v;
}

/// Scores in units of ln 2: scale and bias are folded with log2 e, so that ex2 is the exponential.
struct Scores {
  const AttentionLayout& l;
  const Head& h;

  TESSERA_DEVICE std::int64_t pair(int query, int key) const {
    return h.pair + static_cast<std::int64_t>(query) * h.keys + key;
  }
  TESSERA_DEVICE float of(float product, int query, int key) const {
    if (!h.visible(query, key)) {
      return kNever;
    }
    const float bias = l.bias == nullptr ? 0.0F : ldg(l.bias + pair(query, key)) * kLog2E;
    return fma(product, l.scale * kLog2E, bias);
  }
};

/// The dropout mask of a lane's 4 x 4 elements, a bit each.
struct Mask {
  unsigned bits;
  float factor;

  // Chosen, not multiplied: a dropped infinity is zero, not NaN.
  TESSERA_DEVICE float of(float x, int e) const {
    return (bits >> e & 1U) != 0 ? x * factor : 0.0F;
  }
};

// Rows are queries, columns keys, or the other way round. The ten rounds of a random number are in
// the program once, not sixteen times.
template <bool kTransposed>
TESSERA_DEVICE Mask mask_of(const Scores& s, int row0, int column0) {
  if (s.l.dropout == 0.0F) {
    return {0xffffU, 1.0F};
  }
  Mask mask{0, 1.0F / (1.0F - s.l.dropout)};
  TESSERA_KEEP_ROLLED
  for (int e = 0; e < 16; ++e) {
    const int row = row0 + row_of(e / 4);
    const int column = column0 + column_of(e % 4);
    const std::int64_t pair = kTransposed ? s.pair(column, row) : s.pair(row, column);
    mask.bits |= (s.l.key.uniform(static_cast<std::uint64_t>(pair)) >= s.l.dropout ? 1U : 0U) << e;
  }
  return mask;
}

// Rows r + 4 i of a strip to rows of a tensor, times a factor each.
template <int kWidth>
TESSERA_DEVICE void store_strip(const float (&sum)[4][kWidth / 8], const float (&factor)[4],
                                float* target, std::int64_t stride, int count, std::int64_t width) {
  TESSERA_UNROLL
  for (int e = 0; e < 4 * (kWidth / 8); ++e) {
    const int i = e / (kWidth / 8);
    const int m = e % (kWidth / 8);
    if (row_of(i) < count && column_of(m) < width) {
      stg(target + row_of(i) * stride + column_of(m), sum[i][m] * factor[i]);
    }
  }
}

// ---- forward ----

template <int kWidth>
struct ForwardSmem {
  Rows<kRows, kWidth> q;
  Rows<kTile, kWidth> k, v;
  Rows<kStrip, kTile> p[kWarps];
};

// The running maximum, sum (this lane's part of it) and result of four rows.
template <int kWidth>
struct Running {
  float top[4], sum[4], out[4][kWidth / 8];
};

// Takes in the scores of one tile and leaves the weights of its values in s. A row that has seen
// nothing yet, or only -inf, has the maximum -inf: 0 stands for it, so that ex2 gives 0, not NaN.
template <int kWidth>
TESSERA_DEVICE void take(Running<kWidth>& run, float (&s)[4][4]) {
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float here = row_max(max(max(s[i][0], s[i][1]), max(s[i][2], s[i][3])));
    const float top = max(run.top[i], here);
    const float shift = top == kNever ? 0.0F : top;
    const float shrink = ex2(run.top[i] - shift);
    run.top[i] = top;
    run.sum[i] *= shrink;
    TESSERA_UNROLL
    for (int m = 0; m < kWidth / 8; ++m) {
      run.out[i][m] *= shrink;
    }
    TESSERA_UNROLL
    for (int j = 0; j < 4; ++j) {
      s[i][j] = ex2(s[i][j] - shift);
      run.sum[i] += s[i][j];
    }
  }
}

template <int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 3)
    forward_kernel(const float* q, const float* k, const float* v, AttentionLayout l, float* out) {
  TESSERA_SMEM(ForwardSmem<kWidth>, s);
  const Head h = head_of(l, l.kept.q_items);
  const Scores scores{l, h};
  const std::int64_t at = h.head * l.width;
  const int mine = h.first + kStrip * warp();  // first query of the warp
  load_rows(s.q, q + (h.q0 + h.first) * l.q_stride + at, l.q_stride, h.queries - h.first, l.width);
  Running<kWidth> run;
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    run.top[i] = kNever;
    run.sum[i] = 0;
    TESSERA_UNROLL
    for (int m = 0; m < kWidth / 8; ++m) {
      run.out[i][m] = 0;
    }
  }
  const int end = h.causal && h.first + kRows < h.keys ? h.first + kRows : h.keys;
  for (int key = 0; key < end; key += kTile) {
    const std::int64_t row = (h.k0 + key) * l.kv_stride + at;
    load_rows(s.k, k + row, l.kv_stride, h.keys - key, l.width);
    load_rows(s.v, v + row, l.kv_stride, h.keys - key, l.width);
    sync_block();
    if (mine < h.queries && !(h.causal && key >= mine + kStrip)) {
      float p[4][4];
      products(&s.q.at[kStrip * warp()], s.k, p);
      TESSERA_UNROLL
      for (int e = 0; e < 16; ++e) {
        p[e / 4][e % 4] = scores.of(p[e / 4][e % 4], mine + row_of(e / 4), key + column_of(e % 4));
      }
      take(run, p);
      const Mask mask = mask_of<false>(scores, mine, key);
      TESSERA_UNROLL
      for (int e = 0; e < 16; ++e) {
        p[e / 4][e % 4] = mask.of(p[e / 4][e % 4], e);
      }
      share(p, s.p[warp()]);
      sync_warp();
      add_rows(s.p[warp()], s.v, run.out);
    }
    sync_block();  // the tile may be overwritten
  }
  float factor[4];
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float sum = row_sum(run.sum[i]);
    factor[i] = h.keys == 0 ? 0.0F : 1.0F / sum;
    if (lane() % 8 == 0 && mine + row_of(i) < h.queries) {
      stg(l.kept.lse + (h.q0 + mine + row_of(i)) * l.heads + h.head, run.top[i] + lg2(sum));
    }
  }
  store_strip<kWidth>(run.out, factor, out + (h.q0 + mine) * l.heads * l.width + at,
                      l.heads * l.width, h.queries - mine, l.width);
}

// ---- backward ----
// With P = ex2(S - lse), mask M, delta = rowsum(dO O) = rowsum(P M dP):
//   dS = P (M dP - delta);  dq = scale dS k;  dk = scale dS^T q;  dv = (M P)^T dO;  dbias = dS.

template <int kWidth>
struct QuerySmem {
  Rows<kRows, kWidth> q, dout;
  Rows<kTile, kWidth> k, v;
  Rows<kStrip, kTile> ds[kWarps];
};

struct Gradients {
  float *dq, *dk, *dv, *dbias;
};

// delta of the lane's four rows, kept for the owners of keys.
template <int kWidth>
TESSERA_DEVICE void row_deltas(const AttentionLayout& l, const Head& h, int mine,
                               const float (*dout)[kWidth + kPad], float (&delta)[4]) {
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = (h.q0 + mine + row_of(i)) * l.heads + h.head;
    const bool there = mine + row_of(i) < h.queries;
    float sum = 0;
    TESSERA_UNROLL
    for (int m = 0; m < kWidth / 8; ++m) {
      if (there && column_of(m) < l.width) {
        sum =
            fma(dout[row_of(i)][column_of(m)], ldg(l.kept.out + row * l.width + column_of(m)), sum);
      }
    }
    delta[i] = row_sum(sum);
    if (there && lane() % 8 == 0) {
      stg(l.kept.delta + row, delta[i]);
    }
  }
}

// dS of the lane's part of a tile of keys, in place of the products q k^T; dbias on the way.
TESSERA_DEVICE void query_slopes(const Scores& f, int query0, int key0, const float (&lse)[4],
                                 const float (&delta)[4], const float (&dp)[4][4], float* dbias,
                                 float (&s)[4][4]) {
  const Mask mask = mask_of<false>(f, query0, key0);
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    const int i = e / 4;
    const int query = query0 + row_of(i);
    const int key = key0 + column_of(e % 4);
    const float p = ex2(f.of(s[i][e % 4], query, key) - lse[i]);
    const bool seen = f.h.visible(query, key);
    s[i][e % 4] = seen ? p * (mask.of(dp[i][e % 4], e) - delta[i]) : 0.0F;
    if (dbias != nullptr && query < f.h.queries && key < f.h.keys) {
      stg(dbias + f.pair(query, key), s[i][e % 4]);
    }
  }
}

template <int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, kWidth > 32 ? 2 : 3)
    query_kernel(const float* q, const float* k, const float* v, const float* dout,
                 AttentionLayout l, Gradients g) {
  TESSERA_SMEM(QuerySmem<kWidth>, s);
  const Head h = head_of(l, l.kept.q_items);
  const std::int64_t at = h.head * l.width;
  const std::int64_t out_stride = l.heads * l.width;
  const int strip = kStrip * warp();
  const int mine = h.first + strip;
  load_rows(s.q, q + (h.q0 + h.first) * l.q_stride + at, l.q_stride, h.queries - h.first, l.width);
  load_rows(s.dout, dout + (h.q0 + h.first) * out_stride + at, out_stride, h.queries - h.first,
            l.width);
  sync_block();
  float delta[4];
  row_deltas<kWidth>(l, h, mine, &s.dout.at[strip], delta);
  float lse[4];
  float factor[4];
  float sum[4][kWidth / 8] = {};
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const bool there = mine + row_of(i) < h.queries;
    lse[i] = there ? ldg(l.kept.lse + (h.q0 + mine + row_of(i)) * l.heads + h.head) : 0.0F;
    factor[i] = l.scale;
  }
  // dbias of what a causal query does not see is zero and is written as well.
  const bool cut = h.causal && g.dbias == nullptr && h.first + kRows < h.keys;
  const int end = cut ? h.first + kRows : h.keys;
  for (int key = 0; key < end; key += kTile) {
    const std::int64_t row = (h.k0 + key) * l.kv_stride + at;
    load_rows(s.k, k + row, l.kv_stride, h.keys - key, l.width);
    load_rows(s.v, v + row, l.kv_stride, h.keys - key, l.width);
    sync_block();
    if (mine < h.queries) {
      float slope[4][4];
      float dp[4][4];
      products(&s.q.at[strip], s.k, slope);
      products(&s.dout.at[strip], s.v, dp);
      query_slopes({l, h}, mine, key, lse, delta, dp, g.dbias, slope);
      share(slope, s.ds[warp()]);
      sync_warp();
      add_rows(s.ds[warp()], s.k, sum);
    }
    sync_block();  // the tile may be overwritten
  }
  store_strip<kWidth>(sum, factor, g.dq + (h.q0 + mine) * l.q_stride + at, l.q_stride,
                      h.queries - mine, l.width);
}

template <int kWidth>
struct KeySmem {
  Rows<kRows, kWidth> k, v;
  Rows<kTile, kWidth> q, dout;
  Rows<kStrip, kTile> p[kWarps], ds[kWarps];
  float lse[kTile], delta[kTile];
};

// Transposed: rows are keys, columns queries. M P in place of the products k q^T, dS of v dO^T.
TESSERA_DEVICE void key_slopes(const Scores& f, int query0, int key0, const float (&lse)[kTile],
                               const float (&delta)[kTile], float (&p)[4][4], float (&ds)[4][4]) {
  const Mask mask = mask_of<true>(f, key0, query0);
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    const int i = e / 4;
    const int j = e % 4;
    const int query = query0 + column_of(j);
    const int key = key0 + row_of(i);
    const float share = ex2(f.of(p[i][j], query, key) - lse[column_of(j)]);
    const bool seen = f.h.visible(query, key);
    p[i][j] = seen ? mask.of(share, e) : 0.0F;
    ds[i][j] = seen ? share * (mask.of(ds[i][j], e) - delta[column_of(j)]) : 0.0F;
  }
}

template <int kWidth>
TESSERA_GLOBAL void __launch_bounds__(kThreads, kWidth > 32 ? 2 : 3)
    key_kernel(const float* q, const float* k, const float* v, const float* dout, AttentionLayout l,
               Gradients g) {
  TESSERA_SMEM(KeySmem<kWidth>, s);
  const Head h = head_of(l, l.kept.k_items);
  const std::int64_t at = h.head * l.width;
  const std::int64_t out_stride = l.heads * l.width;
  const int strip = kStrip * warp();
  const int mine = h.first + strip;  // first key of the warp
  const std::int64_t first_row = (h.k0 + h.first) * l.kv_stride + at;
  load_rows(s.k, k + first_row, l.kv_stride, h.keys - h.first, l.width);
  load_rows(s.v, v + first_row, l.kv_stride, h.keys - h.first, l.width);
  float dk[4][kWidth / 8] = {};
  float dv[4][kWidth / 8] = {};
  const int begin = h.causal ? h.first / kTile * kTile : 0;  // earlier queries see no key of ours
  for (int query = begin; query < h.queries; query += kTile) {
    const std::int64_t row = h.q0 + query;
    load_rows(s.q, q + row * l.q_stride + at, l.q_stride, h.queries - query, l.width);
    load_rows(s.dout, dout + row * out_stride + at, out_stride, h.queries - query, l.width);
    if (linear_thread() < kTile) {
      const bool there = query + linear_thread() < h.queries;
      const std::int64_t from = (row + linear_thread()) * l.heads + h.head;
      s.lse[linear_thread()] = there ? ldg(l.kept.lse + from) : 0.0F;
      s.delta[linear_thread()] = there ? ldg(l.kept.delta + from) : 0.0F;
    }
    sync_block();
    if (mine < h.keys) {
      float p[4][4];
      float ds[4][4];
      products(&s.k.at[strip], s.q, p);
      products(&s.v.at[strip], s.dout, ds);
      key_slopes({l, h}, query, mine, s.lse, s.delta, p, ds);
      share(p, s.p[warp()]);
      share(ds, s.ds[warp()]);
      sync_warp();
      add_rows(s.p[warp()], s.dout, dv);
      add_rows(s.ds[warp()], s.q, dk);
    }
    sync_block();  // the tile may be overwritten
  }
  const float one[4] = {1, 1, 1, 1};
  const float scale[4] = {l.scale, l.scale, l.scale, l.scale};
  const std::int64_t target = (h.k0 + mine) * l.kv_stride + at;
  store_strip<kWidth>(dk, scale, g.dk + target, l.kv_stride, h.keys - mine, l.width);
  store_strip<kWidth>(dv, one, g.dv + target, l.kv_stride, h.keys - mine, l.width);
}

// Calls body with the width of a head rounded up, as a constant.
template <class Body>
void with_width(std::int64_t width, Body body) {
  if (width <= 8) {
    body(std::integral_constant<int, 8>{});
  } else if (width <= 16) {
    body(std::integral_constant<int, 16>{});
  } else if (width <= 32) {
    body(std::integral_constant<int, 32>{});
  } else if (width <= 64) {
    body(std::integral_constant<int, 64>{});
  } else {
    tessera::detail::throw_no_kernel("attention with heads wider than 64", kDevice);
  }
}

LaunchConfig config_of(const char* name, std::int64_t items, std::int64_t heads, std::size_t smem,
                       Stream stream) {
  return {name, {static_cast<unsigned>(items * heads)}, {kThreads}, smem, stream};
}

}  // namespace

void attention_forward(const float* q, const float* k, const float* v, AttentionLayout l,
                       float* out, Stream stream) {
  if (l.kept.q_item_count * l.heads == 0) {
    return;
  }
  with_width(l.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch(forward_kernel<kWidth>,
           config_of("attention_forward", l.kept.q_item_count, l.heads, sizeof(ForwardSmem<kWidth>),
                     stream),
           q, k, v, l, out);
  });
}

void attention_backward(const float* q, const float* k, const float* v, const float* dout,
                        AttentionLayout l, float* dq, float* dk, float* dv, float* dbias,
                        Stream stream) {
  const Gradients g{dq, dk, dv, dbias};
  with_width(l.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    if (l.kept.q_item_count * l.heads > 0) {
      launch(query_kernel<kWidth>,
             config_of("attention_backward_queries", l.kept.q_item_count, l.heads,
                       sizeof(QuerySmem<kWidth>), stream),
             q, k, v, dout, l, g);
    }
    if (l.kept.k_item_count * l.heads > 0) {
      launch(key_kernel<kWidth>,
             config_of("attention_backward_keys", l.kept.k_item_count, l.heads,
                       sizeof(KeySmem<kWidth>), stream),
             q, k, v, dout, l, g);
    }
  });
}

}  // namespace tessera::TESSERA_GPU_NS
