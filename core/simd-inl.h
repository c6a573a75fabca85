// Highway helpers for _cpu.cpp files: sums, products and exponentials over ragged runs of floats.
// Re-included once per SIMD target. Sums run in a fixed order at each level, so repeats give the
// same bits.
#if defined(TESSERA_CORE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CORE_SIMD_INL_H_
#undef TESSERA_CORE_SIMD_INL_H_
#else
#define TESSERA_CORE_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace tessera::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

HWY_INLINE std::int64_t LaneCount() { return static_cast<std::int64_t>(hn::Lanes(D())); }

/// Mask of the first min(left, lanes) lanes.
HWY_INLINE hn::Mask<D> Head(std::int64_t left) {
  const std::int64_t lanes = LaneCount();
  return hn::FirstN(D(), static_cast<std::size_t>(left < lanes ? left : lanes));
}

/// The first min(left, lanes) floats of p, zero beyond. SSE4 and scalar have no masked memory
/// operations: Highway's stand-ins read and write whole vectors, past the end of the run.
HWY_INLINE V LoadN(std::int64_t left, const float* p) {
  if (left >= LaneCount()) {
    return hn::LoadU(D(), p);
  }
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(Head(left), D(), p);
#else
  HWY_ALIGN float part[hn::MaxLanes(D())] = {};
  for (std::int64_t i = 0; i < left; ++i) {
    part[i] = p[i];
  }
  return hn::Load(D(), part);
#endif
}

/// Writes the first min(left, lanes) lanes of v to p.
HWY_INLINE void StoreN(V v, std::int64_t left, float* p) {
  if (left >= LaneCount()) {
    hn::StoreU(v, D(), p);
    return;
  }
#if HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(v, Head(left), D(), p);
#else
  HWY_ALIGN float part[hn::MaxLanes(D())];
  hn::Store(v, D(), part);
  for (std::int64_t i = 0; i < left; ++i) {
    p[i] = part[i];
  }
#endif
}

/// v with lanes from `left` on set to zero.
HWY_INLINE V ZeroFrom(std::int64_t left, V v) {
  return left >= LaneCount() ? v : hn::IfThenElseZero(Head(left), v);
}

/// Calls body(i, n) for each vector of a run of `count` floats, n of them left. Whole vectors and
/// the tail are two copies of the body: in the first LoadN and StoreN are plain.
template <class Body>
HWY_INLINE void ForVectors(std::int64_t count, Body body) {
  std::int64_t i = 0;
  for (; i + LaneCount() <= count; i += LaneCount()) {
    body(i, LaneCount());
  }
  if (i < count) {
    body(i, count - i);
  }
}

HWY_INLINE float Total(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

HWY_INLINE float Sum(const float* x, std::int64_t n) {
  V acc = hn::Zero(D());
  ForVectors(n,
             [&](std::int64_t i, std::int64_t m) HWY_ATTR { acc = hn::Add(acc, LoadN(m, x + i)); });
  return Total(acc);
}

HWY_INLINE float Dot(const float* x, const float* y, std::int64_t n) {
  V acc = hn::Zero(D());
  ForVectors(n, [&](std::int64_t i, std::int64_t m)
                    HWY_ATTR { acc = hn::MulAdd(LoadN(m, x + i), LoadN(m, y + i), acc); });
  return Total(acc);
}

/// y += a x
HWY_INLINE void Axpy(float a, const float* x, float* y, std::int64_t n) {
  const V va = hn::Set(D(), a);
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    StoreN(hn::MulAdd(va, LoadN(m, x + i), LoadN(m, y + i)), m, y + i);
  });
}

/// y += x
HWY_INLINE void AddRun(const float* x, float* y, std::int64_t n) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m)
                    HWY_ATTR { StoreN(hn::Add(LoadN(m, y + i), LoadN(m, x + i)), m, y + i); });
}

/// out (n) = scale * x (k) B (k, n), rows of B `ld` apart.
HWY_INLINE void VectorMatrix(const float* x, std::int64_t k, const float* b, std::int64_t ld,
                             std::int64_t n, float scale, float* out) {
  for (std::int64_t j = 0; j < n; j += LaneCount()) {
    const std::int64_t m = n - j;
    V acc = hn::Zero(D());
    for (std::int64_t i = 0; i < k; ++i) {
      acc = hn::MulAdd(hn::Set(D(), x[i]), LoadN(m, b + i * ld + j), acc);
    }
    StoreN(hn::Mul(acc, hn::Set(D(), scale)), m, out + j);
  }
}

/// Largest of n >= 1 values; NaN anywhere gives NaN or the maximum, the exponentials that follow
/// give NaN.
HWY_INLINE float Largest(const float* x, std::int64_t n) {
  V best = hn::Set(D(), x[0]);
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V v = LoadN(m, x + i);
    best = hn::Max(best, m >= LaneCount() ? v : hn::IfThenElse(Head(m), v, best));
  });
  return hn::GetLane(hn::MaxOfLanes(D(), best));
}

/// exp(v), NaN for NaN, zero below `least`: for those who multiply on, a product that falls out of
/// the normal range costs a hundred ordinary ones.
HWY_INLINE V Exp(V v, float least = -87.0F) {
  const auto negligible = hn::Lt(v, hn::Set(D(), least));  // false for NaN
#if HWY_TARGET <= HWY_AVX3
  // 2^n e^r with |r| <= ln 2 / 2: our minimax fit of degree 6 (2e-9), ln 2 in two parts, the power
  // by one instruction.
  const D d;
  const V n = hn::Round(hn::Mul(v, hn::Set(d, 1.44269504F)));
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693145752F), v);
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6F), r);
  V p = hn::MulAdd(hn::Set(d, 0.00139411084F), r, hn::Set(d, 0.0083751264F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.0416663529F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.166664155F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  return V{_mm512_maskz_scalef_ps(hn::Not(negligible).raw, p.raw, n.raw)};
#else
  // Highway's cuts off below by a comparison that NaN fails, which gives 0 and would hide a
  // diverged run.
  return hn::IfThenZeroElse(negligible, hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(D(), v)));
#endif
}

/// 1 / v for 1e-37 < |v| < 1e37: within 1 ulp.
HWY_INLINE V Reciprocal(V v) {
#if HWY_TARGET <= HWY_AVX3
  // 14 bits, doubled by a Newton step: a 512-bit division blocks its port for 16 cycles
  const V first = hn::ApproximateReciprocal(v);
  return hn::MulAdd(first, hn::NegMulAdd(v, first, hn::Set(D(), 1.0F)), first);
#else
  return hn::Div(hn::Set(D(), 1.0F), v);
#endif
}

/// x := exp(x - shift); returns the sum.
HWY_INLINE float ExpSum(float* x, std::int64_t n, float shift) {
  V acc = hn::Zero(D());
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V e = Exp(hn::Sub(LoadN(m, x + i), hn::Set(D(), shift)));
    StoreN(e, m, x + i);
    acc = hn::Add(acc, ZeroFrom(m, e));
  });
  return Total(acc);
}

HWY_INLINE void Scale(float a, float* x, std::int64_t n) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m)
                    HWY_ATTR { StoreN(hn::Mul(hn::Set(D(), a), LoadN(m, x + i)), m, x + i); });
}

}  // namespace tessera::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
