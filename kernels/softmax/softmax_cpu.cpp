// Softmax on the CPU: a row stays in L1 over its passes, so memory sees it once. Threads share
// blocks of 256 rows; sums run in the fixed order of core/simd-inl.h.
#include "kernels/softmax/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax/softmax_cpu.cpp"
#include <hwy/foreach_target.h>

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void ForwardRow(SoftmaxKind kind, const float* x, std::int64_t c, float* y) {
  const float top = Largest(x, c);
  std::memcpy(y, x, static_cast<std::size_t>(c) * sizeof(float));
  const float total = ExpSum(y, c, top);
  if (kind == SoftmaxKind::probability) {
    Scale(1.0F / total, y, c);
    return;
  }
  const V vtop = hn::Set(D(), top), vlog = hn::Set(D(), std::log(total));
  ForVectors(c, [&](std::int64_t j, std::int64_t n)
                    HWY_ATTR { StoreN(hn::Sub(hn::Sub(LoadN(n, x + j), vtop), vlog), n, y + j); });
}

void BackwardRow(SoftmaxKind kind, const float* dy, const float* y, std::int64_t c, float* dx) {
  const bool probability = kind == SoftmaxKind::probability;
  const V total = hn::Set(D(), probability ? Dot(dy, y, c) : Sum(dy, c));
  ForVectors(c, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    const V g = LoadN(n, dy + j), v = LoadN(n, y + j);
    const V slope = probability ? hn::Mul(v, hn::Sub(g, total)) : hn::NegMulAdd(Exp(v), total, g);
    StoreN(slope, n, dx + j);
  });
}

void ForwardRows(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y, std::int64_t begin,
                 std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    ForwardRow(kind, x.row(row), x.shape[1], y.row(row));
  }
}

void BackwardRows(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                  View<float, 2> dx, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    BackwardRow(kind, dy.row(row), y.row(row), dy.shape[1], dx.row(row));
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

namespace {
constexpr std::int64_t kRows = 256;

std::int64_t end_of(std::int64_t block, std::int64_t rows) {
  return (block + 1) * kRows < rows ? (block + 1) * kRows : rows;
}
}  // namespace

void softmax_forward(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y, Stream) {
  const std::int64_t rows = x.shape[1] == 0 ? 0 : x.shape[0];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t block) {
    HWY_DYNAMIC_DISPATCH(ForwardRows)(kind, x, y, block * kRows, end_of(block, rows));
  });
}

void softmax_backward(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                      View<float, 2> dx, Stream) {
  const std::int64_t rows = dy.shape[0];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t block) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)(kind, dy, y, dx, block * kRows, end_of(block, rows));
  });
}

}  // namespace tessera::cpu
#endif
