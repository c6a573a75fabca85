// Layer norm on the CPU: a row stays in L1 over three passes (mean, deviations, output), so memory
// sees it once. Threads share blocks of 256 rows; weight and bias gradients are one partial per
// block, added in block order.
#include "kernels/layernorm/layernorm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layernorm/layernorm_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// The first n floats at p, zeros beyond. Before AVX2 Highway's masked load is an aligned full one,
// which faults on rows that are not aligned and reads past their end.
HWY_INLINE V Load(const float* p, std::int64_t n) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  if (n >= lanes) {
    return hn::LoadU(d, p);
  }
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#else
  HWY_ALIGN float head[hn::MaxLanes(d)] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    head[i] = p[i];
  }
  return hn::Load(d, head);
#endif
}

HWY_INLINE void Store(V v, float* p, std::int64_t n) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  if (n >= lanes) {
    hn::StoreU(v, d, p);
    return;
  }
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#else
  HWY_ALIGN float head[hn::MaxLanes(d)];
  hn::Store(v, d, head);
  for (std::int64_t i = 0; i < n; ++i) {
    p[i] = head[i];
  }
#endif
}

HWY_INLINE V ZeroBeyond(V v, std::int64_t n) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  return hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(n < lanes ? n : lanes)), v);
}

// Calls body(column, columns left) for each vector of a row.
template <class Body>
HWY_INLINE void ForColumns(std::int64_t width, Body body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t c = 0; c < width; c += lanes) {
    body(c, width - c);
  }
}

HWY_INLINE float Sum(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

void ForwardRow(const float* x, const float* weight, const float* bias, std::int64_t width,
                float epsilon, float* y, float* mean, float* rstd) {
  const D d;
  const auto size = static_cast<float>(width);
  V sum = hn::Zero(d);
  ForColumns(width,
             [&](std::int64_t c, std::int64_t n) HWY_ATTR { sum = hn::Add(sum, Load(x + c, n)); });
  const float m = Sum(sum) / size;
  const V vm = hn::Set(d, m);
  V squares = hn::Zero(d);
  ForColumns(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V deviation = ZeroBeyond(hn::Sub(Load(x + c, n), vm), n);
    squares = hn::MulAdd(deviation, deviation, squares);
  });
  const float r = 1.0F / std::sqrt(Sum(squares) / size + epsilon);
  const V vr = hn::Set(d, r);
  ForColumns(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = hn::Mul(hn::Sub(Load(x + c, n), vm), vr);
    const V out = hn::MulAdd(xhat, Load(weight + c, n), Load(bias + c, n));
    Store(out, y + c, n);
  });
  *mean = m;
  *rstd = r;
}

// With xhat = (x - mean) rstd and g = dy weight:
//   dx = rstd (g - <g> - xhat <g xhat>), <.> the mean over the row;
//   dweight = sum_rows dy xhat, dbias = sum_rows dy.
void BackwardRow(const float* dy, const float* x, const float* weight, std::int64_t width,
                 float mean, float rstd, float* dx, float* dweight, float* dbias) {
  const D d;
  const V vm = hn::Set(d, mean);
  const V vr = hn::Set(d, rstd);
  V sum_g = hn::Zero(d);
  V sum_gx = hn::Zero(d);
  ForColumns(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = ZeroBeyond(hn::Mul(hn::Sub(Load(x + c, n), vm), vr), n);
    const V up = Load(dy + c, n);
    const V g = hn::Mul(up, Load(weight + c, n));
    sum_g = hn::Add(sum_g, g);
    sum_gx = hn::MulAdd(g, xhat, sum_gx);
    Store(hn::MulAdd(up, xhat, Load(dweight + c, n)), dweight + c, n);
    Store(hn::Add(up, Load(dbias + c, n)), dbias + c, n);
  });
  const V mg = hn::Set(d, Sum(sum_g) / static_cast<float>(width));
  const V mgx = hn::Set(d, Sum(sum_gx) / static_cast<float>(width));
  ForColumns(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = hn::Mul(hn::Sub(Load(x + c, n), vm), vr);
    const V g = hn::Mul(Load(dy + c, n), Load(weight + c, n));
    const V out = hn::Mul(vr, hn::Sub(hn::Sub(g, mg), hn::Mul(xhat, mgx)));
    Store(out, dx + c, n);
  });
}

// Rows of one chunk: one dispatched call.
void ForwardRows(View<const float, 2> x, const float* weight, const float* bias, float epsilon,
                 View<float, 2> y, float* mean, float* rstd, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    ForwardRow(x.row(row), weight, bias, x.shape[1], epsilon, y.row(row), mean + row, rstd + row);
  }
}

void BackwardRows(View<const float, 2> dy, View<const float, 2> x, const float* weight,
                  const float* mean, const float* rstd, View<float, 2> dx, float* dweight,
                  float* dbias, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = x.shape[1];
  for (std::int64_t c = 0; c < width; ++c) {
    dweight[c] = dbias[c] = 0.0F;
  }
  for (std::int64_t row = begin; row < end; ++row) {
    BackwardRow(dy.row(row), x.row(row), weight, width, mean[row], rstd[row], dx.row(row), dweight,
                dbias);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

void layernorm_forward(View<const float, 2> x, View<const float, 1> weight,
                       View<const float, 1> bias, float epsilon, View<float, 2> y,
                       View<float, 1> mean, View<float, 1> rstd, Stream) {
  const std::int64_t rows = x.shape[0];
  parallel_for(chunk_count(rows, kLayerNormBlock), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kLayerNormBlock;
    HWY_DYNAMIC_DISPATCH(ForwardRows)
    (x, weight.data, bias.data, epsilon, y, mean.data, rstd.data, begin,
     std::min(begin + kLayerNormBlock, rows));
  });
}

void layernorm_backward(View<const float, 2> dy, View<const float, 2> x,
                        View<const float, 1> weight, View<const float, 1> mean,
                        View<const float, 1> rstd, View<float, 2> dx, View<float, 3> partials,
                        Stream) {
  const std::int64_t rows = x.shape[0];
  parallel_for(partials.shape[1], [&](std::int64_t block) {
    const std::int64_t begin = block * kLayerNormBlock;
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (dy, x, weight.data, mean.data, rstd.data, dx, &partials(0, block, 0), &partials(1, block, 0),
     begin, std::min(begin + kLayerNormBlock, rows));
  });
}

void layernorm_reduce(View<const float, 3> partials, View<float, 1> dweight, View<float, 1> dbias,
                      Stream) {
  for (std::int64_t c = 0; c < dweight.shape[0]; ++c) {
    float sum_weight = 0;
    float sum_bias = 0;
    for (std::int64_t b = 0; b < partials.shape[1]; ++b) {
      sum_weight += partials(0, b, c);
      sum_bias += partials(1, b, c);
    }
    dweight.data[c] = sum_weight;
    dbias.data[c] = sum_bias;
  }
}

}  // namespace tessera::cpu
#endif
