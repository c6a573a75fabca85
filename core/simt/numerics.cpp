// What the special function unit does, exact here or a little off by seed, and whether tensor cores
// cut their sums off.
#include <bit>
#include <cmath>
#include <cstdlib>

#include "core/simt/launch_state.h"

namespace tessera::simt {
namespace {

std::uint64_t first_noise() {
  const char* seed = std::getenv("TESSERA_SIMT_NOISE");
  return seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10);
}

thread_local std::uint64_t t_noise = first_noise();

}  // namespace

Noise::Noise(std::uint64_t seed) : previous_(t_noise) { t_noise = seed; }
Noise::~Noise() { t_noise = previous_; }

void count(std::uint64_t LaunchStats::*counter) {
  if (t_launch != nullptr) {
    ++(t_launch->stats.*counter);
  }
}

bool is_noisy() { return t_noise != 0; }

// The same value meets the same error, whoever asks: results stay independent of the schedule.
float approximate(float exact) {
  if (t_noise == 0 || !std::isnormal(exact)) {
    return exact;
  }
  const auto bits = std::bit_cast<std::uint32_t>(exact);
  std::uint64_t hash = (bits ^ t_noise) * 0x9E3779B97F4A7C15ULL;
  hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93ULL;
  const auto step = static_cast<std::uint32_t>(hash >> 40) % 5;  // 0 .. 4: -2 .. 2 ulp
  return std::bit_cast<float>(bits + step - 2);
}

}  // namespace tessera::simt
