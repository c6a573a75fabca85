// Operands of a product copied to where the tile reads them in order. Re-included once per SIMD
// target.
#if defined(TESSERA_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_MATMUL_PACK_INL_H_
#undef TESSERA_MATMUL_PACK_INL_H_
#else
#define TESSERA_MATMUL_PACK_INL_H_
#endif

#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::tile::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

/// Columns of a panel.
HWY_INLINE std::int64_t PanelColumns() { return 2 * LaneCount(); }

/// `columns` columns of k rows of b as panels, zero-filled to full width, `stride` floats apart.
/// Rows contiguous: each is read once over all panels.
HWY_INLINE void PackContiguous(const Operand& b, std::int64_t k, std::int64_t columns,
                               std::int64_t stride, float* out) {
  const std::int64_t lanes = LaneCount(), width = PanelColumns();
  for (std::int64_t i = 0; i < k; ++i) {
    const float* from = b.data + i * b.row;
    float* to = out + i * width;
    for (std::int64_t j = 0; j < columns; j += width, to += stride) {
      const std::int64_t left = columns - j;
      hn::StoreU(LoadN(left, from + j), D(), to);
      hn::StoreU(left > lanes ? LoadN(left - lanes, from + j + lanes) : hn::Zero(D()), D(),
                 to + lanes);
    }
  }
}

/// One panel of columns that are contiguous, as the weights of a linear layer are.
HWY_INLINE void PackTransposed(const Operand& b, std::int64_t k, std::int64_t valid, float* out) {
  const std::int64_t width = PanelColumns();
  if (b.row == 1) {
    Transpose(b.data, b.col, valid, k, width, out);
  }
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = b.row == 1 ? valid : 0; j < width; ++j) {
      out[i * width + j] = j < valid ? b.data[i * b.row + j * b.col] : 0.0F;
    }
  }
}

/// Panels [begin, end) of a stretch of k rows of b, `stride` floats apart in out.
HWY_INLINE void PackPanels(const Operand& b, std::int64_t k, std::int64_t n, std::int64_t begin,
                           std::int64_t end, std::int64_t stride, float* out) {
  const std::int64_t width = PanelColumns(), first = begin * width;
  const std::int64_t last = end * width < n ? end * width : n;
  const Operand part{b.data + first * b.col, b.row, b.col};
  if (b.col == 1) {
    PackContiguous(part, k, last - first, stride, out);
    return;
  }
  for (std::int64_t j = first; j < last; j += width, out += stride) {
    const Operand panel{b.data + j * b.col, b.row, b.col};
    PackTransposed(panel, k, last - j < width ? last - j : width, out);
  }
}

/// The rows of one tile of a transposed operand side by side, [k][rows]; writes up to a vector past
/// the end.
HWY_INLINE void PackRows(const Operand& a, std::int64_t rows, std::int64_t k, float* out) {
  for (std::int64_t i = 0; i < k; ++i, out += rows) {
    const float* from = a.data + i * a.col;
    for (std::int64_t r = 0; r < rows; r += LaneCount()) {
      hn::StoreU(LoadN(rows - r, from + r), D(), out + r);
    }
  }
}

}  // namespace tessera::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
