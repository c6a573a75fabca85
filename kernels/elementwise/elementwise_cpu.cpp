// Bound by memory: plain loops in chunks of 2^14 elements, which the compiler vectorises.
#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera::cpu {
namespace {
constexpr std::int64_t kChunk = 1 << 14;
constexpr std::int64_t kRows = 256;
}  // namespace

void pointwise(Pointwise kind, float alpha, View<const float, 1> a, float beta,
               View<const float, 1> b, View<float, 1> out, Stream) {
  const std::int64_t n = out.shape[0];
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kChunk < n ? (chunk + 1) * kChunk : n;
    if (kind == Pointwise::product) {
      for (std::int64_t i = chunk * kChunk; i < end; ++i) {
        out(i) = a(i) * b(i);
      }
    } else if (beta == 0.0F) {
      for (std::int64_t i = chunk * kChunk; i < end; ++i) {
        out(i) = alpha * a(i);
      }
    } else {
      for (std::int64_t i = chunk * kChunk; i < end; ++i) {
        out(i) = alpha * a(i) + beta * b(i);
      }
    }
  });
}

void rowwise(Pointwise kind, View<const float, 2> x, View<const float, 1> row, View<float, 2> y,
             Stream) {
  const std::int64_t rows = x.shape[0], d = x.shape[1];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kRows < rows ? (chunk + 1) * kRows : rows;
    for (std::int64_t r = chunk * kRows; r < end; ++r) {
      const float* from = x.row(r);
      float* to = y.row(r);
      for (std::int64_t j = 0; j < d; ++j) {
        to[j] = kind == Pointwise::product ? from[j] * row(j) : from[j] + row(j);
      }
    }
  });
}

}  // namespace tessera::cpu
