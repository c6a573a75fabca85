// What host and device units of vq share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/target.h"

namespace tessera {

/// Elements of one partial sum of the loss.
inline constexpr std::int64_t kVqBlock = 1024;

/// What backward takes of the options: shares of output gradient and codebook term, 2 / (T D).
struct VqSlopes {
  float nu, beta, unit;
};

/// Where the scratch of vq_nearest lies on devices, in words of 4 bytes, for n rows and k codes of
/// d dimensions. Codes come in tiles of 64, padded; every part begins at a sector
/// of 32 bytes.
struct VqScratch {
  static constexpr std::int64_t kWidest = 64;  ///< dimensions; wider rows are scanned in f32
  static constexpr std::int64_t kTile = 64;    ///< codes
  static constexpr std::int64_t kBlock = 256;  ///< codes of one partial maximum
  /// Words at the front that the kernel leaves behind: rows scanned in full, and rows of which more
  /// than one group of codes was scored exactly.
  static constexpr std::int64_t kScanned = 0, kContested = 1, kCounters = 8;

  std::int64_t codes;  // whole tiles
  std::int64_t steps;  // of 16 slots, or 8 of tf32, in the sums over dimensions
  std::int64_t coarse, start, exact, largest, rest, list, size;

  TESSERA_INLINE VqScratch(std::int64_t n, std::int64_t k, std::int64_t d)
      : codes((k + kTile - 1) / kTile * kTile),
        steps(d <= 16 ? 1 : d <= 32 ? 2 : 4),
        coarse(kCounters),
        start(coarse + codes * steps * 8),
        exact(start + codes),
        largest(exact + codes * ((d + 3) / 4 * 4)),
        rest(largest + (codes / kBlock + 8) / 8 * 8),
        list(rest + (codes / kBlock + 8) / 8 * 8),
        size(list + n) {}
};

}  // namespace tessera
