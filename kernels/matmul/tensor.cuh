// GEMM on tensor cores. f32 is multiplied as f32, in three products of tf32 (core/gpu/tile.cuh):
// exact to a few 1e-7 for any length of the sum, at a sixth of the bf16 rate: on an H100 1.5 times
// that of fma, so that L2 sets the predicted time (51,200 rows, 256 -> 1024 and back: 0.83 ms). At
// precision bf16 operands are rounded and one product is made. A block of eight warps makes a 128 x
// 64 tile of c, a warp 32 x 32 of it; the next step of 32 along k is on its way to registers while
// this one is multiplied.
#pragma once

#include "core/gpu/tile.cuh"
#include "kernels/matmul/epilogue.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = GemmPlan::kRows;  // of c
constexpr int kTileColumns = GemmPlan::kColumns;
constexpr int kDepth = GemmPlan::kStep;  // of k in a step
constexpr int kWarps = kThreads / 32;

/// f32 in shared memory: lines, k along each, one unit more, so that the stride is odd.
template <int kLines>
struct alignas(16) FloatLines {
  float at[kLines][kDepth + 4];

  TESSERA_DEVICE const float* unit(int line, int u) const { return &at[line][4 * u]; }
};

/// How operands lie in shared memory and in registers, those of kColumns of k in a fragment,
/// kTogether of them in a step. Padded, since lanes also write down a column.
struct Whole {
  static constexpr int kColumns = 8;
  static constexpr int kTogether = 1;  // in registers: more would spill
  template <int kLines>
  using Lines = FloatLines<kLines>;
  using Fragment = FloatFrag<16, 8>;
};
struct Rounded {
  static constexpr int kColumns = 16;
  static constexpr int kTogether = 2;
  template <int kLines>
  using Lines = SmemTile<kLines, kDepth, Padded>;
  using Fragment = Frag<16, 16>;
};

template <class Form>
struct TensorSmem {
  typename Form::template Lines<kTileRows> a;
  typename Form::template Lines<kTileColumns> b;
};

/// Where an element goes.
struct Place {
  int line, k;
};

// Two elements as they are multiplied.
template <int kLines>
TESSERA_DEVICE void put_pair(FloatLines<kLines>& tile, const Place (&to)[2], float x, float y) {
  tile.at[to[0].line][to[0].k] = x;
  tile.at[to[1].line][to[1].k] = y;
}
template <int kLines>
TESSERA_DEVICE void put_pair(SmemTile<kLines, kDepth, Padded>& tile, const Place (&to)[2], float x,
                             float y) {
  const std::uint32_t pair = pack_bf16x2(x, y);
  TESSERA_UNROLL
  for (int i = 0; i < 2; ++i) {
    tile.bits[to[i].line][to[i].k] = static_cast<std::uint16_t>(pair >> 16 * i);
  }
}

/// What is left of one operand from a thread's first element on: lines outside, k inside.
template <class T>
struct Rest {
  const T* at;
  std::int64_t outer, inner;
  int depth, lines;
};

/// A thread's part of a step of one operand. kAlongK: the unit stride is that of k. Neighbouring
/// lanes follow the unit stride; items lie at fixed distances from the first.
template <class T, int kLines, bool kAlongK>
struct Piece {
  static constexpr int kItems = kLines * kDepth / kThreads;
  static constexpr int kGroups = kLines / 32;
  float x[kItems];

  TESSERA_DEVICE static int first_line() { return kAlongK ? warp() : lane(); }
  TESSERA_DEVICE static int first_depth() { return kAlongK ? lane() : warp(); }
  TESSERA_DEVICE static constexpr int line_of(int i) {
    return kAlongK ? kWarps * i : 32 * (i % kGroups);
  }
  TESSERA_DEVICE static constexpr int depth_of(int i) {
    return kAlongK ? 0 : kWarps * (i / kGroups);
  }
  // The thread's first element of lines [first, count) of an operand, k of them each.
  TESSERA_DEVICE static Rest<T> rest(const T* data, std::int64_t outer, std::int64_t inner,
                                     std::int64_t first, std::int64_t count, std::int64_t k) {
    const std::int64_t lines = count - first < kLines ? count - first : kLines;
    return {data + (first + first_line()) * outer + first_depth() * inner, outer, inner,
            static_cast<int>(k) - first_depth(), static_cast<int>(lines) - first_line()};
  }
  // The items of the step that begins at the rest, which moves on to the next.
  TESSERA_DEVICE void fetch(Rest<T>& from) {
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      const bool there = line_of(i) < from.lines && depth_of(i) < from.depth;
      const T* at = from.at + line_of(i) * from.outer + depth_of(i) * from.inner;
      x[i] = there ? static_cast<float>(ldg(at)) : 0.0F;
    }
    from.at += kDepth * from.inner;
    from.depth -= kDepth;
  }
  template <class Tile>
  TESSERA_DEVICE void put(Tile& tile) const {
    TESSERA_UNROLL
    for (int i = 0; i < kItems; i += 2) {
      const Place to[2] = {{first_line() + line_of(i), first_depth() + depth_of(i)},
                           {first_line() + line_of(i + 1), first_depth() + depth_of(i + 1)}};
      put_pair(tile, to, x[i], x[i + 1]);
    }
  }
};

/// A warp's 32 x 32 of c: two strips of 16 rows by four of 8 columns.
using WarpTile = Acc<16, 8>[2][4];

// Place of element e of accumulator (strip, part).
TESSERA_DEVICE int tile_row(int strip, int e) { return 16 * strip + acc_row(e); }
TESSERA_DEVICE int tile_column(int part, int e) { return 8 * part + acc_column(e); }

// Four accumulators += two strips of a times two parts of b: four in turn, so that none waits for
// itself.
TESSERA_DEVICE void multiply_four(WarpTile& sum, int j, const Frag<16, 16> (&a)[2],
                                  const Frag<16, 16>& b) {
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    mma(sum[e / 2][j + e % 2], a[e / 2], b.rows(e % 2));
  }
}
TESSERA_DEVICE void multiply_four(WarpTile& sum, int j, const FloatFrag<16, 8> (&a)[2],
                                  const FloatFrag<16, 8>& b) {
  const FloatFrag<8, 8> parts[2] = {b.rows(0), b.rows(1)};
  add_products([&](int i, int part) -> Acc<16, 8>& { return sum[i][j + part]; }, a, parts);
}

// sum += a b over the columns of the fragments of a step.
template <class Form>
TESSERA_DEVICE void multiply_step(const TensorSmem<Form>& s, int row, int column, int k,
                                  WarpTile& sum) {
  TESSERA_UNROLL
  for (int end = k + Form::kColumns * Form::kTogether; k < end; k += Form::kColumns) {
    typename Form::Fragment a[2];
    load(a[0], s.a, row, k);
    load(a[1], s.a, row + 16, k);
    TESSERA_UNROLL
    for (int j = 0; j < 4; j += 2) {
      typename Form::Fragment b;
      load(b, s.b, column + 8 * j, k);
      multiply_four(sum, j, a, b);
    }
  }
}

// Block (tile, part): the part's stretch of k. c is that of the part; only a lone part has an
// epilogue that does anything.
template <class Form, bool kAlongA, bool kAlongB, class A, class B, class C>
TESSERA_DEVICE void make_tile(OperandOf<A> a, OperandOf<B> b, View<C, 2> c, std::int64_t k,
                              std::int64_t depth, const EpilogueOf<C>& epilogue) {
  TESSERA_SMEM(TensorSmem<Form>, s);
  const std::int64_t part = block_idx().y;
  const std::int64_t begin = part * depth;
  k = k - begin < depth ? k - begin : depth;
  a.data += begin * a.col;
  b.data += begin * b.row;
  c.data += part * c.shape[0] * c.shape[1];
  const std::int64_t tiles = (c.shape[1] + kTileColumns - 1) / kTileColumns;
  const std::int64_t top = block_idx().x / tiles * kTileRows;
  const std::int64_t left = block_idx().x % tiles * kTileColumns;
  const int row = warp() / 2 * 32;
  const int column = warp() % 2 * 32;
  using PieceA = Piece<A, kTileRows, kAlongA>;
  using PieceB = Piece<B, kTileColumns, kAlongB>;
  auto rows = PieceA::rest(a.data, a.row, a.col, top, c.shape[0], k);
  auto columns = PieceB::rest(b.data, b.col, b.row, left, c.shape[1], k);
  WarpTile sum;
  TESSERA_UNROLL
  for (int e = 0; e < 32; ++e) {
    const int i = e / 16;
    const int j = e / 4 % 4;
    sum[i][j].c[e % 4] = start_value(epilogue, c, top + row + tile_row(i, e % 4),
                                     left + column + tile_column(j, e % 4));
  }
  PieceA next_a;
  PieceB next_b;
  next_a.fetch(rows);
  next_b.fetch(columns);
  for (int left_k = static_cast<int>(k); left_k > 0; left_k -= kDepth) {
    next_a.put(s.a);
    next_b.put(s.b);
    sync_block();
    next_a.fetch(rows);
    next_b.fetch(columns);
    TESSERA_KEEP_ROLLED
    for (int step = 0; step < kDepth; step += Form::kColumns * Form::kTogether) {
      multiply_step<Form>(s, row, column, step, sum);
    }
    sync_block();  // the tiles may be overwritten
  }
  const bool aligned = pairs_are_aligned(epilogue, c);
  TESSERA_UNROLL
  for (int e = 0; e < 32; e += 2) {
    const int i = e / 16;
    const int j = e / 4 % 4;
    store_pair(epilogue, c, top + row + tile_row(i, e % 4), left + column + tile_column(j, e % 4),
               sum[i][j].c[e % 4], sum[i][j].c[e % 4 + 1], aligned);
  }
}

template <bool kAlongA, bool kAlongB>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    tensor_kernel(Operand a, Operand b, View<float, 2> c, std::int64_t k, std::int64_t depth,
                  GemmEpilogue epilogue) {
  make_tile<Whole, kAlongA, kAlongB>(a, b, c, k, depth, epilogue);
}

template <class A, class B, class C, bool kAlongA, bool kAlongB>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    rounded_kernel(OperandOf<A> a, OperandOf<B> b, View<C, 2> c, std::int64_t k, std::int64_t depth,
                   EpilogueOf<C> epilogue) {
  make_tile<Rounded, kAlongA, kAlongB>(a, b, c, k, depth, epilogue);
}

/// A kernel for two forms of operands, and its shared memory.
template <class A, class B, class C>
struct TensorKernel {
  using Signature = void(OperandOf<A>, OperandOf<B>, View<C, 2>, std::int64_t, std::int64_t,
                         EpilogueOf<C>);
  const char* name;
  Signature* kernels[2][2];  // [a along k][b along k]
  std::size_t smem_bytes;
};

constexpr TensorKernel<float, float, float> kWholeKernel{
    "gemm_tensor",
    {{tensor_kernel<false, false>, tensor_kernel<false, true>},
     {tensor_kernel<true, false>, tensor_kernel<true, true>}},
    sizeof(TensorSmem<Whole>)};
template <class A, class B, class C>
constexpr TensorKernel<A, B, C> kRoundedKernel{
    "gemm_bf16",
    {{rounded_kernel<A, B, C, false, false>, rounded_kernel<A, B, C, false, true>},
     {rounded_kernel<A, B, C, true, false>, rounded_kernel<A, B, C, true, true>}},
    sizeof(TensorSmem<Rounded>)};

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
