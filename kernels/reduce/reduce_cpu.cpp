#include "core/parallel.h"
#include "kernels/reduce/reduce.h"

namespace tessera::cpu {

void reduce_sum(View<const float, 1> x, View<float, 1> out, Stream) {
  constexpr std::int64_t kChunk = 4096;
  const std::int64_t n = x.shape[0];
  std::vector<double> partial(static_cast<std::size_t>(chunk_count(n, kChunk)), 0.0);
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kChunk < n ? (chunk + 1) * kChunk : n;
    double total = 0.0;
    for (std::int64_t i = chunk * kChunk; i < end; ++i) {
      total += static_cast<double>(x(i));
    }
    partial[static_cast<std::size_t>(chunk)] = total;
  });
  out(0) = static_cast<float>(tree_sum(std::move(partial)));
}

}  // namespace tessera::cpu
