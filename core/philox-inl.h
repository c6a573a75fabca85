// Philox in vectors for _cpu.cpp files: a block a lane, the same words as core/rng.h at every
// level; and the dropout mask made of them. Re-included once per SIMD target.
#if defined(TESSERA_CORE_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CORE_PHILOX_INL_H_
#undef TESSERA_CORE_PHILOX_INL_H_
#else
#define TESSERA_CORE_PHILOX_INL_H_
#endif

#include <hwy/highway.h>

#include "core/rng.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DU = hn::ScalableTag<std::uint32_t>;
using VU = hn::Vec<DU>;

/// Elements that one call of PhiloxWords() makes.
HWY_INLINE std::int64_t PhiloxCount() { return 4 * static_cast<std::int64_t>(hn::Lanes(DU())); }

#if HWY_TARGET != HWY_SCALAR

struct Product {
  VU low, high;
};

// All 64 bits of x * m, lane by lane: even lanes, then odd ones moved to even places.
HWY_INLINE Product Multiply(VU x, VU m) {
  const hn::RepartitionToWide<DU> wide;
  const auto odd_x = hn::BitCast(DU(), hn::ShiftRight<32>(hn::BitCast(wide, x)));
  const auto even = hn::MulEven(x, m), odd = hn::MulEven(odd_x, m);
  return {hn::OddEven(hn::BitCast(DU(), hn::ShiftLeft<32>(odd)), hn::BitCast(DU(), even)),
          hn::OddEven(hn::BitCast(DU(), odd), hn::BitCast(DU(), hn::ShiftRight<32>(even)))};
}

/// Words of the elements 4 block, 4 block + 1, ... (PhiloxCount() of them).
HWY_INLINE void PhiloxWords(RngKey key, std::uint64_t block, std::uint32_t* words) {
  const DU d;
  const VU low = hn::Set(d, static_cast<std::uint32_t>(block));
  VU x = hn::Add(low, hn::Iota(d, 0));
  // a lane whose low word wrapped around carries into the high one
  VU y = hn::Sub(hn::Set(d, static_cast<std::uint32_t>(block >> 32)),
                 hn::VecFromMask(d, hn::Lt(x, low)));
  VU z = hn::Set(d, static_cast<std::uint32_t>(key.stream));
  VU w = hn::Set(d, static_cast<std::uint32_t>(key.stream >> 32));
  VU key0 = hn::Set(d, static_cast<std::uint32_t>(key.seed));
  VU key1 = hn::Set(d, static_cast<std::uint32_t>(key.seed >> 32));
  const VU m0 = hn::Set(d, 0xD2511F53U), m1 = hn::Set(d, 0xCD9E8D57U);
  for (int round = 0; round < 10; ++round) {
    const Product p0 = Multiply(x, m0), p1 = Multiply(z, m1);
    x = hn::Xor(hn::Xor(p1.high, y), key0);
    y = p1.low;
    z = hn::Xor(hn::Xor(p0.high, w), key1);
    w = p0.low;
    key0 = hn::Add(key0, hn::Set(d, 0x9E3779B9U));
    key1 = hn::Add(key1, hn::Set(d, 0xBB67AE85U));
  }
  hn::StoreInterleaved4(x, y, z, w, d, words);
}

#else

HWY_INLINE void PhiloxWords(RngKey key, std::uint64_t block, std::uint32_t* words) {
  const Philox4 b = key.block(block);
  words[0] = b.x;
  words[1] = b.y;
  words[2] = b.z;
  words[3] = b.w;
}

#endif

/// y_i = kept x_i where the draw of element first + i reaches p, else 0, for i < n. y may be x.
/// Chosen, not multiplied: a dropped infinity is zero, not NaN.
HWY_INLINE void DropRun(RngKey key, std::uint64_t first, float p, float kept, const float* x,
                        std::int64_t n, float* y) {
  const DU d;
  const D df;
  const V vp = hn::Set(df, p), vkept = hn::Set(df, kept), unit = hn::Set(df, 0x1.0p-24F);
  HWY_ALIGN std::uint32_t words[5 * hn::MaxLanes(DU())];   // the last vector may begin late
  const auto head = static_cast<std::int64_t>(first % 4);  // a draw begins with a whole block
  for (std::int64_t at = -head; at < n; at += PhiloxCount()) {
    PhiloxWords(
        key, (first - static_cast<std::uint64_t>(head) + static_cast<std::uint64_t>(at + head)) / 4,
        words);
    const std::int64_t end = at + PhiloxCount() < n ? at + PhiloxCount() : n;
    for (std::int64_t i = at < 0 ? 0 : at; i < end; i += LaneCount()) {
      const auto bits = hn::ShiftRight<8>(hn::LoadU(d, words + (i - at)));
      const V u = hn::Mul(unit, hn::ConvertTo(df, hn::BitCast(hn::RebindToSigned<DU>(), bits)));
      const V scaled = hn::Mul(vkept, LoadN(end - i, x + i));
      StoreN(hn::IfThenElseZero(hn::Ge(u, vp), scaled), end - i, y + i);
    }
  }
}

}  // namespace tessera::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_CORE_PHILOX_INL_H_
