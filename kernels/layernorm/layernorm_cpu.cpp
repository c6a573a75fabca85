// Layer norm on the CPU: a row stays in L1 over three passes (mean, deviations, output), so memory
// sees it once; so does the sum of two rows that is normalised. Threads share blocks of 256 rows;
// weight and bias gradients are one partial per block, added in block order.
#include "kernels/layernorm/layernorm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layernorm/layernorm_cpu.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// sum = a + b; sum may be either.
void AddRow(const float* a, const float* b, std::int64_t width, float* sum) {
  ForVectors(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    StoreN(hn::Add(LoadN(n, a + c), LoadN(n, b + c)), n, sum + c);
  });
}

void ForwardRow(const float* x, const float* weight, const float* bias, std::int64_t width,
                float epsilon, float* y, float* mean, float* rstd) {
  const D d;
  const auto size = static_cast<float>(width);
  V sum = hn::Zero(d);
  ForVectors(width,
             [&](std::int64_t c, std::int64_t n) HWY_ATTR { sum = hn::Add(sum, LoadN(n, x + c)); });
  const float m = Total(sum) / size;
  const V vm = hn::Set(d, m);
  V squares = hn::Zero(d);
  ForVectors(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V deviation = ZeroFrom(n, hn::Sub(LoadN(n, x + c), vm));
    squares = hn::MulAdd(deviation, deviation, squares);
  });
  const float r = 1.0F / std::sqrt(Total(squares) / size + epsilon);
  const V vr = hn::Set(d, r);
  ForVectors(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = hn::Mul(hn::Sub(LoadN(n, x + c), vm), vr);
    const V out = hn::MulAdd(xhat, LoadN(n, weight + c), LoadN(n, bias + c));
    StoreN(out, n, y + c);
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
  ForVectors(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = ZeroFrom(n, hn::Mul(hn::Sub(LoadN(n, x + c), vm), vr));
    const V up = LoadN(n, dy + c);
    const V g = hn::Mul(up, LoadN(n, weight + c));
    sum_g = hn::Add(sum_g, g);
    sum_gx = hn::MulAdd(g, xhat, sum_gx);
    StoreN(hn::MulAdd(up, xhat, LoadN(n, dweight + c)), n, dweight + c);
    StoreN(hn::Add(up, LoadN(n, dbias + c)), n, dbias + c);
  });
  const V mg = hn::Set(d, Total(sum_g) / static_cast<float>(width));
  const V mgx = hn::Set(d, Total(sum_gx) / static_cast<float>(width));
  ForVectors(width, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V xhat = hn::Mul(hn::Sub(LoadN(n, x + c), vm), vr);
    const V g = hn::Mul(LoadN(n, dy + c), LoadN(n, weight + c));
    const V out = hn::Mul(vr, hn::Sub(hn::Sub(g, mg), hn::Mul(xhat, mgx)));
    StoreN(out, n, dx + c);
  });
}

// Rows of one chunk: one dispatched call.
void ForwardRows(View<const float, 2> x, const LayerNormResidual<float>& residual,
                 const float* weight, const float* bias, float epsilon, View<float, 2> y,
                 float* mean, float* rstd, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const float* from = x.row(row);
    if (residual.added.data != nullptr) {
      AddRow(from, residual.added.row(row), x.shape[1], residual.sum.row(row));
      from = residual.sum.row(row);
    }
    ForwardRow(from, weight, bias, x.shape[1], epsilon, y.row(row), mean + row, rstd + row);
  }
}

void BackwardRows(View<const float, 2> dy, View<const float, 2> dsum, View<const float, 2> x,
                  const float* weight, const float* mean, const float* rstd, View<float, 2> dx,
                  float* dweight, float* dbias, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = x.shape[1];
  for (std::int64_t c = 0; c < width; ++c) {
    dweight[c] = dbias[c] = 0.0F;
  }
  for (std::int64_t row = begin; row < end; ++row) {
    BackwardRow(dy.row(row), x.row(row), weight, width, mean[row], rstd[row], dx.row(row), dweight,
                dbias);
    if (dsum.data != nullptr) {
      AddRow(dx.row(row), dsum.row(row), width, dx.row(row));
    }
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

void layernorm_forward(View<const float, 2> x, LayerNormResidual<float> residual,
                       View<const float, 1> weight, View<const float, 1> bias, float epsilon,
                       View<float, 2> y, View<float, 1> mean, View<float, 1> rstd, Stream) {
  const std::int64_t rows = x.shape[0];
  parallel_for(chunk_count(rows, kLayerNormBlock), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kLayerNormBlock;
    HWY_DYNAMIC_DISPATCH(ForwardRows)
    (x, residual, weight.data, bias.data, epsilon, y, mean.data, rstd.data, begin,
     std::min(begin + kLayerNormBlock, rows));
  });
}

void layernorm_backward(View<const float, 2> dy, View<const float, 2> dsum, View<const float, 2> x,
                        View<const float, 1> weight, View<const float, 1> mean,
                        View<const float, 1> rstd, View<float, 2> dx, View<float, 3> partials,
                        Stream) {
  const std::int64_t rows = x.shape[0];
  parallel_for(partials.shape[1], [&](std::int64_t block) {
    const std::int64_t begin = block * kLayerNormBlock;
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (dy, dsum, x, weight.data, mean.data, rstd.data, dx, &partials(0, block, 0),
     &partials(1, block, 0), begin, std::min(begin + kLayerNormBlock, rows));
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
