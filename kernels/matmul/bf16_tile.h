// The bf16 unit of the CPU: what the one file with AVX512-BF16 and AMX flags gives to the rest.
// Plain numbers and pointers only: an inline function or template of any other header would be
// compiled with those flags, and the linker might pick that copy for machines without them.
#pragma once

#include <cstdint>

#include "kernels/matmul/matmul_types.h"

namespace tessera::cpu::bf16_tile {

constexpr std::int64_t kColumns = 32;   ///< of a panel of the right operand
constexpr std::int64_t kDepth = 32;     ///< of K in a step; operands are zero-filled to whole steps
constexpr std::int64_t kDotRows = 14;   ///< of a strip for multiply_dots
constexpr std::int64_t kTileRows = 32;  ///< of a strip for multiply_tiles, zero-filled to 16
constexpr std::int64_t kPanelStep = kDepth * kColumns;  ///< elements of a panel's step

constexpr std::int64_t whole_steps(std::int64_t k) { return (k + kDepth - 1) / kDepth; }

/// Panels of a right operand, packed, and strips of a left one: part of C at `c`, or all of it.
struct Block {
  const std::uint16_t* strips;  ///< of pack_strips, all of `rows`
  const std::uint16_t* panels;  ///< of pack_panel
  std::int64_t panel_stride;    ///< elements from one panel to the next
  std::int64_t steps;           ///< of K
  std::int64_t rows, columns;   ///< of C
  float* c;
  std::int64_t ld;    ///< floats from a row of c to the next
  const float* bias;  ///< (columns) or null: where the sums begin
  bool accumulate;    ///< they begin at what c holds
};

/// `columns` <= 32 columns of k rows of b as one panel [steps][16][32][2]: for each pair of rows of
/// b the pairs of all columns; zero beyond the columns and beyond k. bf16, rounded to nearest even.
void pack_panel(Operand b, std::int64_t k, std::int64_t columns, std::uint16_t* out);
/// Rows of a as strips [steps][rows of the strip][32]: of up to 14 rows, as many as strip_rows
/// says, or with `tiles` of up to 32, zero-filled to 16 or 32.
void pack_strips(Operand a, std::int64_t rows, std::int64_t k, bool tiles, std::uint16_t* out);

/// c = strips panels, by vdpbf16ps: for each pair along K two multiply-adds in a lane.
void multiply_dots(const Block& block);
/// The same on tile registers (AMX), 32 x 32 of C at a time.
void multiply_tiles(const Block& block);

}  // namespace tessera::cpu::bf16_tile
