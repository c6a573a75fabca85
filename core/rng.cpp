#include "core/rng.h"

#include <cmath>
#include <numbers>

namespace tessera {
namespace {

// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with full avalanche.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// FNV-1a over the bytes, then mixed.
std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0xCBF29CE484222325U;
  for (const char c : text) {
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return mix(h);
}

}  // namespace

Rng Rng::fork(std::string_view purpose) const { return Rng(seed_, mix(stream_ ^ hash(purpose))); }
Rng Rng::fork(std::uint64_t index) const {
  return Rng(seed_, mix(mix(stream_) + 0x632BE59BD9B4E019U * (index + 1)));
}

std::uint64_t Rng::next_u64() {
  const std::uint64_t high = next_u32();
  return (high << 32) | next_u32();
}

double Rng::normal() {
  const double u = (next_u32() + 0.5) * 0x1.0p-32;
  const double v = next_u32() * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::uint64_t Rng::below(std::uint64_t n) {
  const std::uint64_t limit = n * (UINT64_MAX / n);
  for (;;) {
    const std::uint64_t x = next_u64();
    if (x < limit) {
      return x % n;
    }
  }
}

}  // namespace tessera
