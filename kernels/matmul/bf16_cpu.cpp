// gemm_bf16 on the CPU: operands are rounded to bf16 while they are packed, C is cut as in
// matmul_cpu.cpp, and the unit that CPUID named multiplies (bf16_tile_cpu.cpp). Two plans:
//  - wide: K is short. The right operand is packed once into panels of 32 columns; a chunk packs
//    its 128 rows and meets as many panels as stay in the second cache.
//  - deep: K is long (dW: K counts the tokens). A chunk owns its part of C and walks K in blocks of
//    512, packing both operands' blocks; the sums wait in C between blocks.
// Activations are a pass of their own over what a strip of rows has just left in the cache.
// K is walked in order and never split between threads: bits depend on the unit alone.
#include "kernels/matmul/matmul.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/bf16_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/scratch.h"
#include "kernels/matmul/activation-inl.h"
#include "kernels/matmul/bf16_tile.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace activation::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// One row of sums: kept, activated in place, their slopes stored; keep and slope may be null.
void ActivateRow(float* c, std::int64_t n, Activation activation, float* keep, float* slope) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V z = LoadN(m, c + i);
    const auto a = ActivateWithSlope(z, activation);
    if (keep != nullptr) {
      StoreN(z, m, keep + i);
    }
    if (slope != nullptr) {
      StoreN(a.slope, m, slope + i);
    }
    StoreN(a.value, m, c + i);
  });
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ActivateRow);

namespace {
namespace unit = bf16_tile;

constexpr std::int64_t kRowBlock = 128;           // wide: at K = 256 64 KB of bf16
constexpr std::int64_t kPanelBytes = 512 * 1024;  // of one chunk's panels: half an L2
constexpr std::int64_t kDeepRows = 256, kDeepPanels = 8, kDeepBlock = 512;
constexpr std::int64_t kShort = 64;  // steps of K for which walking it in blocks does not pay

/// A product, and the rows and panels of one chunk of it.
struct Product {
  Operand a, b;
  View<float, 2> c;
  std::int64_t k;
  GemmEpilogue epilogue;
  bool tiles;
  std::int64_t row = 0, rows = 0, column = 0, columns = 0;  ///< of the chunk

  [[nodiscard]] Operand part_of_a(std::int64_t from_k) const {
    return {a.data + row * a.row + from_k * a.col, a.row, a.col};
  }
};

void multiply(const Product& p, unit::Block block) {
  block.rows = p.rows;
  block.columns = p.columns;
  block.c = p.c.row(p.row) + p.column;
  block.ld = p.c.stride[0];
  (p.tiles ? unit::multiply_tiles : unit::multiply_dots)(block);
}

void finish(const Product& p) {
  const GemmEpilogue& e = p.epilogue;
  if (e.activation == Activation::none && e.keep == nullptr && e.slope == nullptr) {
    return;
  }
  for (std::int64_t r = p.row; r < p.row + p.rows; ++r) {
    const std::int64_t at = r * p.c.shape[1] + p.column;
    HWY_DYNAMIC_DISPATCH(ActivateRow)
    (p.c.row(r) + p.column, p.columns, e.activation, e.keep == nullptr ? nullptr : e.keep + at,
     e.slope == nullptr ? nullptr : e.slope + at);
  }
}

// The right operand's panels [begin, end) of k rows, `stride` elements apart.
void pack_panels(const Operand& b, std::int64_t k, std::int64_t n, std::int64_t begin,
                 std::int64_t end, std::int64_t stride, std::uint16_t* out) {
  for (std::int64_t panel = begin; panel < end; ++panel, out += stride) {
    const std::int64_t column = panel * unit::kColumns;
    unit::pack_panel({b.data + column * b.col, b.row, b.col}, k,
                     std::min(unit::kColumns, n - column), out);
  }
}

/// How C is cut into chunks. No bit depends on it.
struct Cut {
  std::int64_t rows, panels;
};

// Smaller chunks than the caches ask for only where the threads would have none.
Cut cut(std::int64_t m, std::int64_t row_limit, std::int64_t panels, std::int64_t panel_limit) {
  const std::int64_t threads = num_threads(), wanted = threads == 1 ? 1 : 3 * threads;
  Cut c{std::min(m, row_limit), std::min(panels, panel_limit)};
  while (chunk_count(m, c.rows) * chunk_count(panels, c.panels) < wanted &&
         (c.panels > 1 || c.rows > unit::kTileRows)) {
    if (c.panels > 1 && (c.panels * unit::kColumns >= c.rows || c.rows <= unit::kTileRows)) {
      c.panels = (c.panels + 1) / 2;
    } else {
      c.rows = (c.rows / 2 + unit::kTileRows - 1) / unit::kTileRows * unit::kTileRows;
    }
  }
  return c;
}

// f(chunk) for each chunk of C.
template <class F>
void for_each_chunk(const Product& whole, const Cut& c, F f) {
  const std::int64_t m = whole.c.shape[0], n = whole.c.shape[1];
  const std::int64_t width = c.panels * unit::kColumns, columns = chunk_count(n, width);
  parallel_for(chunk_count(m, c.rows) * columns, [&](std::int64_t chunk) {
    Product p = whole;
    p.row = chunk / columns * c.rows;
    p.rows = std::min(c.rows, m - p.row);
    p.column = chunk % columns * width;
    p.columns = std::min(width, n - p.column);
    f(p);
  });
}

// Scratch in elements of bf16: two to a float, and rows up to whole tiles.
std::uint16_t* bf16_scratch(std::int64_t elements) {
  return reinterpret_cast<std::uint16_t*>(thread_scratch((elements + 1) / 2));
}

std::int64_t strip_room(std::int64_t rows, std::int64_t steps) {
  return chunk_count(rows, unit::kTileRows) * unit::kTileRows * steps * unit::kDepth;
}

void wide(const Product& whole, std::uint16_t* panels) {
  const std::int64_t n = whole.c.shape[1], steps = unit::whole_steps(whole.k);
  const std::int64_t stride = steps * unit::kPanelStep, count = chunk_count(n, unit::kColumns);
  if (!whole.epilogue.packed) {
    parallel_for(count, [&](std::int64_t panel) {
      pack_panels(whole.b, whole.k, n, panel, panel + 1, stride, panels + panel * stride);
    });
  }
  const std::int64_t in_l2 = kPanelBytes / std::max<std::int64_t>(1, 2 * stride);
  const Cut c = cut(whole.c.shape[0], kRowBlock, count, std::max<std::int64_t>(4, in_l2));
  for_each_chunk(whole, c, [&](const Product& p) {
    std::uint16_t* strips = bf16_scratch(strip_room(p.rows, steps));
    unit::pack_strips(p.part_of_a(0), p.rows, p.k, p.tiles, strips);
    const float* bias = p.epilogue.bias;
    multiply(p, {.strips = strips,
                 .panels = panels + p.column / unit::kColumns * stride,
                 .panel_stride = stride,
                 .steps = steps,
                 .bias = bias == nullptr ? nullptr : bias + p.column,
                 .accumulate = p.epilogue.accumulate});
    finish(p);
  });
}

void deep(const Product& whole) {
  constexpr std::int64_t kSteps = kDeepBlock / unit::kDepth, kStride = kSteps * unit::kPanelStep;
  const std::int64_t n = whole.c.shape[1];
  const Cut c = cut(whole.c.shape[0], kDeepRows, chunk_count(n, unit::kColumns), kDeepPanels);
  for_each_chunk(whole, c, [&](const Product& p) {
    const std::int64_t first = p.column / unit::kColumns;
    const std::int64_t count = chunk_count(p.columns, unit::kColumns);
    std::uint16_t* panels = bf16_scratch(count * kStride + strip_room(p.rows, kSteps));
    std::uint16_t* strips = panels + count * kStride;
    for (std::int64_t i = 0; i < p.k; i += kDeepBlock) {
      const std::int64_t k = std::min(kDeepBlock, p.k - i);
      pack_panels({p.b.data + i * p.b.row, p.b.row, p.b.col}, k, n, first, first + count, kStride,
                  panels);
      unit::pack_strips(p.part_of_a(i), p.rows, k, p.tiles, strips);
      const float* bias = i == 0 ? p.epilogue.bias : nullptr;
      multiply(p, {.strips = strips,
                   .panels = panels,
                   .panel_stride = kStride,
                   .steps = unit::whole_steps(k),
                   .bias = bias == nullptr ? nullptr : bias + p.column,
                   .accumulate = i > 0 || p.epilogue.accumulate});
    }
    finish(p);
  });
}

}  // namespace

void gemm_bf16(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
               View<float, 1> panels, Stream) {
  if (c.shape[0] == 0 || c.shape[1] == 0) {
    return;
  }
  const Product whole{.a = a,
                      .b = b,
                      .c = c,
                      .k = k,
                      .epilogue = epilogue,
                      .tiles = bf16_unit() == Bf16Unit::tiles};
  if (k > kGemmWideK || (a.row == 1 && a.col != 1 && k > kShort)) {
    deep(whole);
  } else {
    wide(whole, reinterpret_cast<std::uint16_t*>(panels.data));
  }
}

}  // namespace tessera::cpu
#endif
