// Batch norm on the CPU. Column sums: one partial per block of 256 rows and column, f32 inside a
// block, blocks added in order in double; threads share blocks. The second pass over the rows also
// sums the deviations themselves, which takes out the rounding of the first pass's mean.
// Memory: x is read three times forward (mean, variance, output), dy and x twice backward.
#include "kernels/batchnorm/batchnorm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batchnorm/batchnorm_cpu.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// All loops run over vectors of columns outside and rows inside: the accumulators and the column's
// constants stay in registers. With rows outside, four columns took 30 times as long, since loads
// after masked stores do not forward (batchnorm_bench).

// sums and products (C) of rows begin .. end - 1: those of d and d d, or where `other` has rows of
// other and d other; d = x - mean.
void AddRows(View<const float, 2> x, const float* mean, View<const float, 2> other,
             std::int64_t begin, std::int64_t end, float* sums, float* products) {
  ForVectors(x.shape[1], [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    const V m = LoadN(n, mean + j);
    V sum = hn::Zero(D()), product = hn::Zero(D());
    for (std::int64_t i = begin; i < end; ++i) {
      const V d = hn::Sub(LoadN(n, x.row(i) + j), m);
      const V factor = other.data == nullptr ? d : LoadN(n, other.row(i) + j);
      sum = hn::Add(sum, factor);
      product = hn::MulAdd(d, factor, product);
    }
    StoreN(sum, n, sums + j);
    StoreN(product, n, products + j);
  });
}

// y = (x - mean) slope + bias
void ForwardRows(View<const float, 2> x, const float* mean, const float* slope, const float* bias,
                 std::int64_t begin, std::int64_t end, View<float, 2> y) {
  ForVectors(x.shape[1], [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    const V m = LoadN(n, mean + j), k = LoadN(n, slope + j), b = LoadN(n, bias + j);
    for (std::int64_t i = begin; i < end; ++i) {
      StoreN(hn::MulAdd(hn::Sub(LoadN(n, x.row(i) + j), m), k, b), n, y.row(i) + j);
    }
  });
}

// dx = outer (dy - shift - (x - mean) tilt)
void BackwardRows(View<const float, 2> dy, View<const float, 2> x, const float* mean,
                  const float* outer, const float* shift, const float* tilt, std::int64_t begin,
                  std::int64_t end, View<float, 2> dx) {
  ForVectors(x.shape[1], [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    const V m = LoadN(n, mean + j), o = LoadN(n, outer + j);
    const V h = LoadN(n, shift + j), t = LoadN(n, tilt + j);
    for (std::int64_t i = begin; i < end; ++i) {
      const V d = hn::Sub(LoadN(n, x.row(i) + j), m);
      const V g = hn::Sub(LoadN(n, dy.row(i) + j), h);
      StoreN(hn::Mul(hn::NegMulAdd(d, t, g), o), n, dx.row(i) + j);
    }
  });
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(AddRows);
HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

namespace {

/// Calls body(block, begin, end) for blocks of rows on the pool.
void for_blocks(std::int64_t rows,
                FunctionRef<void(std::int64_t, std::int64_t, std::int64_t)> body) {
  parallel_for(chunk_count(rows, kBatchNormBlock), [&](std::int64_t block) {
    const std::int64_t begin = block * kBatchNormBlock;
    body(block, begin, std::min(begin + kBatchNormBlock, rows));
  });
}

/// Column sums of d (or of `other`) and of d d (or d `other`), d = x - mean, into `partials`.
void column_sums_of(View<const float, 2> x, const float* mean, View<const float, 2> other,
                    View<float, 3> partials) {
  for_blocks(x.shape[0], [&](std::int64_t block, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddRows)
    (x, mean, other, begin, end, &partials(0, block, 0), &partials(1, block, 0));
  });
}

double total(View<float, 3> partials, std::int64_t which, std::int64_t column) {
  double sum = 0;
  for (std::int64_t b = 0; b < partials.shape[1]; ++b) {
    sum += static_cast<double>(partials(which, b, column));
  }
  return sum;
}

}  // namespace

void batchnorm_statistics(View<const float, 2> x, View<float, 3> partials, View<float, 1> mean,
                          View<float, 1> variance, Stream) {
  const auto n = static_cast<double>(x.shape[0]);
  std::fill_n(mean.data, mean.shape[0], 0.0F);
  column_sums_of(x, mean.data, {}, partials);
  for (std::int64_t c = 0; c < mean.shape[0]; ++c) {
    mean(c) = static_cast<float>(total(partials, 0, c) / n);
  }
  column_sums_of(x, mean.data, {}, partials);
  for (std::int64_t c = 0; c < mean.shape[0]; ++c) {
    const double shift = total(partials, 0, c) / n;
    mean(c) = static_cast<float>(static_cast<double>(mean(c)) + shift);
    variance(c) = static_cast<float>(total(partials, 1, c) / n - shift * shift);
  }
}

void batchnorm_inverse(View<const float, 1> variance, float eps, View<float, 1> rstd, Stream) {
  for (std::int64_t c = 0; c < rstd.shape[0]; ++c) {
    rstd(c) = 1.0F / std::sqrt(variance(c) + eps);
  }
}

void batchnorm_forward(View<const float, 2> x, View<const float, 1> mean, View<const float, 1> rstd,
                       View<const float, 1> weight, View<const float, 1> bias, View<float, 2> y,
                       Stream) {
  std::vector<float> slope(static_cast<std::size_t>(x.shape[1]));
  for (std::int64_t c = 0; c < x.shape[1]; ++c) {
    slope[static_cast<std::size_t>(c)] = weight(c) * rstd(c);
  }
  for_blocks(x.shape[0], [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(ForwardRows)(x, mean.data, slope.data(), bias.data, begin, end, y);
  });
}

void batchnorm_backward(View<const float, 2> dy, View<const float, 2> x, View<const float, 1> mean,
                        View<const float, 1> rstd, View<const float, 1> weight,
                        View<float, 3> partials, View<float, 2> dx, View<float, 1> dweight,
                        View<float, 1> dbias, Stream) {
  const auto columns = static_cast<std::size_t>(x.shape[1]);
  const double n = std::max(static_cast<double>(x.shape[0]), 1.0);
  column_sums_of(x, mean.data, dy, partials);
  std::vector<float> outer(columns), shift(columns), tilt(columns);
  for (std::int64_t c = 0; c < x.shape[1]; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const double r = static_cast<double>(rstd(c)), sum = total(partials, 0, c);
    const double product = r * total(partials, 1, c);
    dbias(c) = static_cast<float>(sum);
    dweight(c) = static_cast<float>(product);
    outer[at] = weight(c) * rstd(c);
    shift[at] = static_cast<float>(sum / n);
    tilt[at] = static_cast<float>(r * product / n);
  }
  for_blocks(x.shape[0], [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (dy, x, mean.data, outer.data(), shift.data(), tilt.data(), begin, end, dx);
  });
}

}  // namespace tessera::cpu
#endif
