// Rows are copied or added in whole vectors; a chunk is some 2^14 floats of them.
#include "kernels/gather/gather.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gather/gather_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void CopyRows(View<const float, 2> x, const std::int32_t* index, View<float, 2> y,
              std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const float* from = x.row(index[i]);
    float* to = y.row(i);
    ForVectors(y.shape[1], [&](std::int64_t j, std::int64_t m)
                               HWY_ATTR { StoreN(LoadN(m, from + j), m, to + j); });
  }
}

// One owner for each row of dx, so no atomics and one order.
void AddRowsByKey(View<const float, 2> dy, const std::int32_t* starts, const std::int32_t* order,
                  View<float, 2> dx, std::int64_t begin, std::int64_t end) {
  for (std::int64_t n = begin; n < end; ++n) {
    float* sum = dx.row(n);
    ForVectors(dx.shape[1], [&](std::int64_t j, std::int64_t m) HWY_ATTR {
      V total = hn::Zero(D());
      for (std::int32_t i = starts[n]; i < starts[n + 1]; ++i) {
        total = hn::Add(total, LoadN(m, dy.row(order[i]) + j));
      }
      StoreN(total, m, sum + j);
    });
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(CopyRows);
HWY_EXPORT(AddRowsByKey);

namespace {
// f(begin, end) for chunks of rows of d floats.
template <class F>
void for_rows(std::int64_t rows, std::int64_t d, F f) {
  constexpr std::int64_t kFloats = 1 << 14;
  const std::int64_t block = 1 + kFloats / (d + 1);
  parallel_for(chunk_count(rows, block), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * block;
    f(begin, begin + block < rows ? begin + block : rows);
  });
}
}  // namespace

void gather_integers(View<const std::int32_t, 1> values, View<const std::int32_t, 1> index,
                     std::int32_t shift, View<std::int32_t, 1> y, Stream) {
  for (std::int64_t i = 0; i < y.shape[0]; ++i) {
    const std::int32_t from = index(i);
    y(i) = from < 0 ? -1 - from : values(from) + shift;
  }
}

void gather_forward(View<const float, 2> x, View<const std::int32_t, 1> index, View<float, 2> y,
                    Stream) {
  for_rows(y.shape[0], y.shape[1], [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(CopyRows)(x, index.data, y, begin, end);
  });
}

void gather_backward(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                     View<const std::int32_t, 1> order, View<float, 2> dx, Stream) {
  for_rows(dx.shape[0], dx.shape[1], [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddRowsByKey)(dy, starts.data, order.data, dx, begin, end);
  });
}

}  // namespace tessera::cpu
#endif
