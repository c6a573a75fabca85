// Chunks of 2^14 elements, each a multiple of the four words that one Philox call gives.
#include "core/parallel.h"
#include "kernels/dropout/dropout.h"

namespace tessera::cpu {

void dropout_apply(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream) {
  constexpr std::int64_t kChunk = 1 << 14;
  const std::int64_t n = y.shape[0];
  const float factor = 1.0F / (1.0F - p);
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kChunk < n ? (chunk + 1) * kChunk : n;
    for (std::int64_t i = chunk * kChunk; i < end; i += 4) {
      const Philox4 block = key.block(static_cast<std::uint64_t>(i / 4));
      const std::uint32_t words[4] = {block.x, block.y, block.z, block.w};
      for (std::int64_t e = i; e < i + 4 && e < end; ++e) {
        y(e) = uniform_from(words[e - i]) >= p ? factor * x(e) : 0.0F;
      }
    }
  });
}

}  // namespace tessera::cpu
