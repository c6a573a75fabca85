// What becomes of the sums of a tile: rows of C, whole vectors or their first floats, with bias,
// and activated. Re-included once per SIMD target.
#if defined(TESSERA_MATMUL_EPILOGUE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_MATMUL_EPILOGUE_INL_H_
#undef TESSERA_MATMUL_EPILOGUE_INL_H_
#else
#define TESSERA_MATMUL_EPILOGUE_INL_H_
#endif

#include "kernels/matmul/activation-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::tile::HWY_NAMESPACE {

/// Sums to rows of c: whole vectors, or `valid` floats. They begin at the bias (or zero), or go on
/// from c.
template <bool kWhole>
struct ToRows {
  static constexpr bool kUnrolled = kWhole;
  float* c;
  std::int64_t ld, valid;
  const float* bias;
  bool accumulate;

  HWY_INLINE bool Continues() const { return accumulate; }
  HWY_INLINE V At(int vector, const float* from) const {
    const std::int64_t first = vector * LaneCount();
    return kWhole ? hn::LoadU(D(), from + first) : LoadN(valid - first, from + first);
  }
  template <int kVectors>
  HWY_INLINE void First(V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      v[j] = bias != nullptr ? At(j, bias) : hn::Zero(D());
    }
  }
  template <int kVectors>
  HWY_INLINE void Load(int row, V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      v[j] = At(j, c + row * ld);
    }
  }
  template <int kVectors>
  HWY_INLINE void Store(int row, const V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      const std::int64_t first = j * LaneCount();
      if (kWhole) {
        hn::StoreU(v[j], D(), c + row * ld + first);
      } else {
        StoreN(v[j], valid - first, c + row * ld + first);
      }
    }
  }
};

/// The same, but for activated sums in c and, if asked for, the sums themselves in `keep` and the
/// slopes of the activation in `slope`, rows `ld_keep` apart.
struct ToActivatedRows {
  static constexpr bool kUnrolled = false;
  ToRows<false> rows;
  float *keep, *slope;
  std::int64_t ld_keep;
  Activation activation;

  HWY_INLINE bool Continues() const { return rows.Continues(); }
  template <int kVectors>
  HWY_INLINE void First(V (&v)[kVectors]) const {
    rows.First(v);
  }
  template <int kVectors>
  HWY_INLINE void Load(int row, V (&v)[kVectors]) const {
    rows.Load(row, v);
  }
  template <int kVectors>
  HWY_INLINE void Store(int row, const V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      const std::int64_t first = j * LaneCount(), left = rows.valid - first;
      const auto a = activation::HWY_NAMESPACE::ActivateWithSlope(v[j], activation);
      if (keep != nullptr) {
        StoreN(v[j], left, keep + row * ld_keep + first);
      }
      if (slope != nullptr) {
        StoreN(a.slope, left, slope + row * ld_keep + first);
      }
      StoreN(a.value, left, rows.c + row * rows.ld + first);
    }
  }
};

}  // namespace tessera::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
