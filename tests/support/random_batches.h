// How jets are cut into batches, at random.
#pragma once

#include "core/rng.h"
#include "train/batcher.h"

namespace tessera {

/// Sizes, orders and bounds of all kinds, without prefetching.
inline BatchConfig random_batches(Rng& rng) {
  return {.jets = static_cast<std::uint32_t>(1 + rng.below(40)),
          .tokens = rng.below(2) == 0 ? 0 : 1 + rng.below(300),
          .shuffle = rng.below(4) != 0,
          .drop_last = rng.below(3) == 0,
          .block = static_cast<std::uint32_t>(1 + rng.below(30)),
          .window = static_cast<std::uint32_t>(1 + rng.below(5)),
          .bucket = static_cast<std::uint32_t>(1 + rng.below(4)),
          .prefetch = 0};
}

}  // namespace tessera
