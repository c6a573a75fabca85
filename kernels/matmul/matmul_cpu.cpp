// Packed GEMM. The right operand is packed once into panels [K][columns of two vectors],
// zero-filled to full width; a register tile of 14 x 2 vectors (AVX-512) or 6 x 2 walks K once: 28
// accumulators, 2 panel loads and 14 broadcasts for 28 multiply-adds. Threads share blocks of 112
// rows by 4 panels; K is never split, so bits do not depend on them.
#include "kernels/matmul/matmul.h"

#include <cstring>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/matmul_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/simd-inl.h"

#ifndef TESSERA_MATMUL_ONCE
#define TESSERA_MATMUL_ONCE
namespace tessera::cpu {
/// One block of the product: rows [row_begin, row_end), panels [panel_begin, panel_end).
struct GemmBlock {
  Operand a;
  const float* panels;
  float* c;
  std::int64_t ldc, k, n;
  std::int64_t row_begin, row_end, panel_begin, panel_end;
  GemmEpilogue epilogue;
  std::int64_t ld_keep;
};
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

#if HWY_TARGET <= HWY_AVX3
constexpr int kRows = 14;  // 28 accumulators of 32 registers
#else
constexpr int kRows = 6;  // 12 of 16
#endif

std::int64_t PanelWidth() { return static_cast<std::int64_t>(2 * hn::Lanes(D())); }

void PackPanel(const Operand& b, std::int64_t k, std::int64_t n, std::int64_t panel, float* out) {
  const std::int64_t width = PanelWidth();
  const std::int64_t first = panel * width;
  const std::int64_t valid = n - first < width ? n - first : width;
  for (std::int64_t i = 0; i < k; ++i) {
    const float* from = b.data + i * b.row + first * b.col;
    float* to = out + i * width;
    for (std::int64_t j = 0; j < valid; ++j) {
      to[j] = from[j * b.col];
    }
    for (std::int64_t j = valid; j < width; ++j) {
      to[j] = 0.0F;
    }
  }
}

// Normal distribution function by the Chebyshev fit of erfc in Press et al., Numerical Recipes 6.2:
// relative error 1.2e-7 everywhere, also in the far tail, where an absolute fit would lose gelu's
// sign of small values.
HWY_INLINE V NormalCdf(D d, V x) {
  const V ax = hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678F));
  const V t = hn::Div(hn::Set(d, 1.0F), hn::MulAdd(hn::Set(d, 0.5F), ax, hn::Set(d, 1.0F)));
  V p = hn::MulAdd(hn::Set(d, 0.17087277F), t, hn::Set(d, -0.82215223F));
  p = hn::MulAdd(p, t, hn::Set(d, 1.48851587F));
  p = hn::MulAdd(p, t, hn::Set(d, -1.13520398F));
  p = hn::MulAdd(p, t, hn::Set(d, 0.27886807F));
  p = hn::MulAdd(p, t, hn::Set(d, -0.18628806F));
  p = hn::MulAdd(p, t, hn::Set(d, 0.09678418F));
  p = hn::MulAdd(p, t, hn::Set(d, 0.37409196F));
  p = hn::MulAdd(p, t, hn::Set(d, 1.00002368F));
  p = hn::MulAdd(p, t, hn::Set(d, -1.26551223F));
  const V tail = hn::Mul(hn::Mul(hn::Set(d, 0.5F), t), hn::Exp(d, hn::Sub(p, hn::Mul(ax, ax))));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0F), tail));
}

HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0F);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(x))));
}

HWY_INLINE V Activate(D d, V x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      // not Max, which may give 0 for NaN
      return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
    case Activation::gelu:
      return hn::Mul(x, NormalCdf(d, x));
    case Activation::silu:
      return hn::Mul(x, Sigmoid(d, x));
    case Activation::none:
      break;
  }
  return x;
}

// relu: x > 0; gelu: Phi(x) + x phi(x); silu: s (1 + x (1 - s)).
HWY_INLINE V ActivateSlope(D d, V x, Activation activation) {
  const V one = hn::Set(d, 1.0F);
  switch (activation) {
    case Activation::relu:
      return hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), one);
    case Activation::gelu: {
      const V half = hn::Set(d, 0.5F);
      const V phi =
          hn::Mul(hn::Set(d, 0.39894228F), hn::Exp(d, hn::Mul(hn::Neg(half), hn::Mul(x, x))));
      return hn::MulAdd(x, phi, NormalCdf(d, x));
    }
    case Activation::silu: {
      const V s = Sigmoid(d, x);
      return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
    }
    case Activation::none:
      break;
  }
  return one;
}

// Adds the bias, keeps the sum if asked, activates; then writes `valid` of the vector's lanes.
HWY_INLINE void Finish(D d, V sum, const GemmBlock& block, std::int64_t row, std::int64_t column,
                       std::int64_t valid) {
  if (block.epilogue.bias != nullptr) {
    sum = hn::Add(sum, LoadN(valid, block.epilogue.bias + column));
  }
  if (block.epilogue.keep != nullptr) {
    StoreN(sum, valid, block.epilogue.keep + row * block.ld_keep + column);
  }
  float* c = block.c + row * block.ldc + column;
  if (block.epilogue.accumulate) {
    sum = hn::Add(LoadN(valid, c), sum);
  }
  StoreN(Activate(d, sum, block.epilogue.activation), valid, c);
}

template <int kTileRows>
HWY_NOINLINE void Tile(const GemmBlock& block, std::int64_t row, std::int64_t panel) {
  const D d;
  const std::int64_t lanes = LaneCount();
  const float* b = block.panels + panel * 2 * lanes * block.k;
  const float* a = block.a.data + row * block.a.row;
  V acc[kTileRows][2];
  for (int r = 0; r < kTileRows; ++r) {
    acc[r][0] = acc[r][1] = hn::Zero(d);
  }
  for (std::int64_t k = 0; k < block.k; ++k) {
    const V b0 = hn::LoadU(d, b + k * 2 * lanes);
    const V b1 = hn::LoadU(d, b + k * 2 * lanes + lanes);
    const float* ak = a + k * block.a.col;
    HWY_UNROLL(14)
    for (int r = 0; r < kTileRows; ++r) {
      const V x = hn::Set(d, ak[r * block.a.row]);
      acc[r][0] = hn::MulAdd(x, b0, acc[r][0]);
      acc[r][1] = hn::MulAdd(x, b1, acc[r][1]);
    }
  }
  const std::int64_t column = panel * 2 * lanes;
  for (int r = 0; r < kTileRows; ++r) {
    Finish(d, acc[r][0], block, row + r, column, block.n - column);
    if (column + lanes < block.n) {
      Finish(d, acc[r][1], block, row + r, column + lanes, block.n - column - lanes);
    }
  }
}

using TileFunction = void (*)(const GemmBlock&, std::int64_t, std::int64_t);

void Block(const GemmBlock& block) {
  static constexpr TileFunction kTiles[] = {
    nullptr,
    Tile<1>,
    Tile<2>,
    Tile<3>,
    Tile<4>,
    Tile<5>,
    Tile<6>,
#if HWY_TARGET <= HWY_AVX3
    Tile<7>,
    Tile<8>,
    Tile<9>,
    Tile<10>,
    Tile<11>,
    Tile<12>,
    Tile<13>,
    Tile<14>
#endif
  };
  for (std::int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
    std::int64_t row = block.row_begin;
    while (row < block.row_end) {  // rows are split evenly: 15 = 8 + 7, not 14 + 1
      const std::int64_t left = block.row_end - row;
      const std::int64_t tiles = (left + kRows - 1) / kRows;
      const std::int64_t rows = (left + tiles - 1) / tiles;
      kTiles[rows](block, row, panel);
      row += rows;
    }
  }
}

void Values(const float* z, float* y, std::int64_t n, Activation activation) {
  const D d;
  const std::int64_t lanes = LaneCount();
  for (std::int64_t i = 0; i < n; i += lanes) {
    StoreN(Activate(d, LoadN(n - i, z + i), activation), n - i, y + i);
  }
}

void Slope(const float* dy, const float* z, float* dz, std::int64_t n, Activation activation) {
  const D d;
  const std::int64_t lanes = LaneCount();
  for (std::int64_t i = 0; i < n; i += lanes) {
    const V slope = ActivateSlope(d, LoadN(n - i, z + i), activation);
    StoreN(hn::Mul(LoadN(n - i, dy + i), slope), n - i, dz + i);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(PanelWidth);
HWY_EXPORT(PackPanel);
HWY_EXPORT(Block);
HWY_EXPORT(Values);
HWY_EXPORT(Slope);

namespace {
constexpr std::int64_t kRowBlock = 112;  // 8 tiles of 14: the block of A stays in L2
constexpr std::int64_t kPanelBlock = 4;
constexpr std::int64_t kSumBlock = 256;
constexpr std::int64_t kPointwiseChunk = 1 << 14;

// Copies columns [row, row + rows) of a transposed operand, K runs far apart, side by side: walked
// in place, each step of the tile would touch another page and, for large powers of two, the same
// cache set.
Operand gather_rows(const Operand& a, std::int64_t row, std::int64_t rows, std::int64_t k) {
  thread_local std::vector<float> scratch;  // (K, rows)
  const auto size = static_cast<std::size_t>(rows * k);
  if (scratch.size() < size) {
    scratch.resize(size);
  }
  for (std::int64_t i = 0; i < k; ++i) {
    std::memcpy(scratch.data() + i * rows, a.data + i * a.col + row,
                static_cast<std::size_t>(rows) * sizeof(float));
  }
  return {scratch.data(), 1, rows};
}
}  // namespace

void gemm(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
          View<float, 1> panels, Stream) {
  const std::int64_t m = c.shape[0], n = c.shape[1];
  if (m == 0 || n == 0) {
    return;
  }
  const std::int64_t width = HWY_DYNAMIC_DISPATCH(PanelWidth)();
  const std::int64_t count = chunk_count(n, width);
  parallel_for(epilogue.packed ? 0 : count, [&](std::int64_t p) {
    HWY_DYNAMIC_DISPATCH(PackPanel)(b, k, n, p, panels.data + p * width * k);
  });
  const std::int64_t columns = chunk_count(count, kPanelBlock);
  parallel_for(chunk_count(m, kRowBlock) * columns, [&](std::int64_t chunk) {
    const std::int64_t row = chunk / columns * kRowBlock, panel = chunk % columns * kPanelBlock;
    const std::int64_t rows = row + kRowBlock < m ? kRowBlock : m - row;
    GemmEpilogue finish = epilogue;
    if (finish.keep != nullptr) {
      finish.keep += row * n;
    }
    const bool far_apart = a.row == 1 && a.col > rows;
    const GemmBlock block{
        .a = far_apart ? gather_rows(a, row, rows, k) : Operand{a.data + row * a.row, a.row, a.col},
        .panels = panels.data,
        .c = c.row(row),
        .ldc = c.stride[0],
        .k = k,
        .n = n,
        .row_begin = 0,
        .row_end = rows,
        .panel_begin = panel,
        .panel_end = panel + kPanelBlock < count ? panel + kPanelBlock : count,
        .epilogue = finish,
        .ld_keep = n};
    HWY_DYNAMIC_DISPATCH(Block)(block);
  });
}

void activation_forward(View<const float, 1> z, View<float, 1> y, Activation activation, Stream) {
  const std::int64_t n = y.shape[0];
  parallel_for(chunk_count(n, kPointwiseChunk), [&](std::int64_t chunk) {
    const std::int64_t i = chunk * kPointwiseChunk;
    const std::int64_t size = n - i < kPointwiseChunk ? n - i : kPointwiseChunk;
    HWY_DYNAMIC_DISPATCH(Values)(z.data + i, y.data + i, size, activation);
  });
}

void activation_backward(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                         Activation activation, Stream) {
  const std::int64_t n = dz.shape[0];
  parallel_for(chunk_count(n, kPointwiseChunk), [&](std::int64_t chunk) {
    const std::int64_t i = chunk * kPointwiseChunk;
    const std::int64_t size = n - i < kPointwiseChunk ? n - i : kPointwiseChunk;
    HWY_DYNAMIC_DISPATCH(Slope)(dy.data + i, z.data + i, dz.data + i, size, activation);
  });
}

void column_sums(View<const float, 2> x, View<float, 1> out, Stream) {
  const std::int64_t rows = x.shape[0], n = x.shape[1], blocks = chunk_count(rows, kSumBlock);
  std::vector<float> partial(static_cast<std::size_t>(blocks * n), 0.0F);  // (blocks, N)
  parallel_for(blocks, [&](std::int64_t block) {
    float* sum = partial.data() + block * n;
    const std::int64_t end = (block + 1) * kSumBlock < rows ? (block + 1) * kSumBlock : rows;
    for (std::int64_t r = block * kSumBlock; r < end; ++r) {
      const float* row = x.row(r);
      for (std::int64_t j = 0; j < n; ++j) {
        sum[j] += row[j];
      }
    }
  });
  for (std::int64_t j = 0; j < n; ++j) {
    float total = 0.0F;
    for (std::int64_t block = 0; block < blocks; ++block) {
      total += partial[static_cast<std::size_t>(block * n + j)];
    }
    out(j) = total;
  }
}

}  // namespace tessera::cpu
#endif
