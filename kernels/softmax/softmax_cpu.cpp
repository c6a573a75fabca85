// Softmax on the CPU: a row stays in L1 over its passes, so memory sees it once. Threads share
// blocks of 256 rows; sums run in the fixed order of core/simd-inl.h.
#include "kernels/softmax/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax/softmax_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace s = simd::HWY_NAMESPACE;

void ForwardRow(SoftmaxKind kind, const float* x, std::int64_t c, float* y) {
  const float top = s::Largest(x, c);
  std::memcpy(y, x, static_cast<std::size_t>(c) * sizeof(float));
  const float total = s::ExpSum(y, c, top);
  if (kind == SoftmaxKind::probability) {
    s::Scale(1.0F / total, y, c);
    return;
  }
  const s::V vtop = hn::Set(s::D(), top), vlog = hn::Set(s::D(), std::log(total));
  for (std::int64_t j = 0; j < c; j += s::LaneCount()) {
    s::StoreN(hn::Sub(hn::Sub(s::LoadN(c - j, x + j), vtop), vlog), c - j, y + j);
  }
}

void BackwardRow(SoftmaxKind kind, const float* dy, const float* y, std::int64_t c, float* dx) {
  const bool probability = kind == SoftmaxKind::probability;
  const s::V total = hn::Set(s::D(), probability ? s::Dot(dy, y, c) : s::Sum(dy, c));
  for (std::int64_t j = 0; j < c; j += s::LaneCount()) {
    const s::V g = s::LoadN(c - j, dy + j), v = s::LoadN(c - j, y + j);
    const s::V slope =
        probability ? hn::Mul(v, hn::Sub(g, total)) : hn::NegMulAdd(s::Exp(v), total, g);
    s::StoreN(slope, c - j, dx + j);
  }
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
