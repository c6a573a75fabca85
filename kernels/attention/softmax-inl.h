// Rows of scores: softmax with scale, bias and dropout, and its slope.
// Re-included once per SIMD target.
#if defined(TESSERA_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_SOFTMAX_INL_H_
#undef TESSERA_ATTENTION_SOFTMAX_INL_H_
#else
#define TESSERA_ATTENTION_SOFTMAX_INL_H_
#endif

#include <limits>

#include "core/philox-inl.h"
#include "kernels/attention/task-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace tile::HWY_NAMESPACE;  // NOLINT: the tile and the helpers of this target

// x := x times the dropout mask of query i, which is 0 or 1 / (1 - p).
HWY_INLINE void Drop(const HeadTask& t, std::int64_t i, std::int64_t n, float* x) {
  if (t.dropout == 0.0F) {
    return;
  }
  DropRun(t.key, t.first_pair + static_cast<std::uint64_t>(i * t.keys), t.dropout,
          1.0F / (1.0F - t.dropout), x, n, x);
}

// s (keys) := softmax of query i's scaled and biased scores over its first n keys, zero beyond;
// whole vectors written. n fills kVectors vectors but for the last.
template <int kVectors>
HWY_INLINE void SoftmaxInRegisters(const HeadTask& t, std::int64_t i, std::int64_t n, float* s) {
  const std::int64_t lanes = LaneCount();
  constexpr int kLast = kVectors - 1;
  const auto last = Head(n - kLast * lanes);
  const V scale = hn::Set(D(), t.scale);
  V x[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    x[j] = hn::Mul(hn::Load(D(), s + j * lanes), scale);
  }
  if (t.bias != nullptr) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      x[j] = hn::Add(x[j], LoadN(n - j * lanes, t.bias + i * t.keys + j * lanes));
    }
  }
  const V lowest = hn::Set(D(), -std::numeric_limits<float>::infinity());
  x[kLast] = hn::IfThenElse(last, x[kLast], lowest);
  V top = x[0];
#pragma GCC unroll 4
  for (int j = 1; j < kVectors; ++j) {
    top = hn::Max(top, x[j]);
  }
  top = hn::MaxOfLanes(D(), top);
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    x[j] = Exp(hn::Sub(x[j], top));
  }
  x[kLast] = hn::IfThenElseZero(last, x[kLast]);
  V sum = x[0];
#pragma GCC unroll 4
  for (int j = 1; j < kVectors; ++j) {
    sum = hn::Add(sum, x[j]);
  }
  const V share = Reciprocal(hn::SumOfLanes(D(), sum));
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    hn::Store(hn::Mul(x[j], share), D(), s + j * lanes);
  }
}

// The same for rows of any length.
inline void SoftmaxInMemory(const HeadTask& t, std::int64_t i, std::int64_t n, float* s) {
  const std::int64_t lanes = LaneCount();
  const V scale = hn::Set(D(), t.scale);
  V top = hn::Set(D(), -std::numeric_limits<float>::infinity());
  for (std::int64_t j = 0; j < n; j += lanes) {
    V x = hn::Mul(hn::Load(D(), s + j), scale);
    if (t.bias != nullptr) {
      x = hn::Add(x, LoadN(n - j, t.bias + i * t.keys + j));
    }
    hn::Store(x, D(), s + j);
    top = hn::Max(top, hn::IfThenElse(Head(n - j), x, top));
  }
  top = hn::MaxOfLanes(D(), top);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < n; j += lanes) {
    const V e = hn::IfThenElseZero(Head(n - j), Exp(hn::Sub(hn::Load(D(), s + j), top)));
    hn::Store(e, D(), s + j);
    sum = hn::Add(sum, e);
  }
  const V share = Reciprocal(hn::SumOfLanes(D(), sum));
  for (std::int64_t j = 0; j < n; j += lanes) {
    hn::Store(hn::Mul(hn::Load(D(), s + j), share), D(), s + j);
  }
}

// Probabilities of query i over all keys, zero where invisible.
HWY_INLINE void Probabilities(const HeadTask& t, std::int64_t i, float* s) {
  const std::int64_t lanes = LaneCount(), n = t.Visible(i);
  if (n <= lanes) {
    SoftmaxInRegisters<1>(t, i, n, s);
  } else if (n <= 2 * lanes) {
    SoftmaxInRegisters<2>(t, i, n, s);
  } else if (n <= 3 * lanes) {
    SoftmaxInRegisters<3>(t, i, n, s);
  } else if (n <= 4 * lanes) {
    SoftmaxInRegisters<4>(t, i, n, s);
  } else {
    SoftmaxInMemory(t, i, n, s);
  }
  for (std::int64_t j = RoundUp(n, lanes); j < t.keys; j += lanes) {
    hn::Store(hn::Zero(D()), D(), s + j);
  }
}

// ds (keys) := scale p (m dP - sum of p m dP) with the dropout mask m, dbias the same without
// scale; p := m p.
HWY_INLINE void SoftmaxSlope(const HeadTask& t, std::int64_t i, float* p, float* ds) {
  const std::int64_t lanes = LaneCount(), n = t.Visible(i);
  Drop(t, i, n, ds);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < n; j += lanes) {
    const V slope = hn::IfThenElseZero(Head(n - j), hn::Load(D(), ds + j));
    hn::Store(slope, D(), ds + j);
    sum = hn::MulAdd(hn::Load(D(), p + j), slope, sum);
  }
  const V mean = hn::SumOfLanes(D(), sum), scale = hn::Set(D(), t.scale);
  std::int64_t j = 0;
  for (; j < n; j += lanes) {
    const V slope = hn::Mul(hn::Load(D(), p + j), hn::Sub(hn::Load(D(), ds + j), mean));
    if (t.dbias != nullptr) {
      StoreN(slope, t.keys - j, t.dbias + i * t.keys + j);
    }
    hn::Store(hn::Mul(slope, scale), D(), ds + j);
  }
  for (; j < t.keys; j += lanes) {
    hn::Store(hn::Zero(D()), D(), ds + j);
    if (t.dbias != nullptr) {
      StoreN(hn::Zero(D()), t.keys - j, t.dbias + i * t.keys + j);
    }
  }
  Drop(t, i, n, p);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
