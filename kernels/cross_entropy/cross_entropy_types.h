// What host and device units of cross_entropy share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/target.h"

namespace tessera {

/// Rows (n, d) as operands of tensor cores: in groups of 8 rows, each group in units of 512 bytes,
/// a unit four blocks of 8 rows by 8 of the depth as bf16, or by 4 as f32. Of `together` groups the
/// first units lie side by side, then the second ones. Rows and depth are filled with zeros.
struct PackedRows {
  static constexpr std::int64_t kUnitWords = 128;  ///< of 4 bytes
  static constexpr std::int64_t kF32Depth = 16;    ///< a unit of f32
  static constexpr std::int64_t kBf16Depth = 32;   ///< a unit of bf16
  std::int64_t rows, units, together;

  TESSERA_INLINE PackedRows(std::int64_t n, std::int64_t d, std::int64_t tile, std::int64_t depth,
                            std::int64_t groups_together = 1)
      : rows(ceil(n, tile) * tile), units(ceil(d, depth)), together(groups_together) {}
  [[nodiscard]] TESSERA_INLINE std::int64_t words() const { return rows / 8 * units * kUnitWords; }

  TESSERA_INLINE static constexpr std::int64_t ceil(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
  }
};

/// Where the scratch of cross_entropy_loss lies on devices, in floats: the packed weight (v, d) and
/// the bias, both to whole tiles of classes.
struct LossScratch {
  static constexpr std::int64_t kColumns = 256;  ///< classes of a tile
  static constexpr std::int64_t kMostUnits =
      16;  ///< of a row of h, so that 128 fit in shared memory
  PackedRows weight;
  std::int64_t tiles, bias, size;

  TESSERA_INLINE LossScratch(std::int64_t v, std::int64_t d,
                             std::int64_t depth = PackedRows::kF32Depth)
      : weight(v, d, kColumns, depth, kColumns / 8),
        tiles(weight.rows / kColumns),
        bias(weight.words()),
        size(bias + weight.rows) {}
  /// The d of the widest rows.
  static constexpr std::int64_t widest(std::int64_t depth) { return kMostUnits * depth; }
};

/// Where the scratch of cross_entropy_gradients lies, in floats: h (t, d) and weight (v, d) packed
/// as bf16, the bias, four numbers of each row, and where few classes and many rows have the rows
/// cut in parts, dw and db of each part. A function of the shape alone, so that the bits are.
struct GradientScratch {
  static constexpr std::int64_t kOwn = 128;     ///< rows or classes of a block
  static constexpr std::int64_t kPassing = 64;  ///< of the others, at a time
  static constexpr std::int64_t kWidest = 256;  ///< d whose sums fit in registers
  PackedRows h, weight;
  std::int64_t part_tiles, parts;  ///< tiles of passing rows for a part of dw
  std::int64_t at_weight, at_bias, at_facts, at_parts, size;

  TESSERA_INLINE GradientScratch(std::int64_t t, std::int64_t v, std::int64_t d)
      : h(t, d, kOwn, PackedRows::kBf16Depth),
        weight(v, d, kOwn, PackedRows::kBf16Depth),
        part_tiles(tiles_of_part(t, weight.rows / kOwn)),
        parts(PackedRows::ceil(PackedRows::ceil(t, kPassing), part_tiles)),
        at_weight(h.words()),
        at_bias(at_weight + weight.words()),
        at_facts(at_bias + weight.rows),
        at_parts(at_facts + 4 * h.rows),
        size(at_parts + (parts > 1 ? parts * v * (d + 1) : 0)) {}

 private:
  // As many parts as give the card two blocks a multiprocessor, of a thousand rows at least.
  TESSERA_INLINE static std::int64_t tiles_of_part(std::int64_t t, std::int64_t owners) {
    constexpr std::int64_t kEnoughBlocks = 256, kShortest = 1024 / kPassing;
    const std::int64_t tiles = PackedRows::ceil(t, kPassing);
    const std::int64_t wanted = PackedRows::ceil(kEnoughBlocks, owners > 0 ? owners : 1);
    const std::int64_t length = PackedRows::ceil(tiles, wanted);
    return length > kShortest ? length : kShortest;
  }
};

}  // namespace tessera
