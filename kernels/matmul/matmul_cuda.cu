// GEMM, activations and column sums.
// Thin products, in fp32: a block makes a 64 x 64 tile of c, a thread 4 x 4 of
// it; both operands pass through shared memory in steps of 16 along k, with
// free strides. One fma chain per element, k ascending from the bias, so the
// bits depend on the problem alone. All others on tensor cores: each f32 is the
// sum of two bf16 but for 2^-18 of it, and a b is taken as high high + high low
// + low high in f32 accumulators (the split of Henry, Tang, Heinecke,
// "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations", 2019): 2e-6 relative on random data, at a
// third of the bf16 rate. A block of eight warps makes a 128 x 64 tile of c, a
// warp 32 x 32 of it; the next step of 32 along k is on its way to registers
// while this one is multiplied. Rows of shared memory are 80 bytes apart: the
// eight rows of an ldmatrix lie in all banks.
#include <bit>

#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/matmul/matmul_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kTile = 64;
constexpr int kStep = 16;
constexpr int kThreads = 256;
constexpr int kPointThreads = 256;

// Phi(x) and exp(-x^2/2). erfc by the minimax fit of
// kernels/matmul/activation-inl.h.
struct Normal {
  float cdf, bell;
};

TESSERA_DEVICE Normal normal_of(float x) {
  const float size = x < 0 ? -x : x;
  const float t = 1.0F / fma(0.24748737F, size < 1e30F ? size : 1e30F, 1.0F);
  float r = fma(0.02129995925F, t, -0.0909689965F);
  r = fma(r, t, 0.1181246505F);
  r = fma(r, t, -0.050986586F);
  r = fma(r, t, 0.07502353F);
  r = fma(r, t, 0.055701574F);
  r = fma(r, t, 0.08173732F);
  r = fma(r, t, 0.0925996635F);
  r = fma(r, t, 0.098735728F);
  r = fma(r, t, 0.0987331645F);
  const float bell = exp(-0.5F * x * x);
  const float tail = r * t * bell;
  return {x < 0 ? tail : 1.0F - tail, bell};
}

TESSERA_DEVICE float sigmoid(float x) { return 1.0F / (1.0F + exp(x < -80.0F ? 80.0F : -x)); }

TESSERA_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? 0.0F : x;  // NaN passes
    case Activation::gelu:
      return x * normal_of(x).cdf;
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::none:
      break;
  }
  return x;
}

// relu: x > 0; gelu: Phi(x) + x phi(x); silu: s (1 + x (1 - s)).
TESSERA_DEVICE float activate_slope(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0F : 0.0F;
    case Activation::gelu: {
      const Normal n = normal_of(x);
      return fma(x * 0.39894228F, n.bell, n.cdf);
    }
    case Activation::silu: {
      const float s = sigmoid(x);
      return s * fma(x, 1.0F - s, 1.0F);
    }
    case Activation::none:
      break;
  }
  return 1.0F;
}

struct GemmSmem {
  float a[kStep][kTile + 1];  // odd rows: stores along k meet no bank twice
  float b[kStep][kTile + 1];
};

// Copies kTile lines by kStep of k: element (line, k) at data[line * outer + k
// * inner]. Neighbouring threads follow the unit stride. What lies outside
// becomes zero.
TESSERA_DEVICE void load_tile(float (&tile)[kStep][kTile + 1], const float* data,
                              std::int64_t outer, std::int64_t inner, std::int64_t first,
                              std::int64_t lines, std::int64_t k0, std::int64_t k) {
  for (int i = linear_thread(); i < kTile * kStep; i += kThreads) {
    const int line = inner == 1 ? i / kStep : i % kTile;
    const int step = inner == 1 ? i % kStep : i / kTile;
    const bool there = first + line < lines && k0 + step < k;
    tile[step][line] = there ? ldg(data + (first + line) * outer + (k0 + step) * inner) : 0.0F;
  }
}

TESSERA_DEVICE float start_value(const GemmEpilogue& epilogue, const View<float, 2>& c,
                                 std::int64_t i, std::int64_t j) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return 0.0F;
  }
  if (epilogue.accumulate) {
    return ldg(&c(i, j));
  }
  return epilogue.bias == nullptr ? 0.0F : ldg(epilogue.bias + j);
}

TESSERA_DEVICE void store_value(const GemmEpilogue& epilogue, const View<float, 2>& c,
                                std::int64_t i, std::int64_t j, float value) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return;
  }
  if (epilogue.keep != nullptr) {
    stg(epilogue.keep + i * c.shape[1] + j, value);
  }
  stg(&c(i, j), activate(value, epilogue.activation));
}

// Thread (row, col) of 16 x 16 owns c at rows row + 16 i and columns col + 16
// j: whole sectors.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    gemm_kernel(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue) {
  TESSERA_SMEM(GemmSmem, s);
  const std::int64_t tiles = (c.shape[1] + kTile - 1) / kTile;
  const std::int64_t top = block_idx().x / tiles * kTile;
  const std::int64_t left = block_idx().x % tiles * kTile;
  const int row = linear_thread() / 16;
  const int col = linear_thread() % 16;
  float sum[4][4];
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    sum[e / 4][e % 4] =
        start_value(epilogue, c, top + row + 16 * (e / 4), left + col + 16 * (e % 4));
  }
  for (std::int64_t k0 = 0; k0 < k; k0 += kStep) {
    load_tile(s.a, a.data, a.row, a.col, top, c.shape[0], k0, k);
    load_tile(s.b, b.data, b.col, b.row, left, c.shape[1], k0, k);
    sync_block();
    const int steps = k - k0 < kStep ? static_cast<int>(k - k0) : kStep;
    for (int step = 0; step < steps; ++step) {
      TESSERA_UNROLL
      for (int e = 0; e < 16; ++e) {
        sum[e / 4][e % 4] =
            fma(s.a[step][row + 16 * (e / 4)], s.b[step][col + 16 * (e % 4)], sum[e / 4][e % 4]);
      }
    }
    sync_block();
  }
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    store_value(epilogue, c, top + row + 16 * (e / 4), left + col + 16 * (e % 4),
                sum[e / 4][e % 4]);
  }
}

// ---- tensor cores ----

constexpr int kTileRows = GemmPlan::kRows;  // of c
constexpr int kTileColumns = GemmPlan::kColumns;
constexpr int kDepth = GemmPlan::kStep;  // of k in a step
constexpr int kWarps = kThreads / 32;
constexpr int kStride = kDepth + 8;

/// Lines of one operand, k along each, split in two bf16: x = high + low.
template <int kLines>
struct alignas(16) SplitTile {
  std::uint16_t high[kLines][kStride], low[kLines][kStride];
};

struct TensorSmem {
  SplitTile<kTileRows> a;
  SplitTile<kTileColumns> b;
};

/// What is left of one operand from a thread's first element on: lines outside, k inside.
struct Rest {
  const float* at;
  std::int64_t outer, inner;
  int depth, lines;
};

/// A thread's part of a step of one operand. kAlongK: the unit stride is that of k. Neighbouring
/// lanes follow the unit stride; items lie at fixed distances from the first.
template <int kLines, bool kAlongK>
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
  TESSERA_DEVICE static Rest rest(const float* data, std::int64_t outer, std::int64_t inner,
                                  std::int64_t first, std::int64_t count, std::int64_t k) {
    const std::int64_t lines = count - first < kLines ? count - first : kLines;
    return {data + (first + first_line()) * outer + first_depth() * inner, outer, inner,
            static_cast<int>(k) - first_depth(), static_cast<int>(lines) - first_line()};
  }
  // The items of the step that begins at the rest, which moves on to the next.
  TESSERA_DEVICE void fetch(Rest& from) {
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      const bool there = line_of(i) < from.lines && depth_of(i) < from.depth;
      x[i] = there ? ldg(from.at + line_of(i) * from.outer + depth_of(i) * from.inner) : 0.0F;
    }
    from.at += kDepth * from.inner;
    from.depth -= kDepth;
  }
  TESSERA_DEVICE void put(SplitTile<kLines>& tile) const;
};

// What bf16 leaves of x. Infinities, and what rounds to one (3.39e38), come out of a product as
// NaN.
TESSERA_DEVICE float rest_of(float x, std::uint32_t high) { return x - std::bit_cast<float>(high); }

template <int kLines, bool kAlongK>
TESSERA_DEVICE void Piece<kLines, kAlongK>::put(SplitTile<kLines>& tile) const {
  TESSERA_UNROLL
  for (int i = 0; i < kItems; i += 2) {
    const std::uint32_t high = pack_bf16x2(x[i], x[i + 1]);
    const std::uint32_t low =
        pack_bf16x2(rest_of(x[i], high << 16U), rest_of(x[i + 1], high & 0xffff0000U));
    TESSERA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int line = first_line() + line_of(i + half);
      const int k = first_depth() + depth_of(i + half);
      tile.high[line][k] = static_cast<std::uint16_t>(high >> 16 * half);
      tile.low[line][k] = static_cast<std::uint16_t>(low >> 16 * half);
    }
  }
}

/// A warp's 32 x 32 of c: two strips of 16 rows by four of 8 columns.
using WarpTile = Acc[2][4];

// Element e of a lane's part of a 16 x 8 accumulator (PTX ISA, mma.m16n8k16):
// rows l / 4 and + 8, columns 2 (l % 4) and + 1.
TESSERA_DEVICE int tile_row(int strip, int e) { return 16 * strip + lane() / 4 + 8 * (e / 2); }
TESSERA_DEVICE int tile_column(int part, int e) { return 8 * part + 2 * (lane() % 4) + e % 2; }

// The 16 x 16 of rows [line, line + 16) and k [k, k + 16) as the first operand.
TESSERA_DEVICE void load_rows(std::uint32_t (&r)[4], const std::uint16_t (*tile)[kStride], int line,
                              int k) {
  ldmatrix_x4(r, &tile[line + lane() % 16][k + lane() / 16 * 8]);
}

// Two second operands of 8 columns each: columns [line, line + 16).
TESSERA_DEVICE void load_columns(std::uint32_t (&r)[2][2], const std::uint16_t (*tile)[kStride],
                                 int line, int k) {
  std::uint32_t four[4];
  ldmatrix_x4(four, &tile[line + lane() / 16 * 8 + lane() % 8][k + lane() / 8 % 2 * 8]);
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    r[e / 2][e % 2] = four[e];
  }
}

// sum += a b over 16 of k, small products first.
TESSERA_DEVICE void multiply_step(const TensorSmem& s, int row, int column, int k, WarpTile& sum) {
  std::uint32_t a_high[2][4];
  std::uint32_t a_low[2][4];
  TESSERA_UNROLL
  for (int i = 0; i < 2; ++i) {
    load_rows(a_high[i], s.a.high, row + 16 * i, k);
    load_rows(a_low[i], s.a.low, row + 16 * i, k);
  }
  TESSERA_UNROLL
  for (int j = 0; j < 4; j += 2) {
    std::uint32_t columns[2][2];
    load_columns(columns, s.b.low, column + 8 * j, k);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      mma_m16n8k16(sum[e / 2][j + e % 2], a_high[e / 2], columns[e % 2]);
    }
    load_columns(columns, s.b.high, column + 8 * j, k);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      mma_m16n8k16(sum[e / 2][j + e % 2], a_low[e / 2], columns[e % 2]);
      mma_m16n8k16(sum[e / 2][j + e % 2], a_high[e / 2], columns[e % 2]);
    }
  }
}

// Block (tile, part): the part's stretch of k. c is that of the part; only a lone part has an
// epilogue that does anything.
// Whether the pairs of columns that a lane has may be stored as 8 bytes.
TESSERA_DEVICE bool pairs_are_aligned(const GemmEpilogue& epilogue, const View<float, 2>& c) {
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(c.data) | reinterpret_cast<std::uintptr_t>(epilogue.keep);
  const std::int64_t strides = c.stride[0] | (epilogue.keep == nullptr ? 0 : c.shape[1]);
  return addresses % sizeof(Float2) == 0 && strides % 2 == 0;
}

// c (i, j) and (i, j + 1), j even: as one store where it can be, so that sectors are written whole.
TESSERA_DEVICE void store_pair(const GemmEpilogue& epilogue, const View<float, 2>& c,
                               std::int64_t i, std::int64_t j, float x, float y, bool aligned) {
  if (!aligned || i >= c.shape[0] || j + 1 >= c.shape[1]) {
    store_value(epilogue, c, i, j, x);
    store_value(epilogue, c, i, j + 1, y);
    return;
  }
  if (epilogue.keep != nullptr) {
    stg(reinterpret_cast<Float2*>(epilogue.keep + i * c.shape[1] + j), Float2{x, y});
  }
  stg(reinterpret_cast<Float2*>(&c(i, j)),
      Float2{activate(x, epilogue.activation), activate(y, epilogue.activation)});
}

template <bool kAlongA, bool kAlongB>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 1)
    tensor_kernel(Operand a, Operand b, View<float, 2> c, std::int64_t k, std::int64_t depth,
                  GemmEpilogue epilogue) {
  TESSERA_SMEM(TensorSmem, s);
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
  using PieceA = Piece<kTileRows, kAlongA>;
  using PieceB = Piece<kTileColumns, kAlongB>;
  Rest rows = PieceA::rest(a.data, a.row, a.col, top, c.shape[0], k);
  Rest columns = PieceB::rest(b.data, b.col, b.row, left, c.shape[1], k);
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
    TESSERA_UNROLL
    for (int step = 0; step < kDepth; step += 16) {
      multiply_step(s, row, column, step, sum);
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

// c = epilogue(sum of the parts in order), a thread per element.
TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    add_parts_kernel(const float* sums, std::int64_t parts, View<float, 2> c,
                     GemmEpilogue epilogue) {
  const std::int64_t n = c.shape[0] * c.shape[1];
  const std::int64_t at = global_thread();
  if (at < n) {
    const std::int64_t i = at / c.shape[1];
    const std::int64_t j = at % c.shape[1];
    float sum = start_value(epilogue, c, i, j);
    for (std::int64_t part = 0; part < parts; ++part) {
      sum += ldg(sums + part * n + at);
    }
    store_value(epilogue, c, i, j, sum);
  }
}

TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_kernel(View<const float, 1> z, View<float, 1> y, Activation activation) {
  const std::int64_t i = global_thread();
  if (i < y.shape[0]) {
    stg(y.data + i, activate(ldg(z.data + i), activation));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_backward_kernel(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                               Activation activation) {
  const std::int64_t i = global_thread();
  if (i < dz.shape[0]) {
    stg(dz.data + i, ldg(dy.data + i) * activate_slope(ldg(z.data + i), activation));
  }
}

struct ColumnSmem {
  float sum[8][32];
};

// A block owns 32 columns; warp w adds rows w, w + 8, ... of each block of 256
// rows, then the blocks, then the warps are added in order.
TESSERA_GLOBAL void __launch_bounds__(256)
    column_sums_kernel(View<const float, 2> x, View<float, 1> out) {
  TESSERA_SMEM(ColumnSmem, s);
  const std::int64_t column = static_cast<std::int64_t>(block_idx().x) * 32 + lane();
  const bool there = column < x.shape[1];
  float total = 0;
  for (std::int64_t begin = 0; begin < x.shape[0]; begin += 256) {
    const std::int64_t end = begin + 256 < x.shape[0] ? begin + 256 : x.shape[0];
    float part = 0;
    for (std::int64_t row = begin + warp(); row < end; row += 8) {
      part += there ? ldg(x.row(row) + column) : 0.0F;
    }
    total += part;
  }
  s.sum[warp()][lane()] = total;
  sync_block();
  if (warp() == 0 && there) {
    float merged = 0;
    for (int w = 0; w < 8; ++w) {
      merged += s.sum[w][lane()];
    }
    stg(out.data + column, merged);
  }
}

using TensorKernel = void(Operand, Operand, View<float, 2>, std::int64_t, std::int64_t,
                          GemmEpilogue);

TensorKernel* tensor_kernel_for(bool along_a, bool along_b) {
  if (along_a) {
    return along_b ? tensor_kernel<true, true> : tensor_kernel<true, false>;
  }
  return along_b ? tensor_kernel<false, true> : tensor_kernel<false, false>;
}

}  // namespace

void gemm(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
          View<float, 1> panels, Stream stream) {
  if (c.size() == 0) {
    return;
  }
  // Whatever the number of rows: the bits of one must not depend on the others.
  if (k < 16 || c.shape[1] < 8) {
    const unsigned blocks = blocks_for(c.shape[0], kTile) * blocks_for(c.shape[1], kTile);
    launch(gemm_kernel, {"gemm", {blocks}, {kThreads}, sizeof(GemmSmem), stream}, a, b, c, k,
           epilogue);
    return;
  }
  const GemmPlan plan(c.shape[0], c.shape[1], k);
  const bool whole = plan.parts == 1 || panels.shape[0] < plan.workspace(c.shape[0], c.shape[1]);
  const auto parts = static_cast<unsigned>(whole ? 1 : plan.parts);
  const LaunchConfig config{"gemm_tensor",
                            {static_cast<unsigned>(plan.tiles), parts},
                            {kThreads},
                            sizeof(TensorSmem),
                            stream};
  auto* kernel = tensor_kernel_for(a.col == 1, b.row == 1);
  if (whole) {
    launch(kernel, config, a, b, c, k, k, epilogue);
    return;
  }
  const View<float, 2> sums{panels.data, {c.shape[0], c.shape[1]}, {c.shape[1], 1}};
  launch(kernel, config, a, b, sums, k, plan.depth, GemmEpilogue{});
  launch(add_parts_kernel,
         {"gemm_add_parts", {blocks_for(c.size(), kPointThreads)}, {kPointThreads}, 0, stream},
         panels.data, plan.parts, c, epilogue);
}

void activation_forward(View<const float, 1> z, View<float, 1> y, Activation activation,
                        Stream stream) {
  if (y.shape[0] > 0) {
    launch(activation_kernel,
           {"activation", {blocks_for(y.shape[0], kPointThreads)}, {kPointThreads}, 0, stream}, z,
           y, activation);
  }
}

void activation_backward(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                         Activation activation, Stream stream) {
  if (dz.shape[0] > 0) {
    launch(activation_backward_kernel,
           {"activation_backward",
            {blocks_for(dz.shape[0], kPointThreads)},
            {kPointThreads},
            0,
            stream},
           dy, z, dz, activation);
  }
}

void column_sums(View<const float, 2> x, View<float, 1> out, Stream stream) {
  if (x.shape[1] > 0) {
    launch(column_sums_kernel,
           {"column_sums", {blocks_for(x.shape[1], 32)}, {256}, sizeof(ColumnSmem), stream}, x,
           out);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
