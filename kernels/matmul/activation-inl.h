// relu, gelu and silu and their slopes on vectors. Re-included once per SIMD target.
#if defined(TESSERA_MATMUL_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_MATMUL_ACTIVATION_INL_H_
#undef TESSERA_MATMUL_ACTIVATION_INL_H_
#else
#define TESSERA_MATMUL_ACTIVATION_INL_H_
#endif

#include "core/simd-inl.h"
#include "kernels/matmul/matmul.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::activation::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

/// Phi(x), the normal distribution function, and exp(-x^2/2), which its density shares.
struct Normal {
  V cdf, bell;
};

// Phi(-|x|) = erfc(a) / 2 with a = |x| / sqrt(2). erfc(a) exp(a^2) = t R(t) with t = 1 / (1 + 0.35
// a) is smooth over all a >= 0; R is our minimax fit of degree 9 (relative error 1.3e-7). The error
// is relative also in the far tail, where an absolute fit would lose gelu's sign of small values.
HWY_INLINE Normal NormalOf(V x) {
  const D d;
  const V one = hn::Set(d, 1.0F);
  // the bound keeps an infinite x from 0 * infinity; Min passes its second operand on where NaN
  const V size = hn::Min(hn::Set(d, 1e30F), hn::Abs(x));
  const V t = Reciprocal(hn::MulAdd(hn::Set(d, 0.24748737F), size, one));
  V r = hn::MulAdd(hn::Set(d, 0.02129995925F), t, hn::Set(d, -0.0909689965F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.1181246505F));
  r = hn::MulAdd(r, t, hn::Set(d, -0.050986586F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.07502353F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.055701574F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.08173732F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.0925996635F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.098735728F));
  r = hn::MulAdd(r, t, hn::Set(d, 0.0987331645F));
  const V bell = Exp(hn::Mul(hn::Mul(hn::Set(d, -0.5F), x), x), -70.0F);
  const V tail = hn::Mul(hn::Mul(r, t), bell);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)), bell};
}

HWY_INLINE V Sigmoid(V x) {
  const D d;
  // exp(80) keeps the sum finite
  const V e = Exp(hn::Min(hn::Set(d, 80.0F), hn::Neg(x)));
  return Reciprocal(hn::Add(hn::Set(d, 1.0F), e));
}

/// act(x) and act'(x), which share most of their work.
struct Activated {
  V value, slope;
};

// relu: x > 0; gelu: Phi(x) + x phi(x); silu: s (1 + x (1 - s)).
HWY_INLINE Activated ActivateWithSlope(V x, Activation activation) {
  const D d;
  const V one = hn::Set(d, 1.0F);
  switch (activation) {
    case Activation::relu:
      // not Max, which may give 0 for NaN
      return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x),
              hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), one)};
    case Activation::gelu: {
      const Normal n = NormalOf(x);
      return {hn::Mul(x, n.cdf), hn::MulAdd(hn::Mul(x, hn::Set(d, 0.39894228F)), n.bell, n.cdf)};
    }
    case Activation::silu: {
      const V s = Sigmoid(x);
      return {hn::Mul(x, s), hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one))};
    }
    case Activation::none:
      break;
  }
  return {x, one};
}

HWY_INLINE V Activate(V x, Activation activation) { return ActivateWithSlope(x, activation).value; }

HWY_INLINE V ActivateSlope(V x, Activation activation) {
  return ActivateWithSlope(x, activation).slope;
}

}  // namespace tessera::activation::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
