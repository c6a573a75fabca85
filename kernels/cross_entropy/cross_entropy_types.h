// What host and device units of cross_entropy share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/target.h"

namespace tessera {

/// Where the scratch of cross_entropy_loss lies on devices, in floats: the weight (v, d) as
/// operands of tensor cores and the bias, both to whole tiles.
struct LossScratch {
  static constexpr std::int64_t kWidest = 256;   ///< d whose rows fit in shared memory
  static constexpr std::int64_t kColumns = 256;  ///< classes of a tile
  std::int64_t tiles, steps;                     // of classes, of 16 along d
  std::int64_t bias, size;

  TESSERA_INLINE LossScratch(std::int64_t v, std::int64_t d)
      : tiles((v + kColumns - 1) / kColumns),
        steps((d + 15) / 16),
        bias(tiles * kColumns * steps * 16),
        size(bias + tiles * kColumns) {}
};

}  // namespace tessera
