// Philox4x32-10 counter-based random numbers: the same integers on every device and for any thread
// count. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11
// (2011).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/target.h"

namespace tessera {

/// Four 32-bit words, as Philox takes and gives them.
struct Philox4 {
  std::uint32_t x, y, z, w;
};

/// Philox4x32-10: ten rounds over a 128-bit counter with a 64-bit key.
TESSERA_INLINE Philox4 philox4x32_10(Philox4 counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter.x;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter.z;
    counter = Philox4{
        static_cast<std::uint32_t>(p1 >> 32) ^ counter.y ^ key0, static_cast<std::uint32_t>(p1),
        static_cast<std::uint32_t>(p0 >> 32) ^ counter.w ^ key1, static_cast<std::uint32_t>(p0)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

/// Uniform in [0, 1): (u >> 8) * 2^-24, exact in f32.
TESSERA_INLINE float uniform_from(std::uint32_t u) {
  return static_cast<float>(u >> 8) * 0x1.0p-24F;
}

/// What a kernel gets of a random stream, by value: draws are indexed by element, so they do not
/// depend on batching, threads or device. Element e takes word e % 4 of block e / 4.
struct RngKey {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  /// Four words for elements 4 block .. 4 block + 3.
  [[nodiscard]] TESSERA_INLINE Philox4 block(std::uint64_t index) const {
    return philox4x32_10(
        Philox4{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
        static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  }
  /// The word of one element.
  [[nodiscard]] TESSERA_INLINE std::uint32_t word(std::uint64_t element) const {
    const Philox4 b = block(element / 4);
    switch (element % 4) {
      case 0:
        return b.x;
      case 1:
        return b.y;
      case 2:
        return b.z;
      default:
        return b.w;
    }
  }
  /// Uniform in [0, 1) of one element.
  [[nodiscard]] TESSERA_INLINE float uniform(std::uint64_t element) const {
    return uniform_from(word(element));
  }
};

/// Host-side random stream: exactly {seed, stream, counter}, which is also what a checkpoint
/// stores. Draws advance the counter; fork() derives an independent child, so a new consumer never
/// shifts another's numbers.
class Rng {
 public:
  explicit Rng(std::uint64_t seed = 0, std::uint64_t stream = 0, std::uint64_t counter = 0)
      : seed_(seed), stream_(stream), counter_(counter) {}

  [[nodiscard]] Rng fork(std::string_view purpose) const;
  [[nodiscard]] Rng fork(std::uint64_t index) const;
  /// The key that kernels take; equal draws to this stream's from counter 0.
  [[nodiscard]] RngKey key() const { return {seed_, stream_}; }

  std::uint32_t next_u32() { return key().word(counter_++); }
  std::uint64_t next_u64();
  /// Uniform in [0, 1), 24 bits.
  float uniform() { return uniform_from(next_u32()); }
  /// Uniform in [low, high).
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  /// Standard normal by Box-Muller in double; two words a draw, host only (log and cos differ
  /// between devices).
  double normal();
  /// Uniform integer in [0, n), n > 0, unbiased by rejection.
  std::uint64_t below(std::uint64_t n);

  [[nodiscard]] std::uint64_t seed() const { return seed_; }
  [[nodiscard]] std::uint64_t stream() const { return stream_; }
  [[nodiscard]] std::uint64_t counter() const { return counter_; }

 private:
  std::uint64_t seed_, stream_, counter_;
};

}  // namespace tessera
