#include <cstring>

#include "core/parallel.h"
#include "kernels/gather/gather.h"

namespace tessera::cpu {
namespace {
constexpr std::int64_t kRows = 256;

template <class F>
void for_rows(std::int64_t rows, F f) {
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kRows < rows ? (chunk + 1) * kRows : rows;
    for (std::int64_t r = chunk * kRows; r < end; ++r) {
      f(r);
    }
  });
}
}  // namespace

void gather_forward(View<const float, 2> x, View<const std::int32_t, 1> index, View<float, 2> y,
                    Stream) {
  for_rows(y.shape[0], [&](std::int64_t i) {
    std::memcpy(y.row(i), x.row(index(i)), static_cast<std::size_t>(x.shape[1]) * sizeof(float));
  });
}

// One owner for each row of dx, so no atomics and one order.
void gather_backward(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                     View<const std::int32_t, 1> order, View<float, 2> dx, Stream) {
  const std::int64_t d = dx.shape[1];
  for_rows(dx.shape[0], [&](std::int64_t n) {
    float* sum = dx.row(n);
    std::memset(sum, 0, static_cast<std::size_t>(d) * sizeof(float));
    for (std::int32_t i = starts(n); i < starts(n + 1); ++i) {
      const float* row = dy.row(order(i));
      for (std::int64_t j = 0; j < d; ++j) {
        sum[j] += row[j];
      }
    }
  });
}

}  // namespace tessera::cpu
