// The framing of the binary particle stream, which apps/python/simulate.py documents. For
// train/simulation/particle*.cpp alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera {

inline constexpr char kStreamMagic[] = "TSRPART1";
inline constexpr char kBlockMagic[] = "BLK1", kWeightedBlockMagic[] = "BLK2", kEndMagic[] = "END1";
inline constexpr std::uint32_t kStreamVersion = 1;
inline constexpr std::size_t kBlockHead = 4 + 4 + 8 + 8 + 8;
inline constexpr std::size_t kEventBytes = 8 + 4;
inline constexpr std::size_t kParticleBytes = 5 * 4 + 8 * 8;

/// CRC-32 as zlib computes it.
std::uint32_t crc32(std::span<const char> bytes);

}  // namespace tessera
