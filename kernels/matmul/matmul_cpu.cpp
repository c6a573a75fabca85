// Packed GEMM on the tile of tile-inl.h. Two plans, chosen by shape:
//  - wide: K is short (linear layers and their dX). The right operand is packed once into panels
//    [K][columns of two vectors], zero-filled to full width; a chunk is 112 rows by as many panels
//    as stay in L2, and each tile of rows meets all of them while it is in L1.
//  - deep: K is long (dW: K counts the tokens). A chunk owns its part of C and walks K in blocks of
//    128, copying both operands' blocks side by side first; the sums wait in C between blocks.
// K is never split between threads and is walked in order, so bits depend on the SIMD level only.
#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/matmul_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/scratch.h"
#include "kernels/matmul/columns-inl.h"
#include "kernels/matmul/epilogue-inl.h"
#include "kernels/matmul/pack-inl.h"

#ifndef TESSERA_MATMUL_ONCE
#define TESSERA_MATMUL_ONCE
namespace tessera::cpu {
/// One chunk of a product: rows [row_begin, row_end), panels [panel_begin, panel_end).
struct GemmBlock {
  Operand a, b;
  float* panels;  ///< wide: all panels; deep: room for those of one block of K
  float* rows;    ///< deep: room for a block of K of one tile's rows and a vector
  View<float, 2> c;
  std::int64_t k;
  std::int64_t row_begin, row_end, panel_begin, panel_end;
  GemmEpilogue epilogue;
};

constexpr std::int64_t kShortRow = 512;   // floats; longer rows are fetched better by the machine
constexpr std::int64_t kDeepBlock = 128;  // of K: a panel of it is 16 KB
constexpr std::int64_t kNear = 128;       // rows no further apart are read in place,
constexpr std::int64_t kFewNear = 256;    // and these where only two panels meet them
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace activation::HWY_NAMESPACE;  // NOLINT: the helpers of this target
using namespace tile::HWY_NAMESPACE;        // NOLINT

std::int64_t PanelWidth() { return PanelColumns(); }

/// A stretch of K: its rows of a panel, and what comes after it.
struct Stretch {
  const float* b;
  std::int64_t k;
  bool accumulate;  ///< the sums so far are in C
  bool last;
};

// Rows [row, row + rows) of panel `panel`.
HWY_INLINE void Multiply(const GemmBlock& block, const Operand& a, std::int64_t row,
                         std::int64_t rows, std::int64_t panel, const Stretch& s) {
  const std::int64_t lanes = LaneCount(), width = 2 * lanes, column = panel * width;
  const std::int64_t valid = block.c.shape[1] - column;
  GemmEpilogue e = block.epilogue;
  if (!s.last) {
    e.keep = e.slope = nullptr;
    e.activation = Activation::none;
  }
  float* c = block.c.row(row) + column;
  const std::int64_t ld = block.c.stride[0], n = block.c.shape[1];
  const float* bias = e.bias != nullptr ? e.bias + column : nullptr;
  if (valid >= width && e.keep == nullptr && e.activation == Activation::none) {
    const ToRows<true> finish{c, ld, valid, bias, s.accumulate};
    if (a.row == 1 && a.col == rows) {
      TileIn<2, Layout::packed>(rows, a, s.b, width, s.k, finish);
    } else {
      TileOf<2>(rows, a, s.b, width, s.k, finish);
    }
    return;
  }
  const auto part = [&](float* p) { return p != nullptr ? p + row * n + column : nullptr; };
  const ToActivatedRows finish{
      {c, ld, valid, bias, s.accumulate}, part(e.keep), part(e.slope), n, e.activation};
  if (valid > lanes) {
    TileOf<2>(rows, a, s.b, width, s.k, finish);
  } else {
    TileOf<1>(rows, a, s.b, width, s.k, finish);
  }
}

/// Fetches the rows of A of the next tile to the second cache, a slice at each panel of this one:
/// they come from the last cache or memory, whose latency the first panel of a tile cannot hide.
struct NextRows {
  const float* data;
  std::int64_t stride, floats, rows, panels;
  std::int64_t panel = 0;

  HWY_INLINE void FetchSlice() {
    const std::int64_t end = (panel + 1) * rows / panels;
    for (std::int64_t r = panel * rows / panels; r < end; ++r) {
      for (std::int64_t i = 0; i < floats; i += 16) {
        __builtin_prefetch(data + r * stride + i, 0, 2);
      }
    }
    ++panel;
  }
};

// Lines of C that a tile is going to write, asked for while it sums.
HWY_INLINE void FetchToWrite(float* c, std::int64_t ld, std::int64_t rows, std::int64_t floats) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < floats; j += 16) {
      __builtin_prefetch(c + r * ld + j, 1, 3);
    }
  }
}

void WideBlock(const GemmBlock& block) {
  const std::int64_t panels = block.panel_end - block.panel_begin, m = block.c.shape[0];
  const bool fetches = block.a.col == 1 && block.k <= kShortRow;
  for (std::int64_t row = block.row_begin; row < block.row_end;) {
    const std::int64_t rows = TileRows(block.row_end - row), after = row + rows, left = m - after;
    const Operand a{block.a.data + row * block.a.row, block.a.row, block.a.col};
    NextRows next{block.a.data + after * block.a.row, block.a.row, block.k,
                  !fetches          ? 0
                  : left < kMaxRows ? left
                                    : kMaxRows,
                  panels};
    for (std::int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      FetchToWrite(block.c.row(row) + panel * PanelWidth(), block.c.stride[0], rows, PanelWidth());
      Multiply(block, a, row, rows, panel,
               {block.panels + panel * PanelWidth() * block.k, block.k, block.epilogue.accumulate,
                true});
      next.FetchSlice();
    }
    row = after;
  }
}

// Fetches rows [begin, end) of `floats` floats, `stride` apart, to the second cache.
HWY_INLINE void FetchRows(const float* p, std::int64_t stride, std::int64_t floats,
                          std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    for (std::int64_t j = 0; j < floats; j += 16) {
      __builtin_prefetch(p + i * stride + j, 0, 2);
    }
  }
}

/// Fetches the next stretch of K in slices, one at each tile of this one, where the rows of an
/// operand are apart: they come from the last cache or memory, which takes as long as a third of
/// the sums. A stretch that is one run is fetched by the machine itself, and better.
struct NextStretch {
  Operand a, b;  ///< their first rows and columns of the chunk
  std::int64_t rows, columns, k, tiles;
  std::int64_t tile = 0;

  HWY_INLINE void FetchSlice() {
    const std::int64_t begin = tile * k / tiles, end = (tile + 1) * k / tiles;
    ++tile;
    if (a.row == 1 && a.col > rows) {
      FetchRows(a.data, a.col, rows, begin, end);
    }
    if (b.col == 1 && b.row > columns) {
      FetchRows(b.data, b.row, columns, begin, end);
    }
  }
};

void DeepBlock(const GemmBlock& block) {
  const std::int64_t width = PanelWidth(), stride = width * kDeepBlock, n = block.c.shape[1];
  const std::int64_t row_count = block.row_end - block.row_begin;
  const std::int64_t panels = block.panel_end - block.panel_begin;
  const std::int64_t column = block.panel_begin * width, left = n - column;
  NextStretch next{.a = {block.a.data + block.row_begin * block.a.row, block.a.row, block.a.col},
                   .b = {block.b.data + column * block.b.col, block.b.row, block.b.col},
                   .rows = row_count,
                   .columns = left < panels * width ? left : panels * width,
                   .k = 0,
                   .tiles = (row_count + kMaxRows - 1) / kMaxRows * panels};
  const bool packs = block.a.row == 1 && block.a.col > (panels > 2 ? kNear : kFewNear);
  for (std::int64_t i = 0; i < block.k; i += kDeepBlock) {
    const std::int64_t after = block.k - i - kDeepBlock, k = after < 0 ? block.k - i : kDeepBlock;
    const Operand a = next.a;
    PackPanels({block.b.data + i * block.b.row, block.b.row, block.b.col}, k, n, block.panel_begin,
               block.panel_end, stride, block.panels);
    next.a.data += kDeepBlock * a.col;
    next.b.data += kDeepBlock * block.b.row;
    next.k = after < 0 ? 0 : after < kDeepBlock ? after : kDeepBlock;
    next.tile = 0;
    for (std::int64_t row = 0; row < row_count;) {
      const std::int64_t rows = TileRows(row_count - row);
      Operand tile{a.data + row * a.row, a.row, a.col};
      if (packs) {
        PackRows(tile, rows, k, block.rows);
        tile = {block.rows, 1, rows};
      }
      for (std::int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
        Multiply(block, tile, block.row_begin + row, rows, panel,
                 {block.panels + (panel - block.panel_begin) * stride, k,
                  i > 0 || block.epilogue.accumulate, i + k == block.k});
        next.FetchSlice();
      }
      row += rows;
    }
  }
}

void Values(const float* z, float* y, std::int64_t n, Activation activation) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m)
                    HWY_ATTR { StoreN(Activate(LoadN(m, z + i), activation), m, y + i); });
}

void Slope(const float* dy, const float* z, float* dz, std::int64_t n, Activation activation) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V slope = ActivateSlope(LoadN(m, z + i), activation);
    StoreN(hn::Mul(LoadN(m, dy + i), slope), m, dz + i);
  });
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(PanelWidth);
HWY_EXPORT(PackPanels);
HWY_EXPORT(WideBlock);
HWY_EXPORT(DeepBlock);
HWY_EXPORT(Values);
HWY_EXPORT(Slope);
HWY_EXPORT(AddRows);

namespace {
constexpr std::int64_t kRowBlock = 112;            // 8 tiles of 14: at K = 256 114 KB of A
constexpr std::int64_t kPanelFloats = 128 * 1024;  // of one chunk's panels: 512 KB, half an L2
constexpr std::int64_t kSumBlock = 256;
constexpr std::int64_t kPointwiseChunk = 1 << 14;

/// How C is cut into chunks. No bit depends on it.
struct Cut {
  std::int64_t rows, panels;
};

// Smaller chunks than the caches ask for only where the threads would have none.
Cut cut(std::int64_t m, std::int64_t row_limit, std::int64_t panels, std::int64_t panel_limit,
        std::int64_t width) {
  const std::int64_t threads = num_threads(), wanted = threads == 1 ? 1 : 3 * threads;
  Cut c{std::min(m, row_limit), std::min(panels, panel_limit)};
  const auto chunks = [&] { return chunk_count(m, c.rows) * chunk_count(panels, c.panels); };
  while (chunks() < wanted && (c.panels > 1 || c.rows > 28)) {
    if (c.panels > 1 && (c.panels * width >= c.rows || c.rows <= 28)) {
      c.panels = (c.panels + 1) / 2;
    } else {
      c.rows = (c.rows + 1) / 2;
    }
  }
  return c;
}

// f(block) for each chunk of C.
template <class F>
void for_each_chunk(const GemmBlock& whole, const Cut& c, std::int64_t panels, F f) {
  const std::int64_t m = whole.c.shape[0], columns = chunk_count(panels, c.panels);
  parallel_for(chunk_count(m, c.rows) * columns, [&](std::int64_t chunk) {
    GemmBlock block = whole;
    block.row_begin = chunk / columns * c.rows;
    block.row_end = std::min(m, block.row_begin + c.rows);
    block.panel_begin = chunk % columns * c.panels;
    block.panel_end = std::min(panels, block.panel_begin + c.panels);
    f(block);
  });
}

void wide(const GemmBlock& whole, std::int64_t width) {
  const std::int64_t n = whole.c.shape[1], k = whole.k, count = chunk_count(n, width);
  const auto pack = [&](std::int64_t panel) {
    HWY_DYNAMIC_DISPATCH(PackPanels)
    (whole.b, k, n, panel, panel + 1, 0, whole.panels + panel * width * k);
  };
  if (!whole.epilogue.packed) {
    parallel_for(count, pack);
  }
  const std::int64_t in_l2 = kPanelFloats / std::max<std::int64_t>(1, width * k);
  for_each_chunk(whole,
                 cut(whole.c.shape[0], kRowBlock, count, std::max<std::int64_t>(4, in_l2), width),
                 count, [](const GemmBlock& block) {
                   HWY_DYNAMIC_DISPATCH(WideBlock)
                   (block);
                 });
}

void deep(const GemmBlock& whole, std::int64_t width) {
  constexpr std::int64_t kPanels = 8, kTileRoom = 16 * kDeepBlock;
  const std::int64_t count = chunk_count(whole.c.shape[1], width);
  const Cut c = cut(whole.c.shape[0], 2 * kRowBlock + 32, count, kPanels, width);
  for_each_chunk(whole, c, count, [&](GemmBlock& block) {
    const std::int64_t room = c.panels * width * kDeepBlock;
    block.panels = thread_scratch(room + kTileRoom);
    block.rows = block.panels + room;
    HWY_DYNAMIC_DISPATCH(DeepBlock)(block);
  });
}
}  // namespace

void gemm(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
          View<float, 1> panels, Stream) {
  if (c.shape[0] == 0 || c.shape[1] == 0) {
    return;
  }
  const GemmBlock whole{
      .a = a, .b = b, .panels = panels.data, .c = c, .k = k, .epilogue = epilogue};
  const std::int64_t width = HWY_DYNAMIC_DISPATCH(PanelWidth)();
  constexpr std::int64_t kShort = 64;  // steps of K for which copying rows does not pay
  if (k > kGemmWideK || (a.row == 1 && k > kShort)) {
    deep(whole, width);
  } else {
    wide(whole, width);
  }
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
    const std::int64_t first = block * kSumBlock, left = rows - first;
    HWY_DYNAMIC_DISPATCH(AddRows)
    (x.row(first), x.stride[0], std::min(left, kSumBlock), n, partial.data() + block * n);
  });
  HWY_DYNAMIC_DISPATCH(AddRows)(partial.data(), n, blocks, n, out.data);
}

}  // namespace tessera::cpu
#endif
