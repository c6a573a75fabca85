// What a GPU can do at most, and the time that a launch cannot beat by its counters: predicted,
// never measured. Design figures: NVIDIA's H100 and A100 white papers; what cannot be read there
// (the share of mma.sync, L2, the rate of max) is marked and waits for a microbenchmark.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/simt/executor.h"

namespace tessera {

/// Rates of a card in units a second.
struct Hardware {
  const char* name;
  double dram;             ///< bytes
  double l2;               ///< bytes; not published
  double tensor;           ///< FLOP of mma.sync on bf16; not published, below the peak of wgmma
  double fused;            ///< fma of a lane
  double extrema;          ///< max or min of a lane; not published for H100
  double special;          ///< ex2, lg2, rsqrt, rcp of a lane
  double shared;           ///< bytes of shared memory, all multiprocessors
  double launch_overhead;  ///< seconds from one kernel to the next
  int multiprocessors;
};

inline constexpr Hardware kH100{"H100 SXM", 3.35e12, 5.5e12,  610e12, 29.7e12,
                                14.8e12,    3.7e12,  29.7e12, 3e-6,   132};
inline constexpr Hardware kA100{"A100 80 GB SXM", 2.04e12, 4e12,    280e12, 9.7e12,
                                9.7e12,           2.4e12,  19.5e12, 3e-6,   108};
inline constexpr std::array kCards{kH100, kA100};

/// What sets the time of a launch.
struct Prediction {
  double seconds;     ///< with the overhead of one launch
  double busy;        ///< of the resource that sets it
  const char* bound;  ///< its name
};

/// FLOP of the tensor cores in units of m16n8k16: 4096. tf32 has half the depth at half the rate.
inline double tensor_work(const simt::LaunchStats& s) {
  return 4096.0 * (static_cast<double>(s.mma) - 0.5 * static_cast<double>(s.mma_k8));
}

/// The slowest of DRAM (sectors at first touch), L2 (all sectors), tensor cores, fma, max and min,
/// special functions and shared memory, plus one launch. Shared memory enters with the wavefronts
/// that BankCounting saw, else not at all.
inline Prediction predicted_time(const simt::LaunchStats& s, const Hardware& card) {
  const auto per = [](std::uint64_t n, double rate) { return static_cast<double>(n) / rate; };
  const std::array<Prediction, 7> each{{
      {0, per(32 * (s.unique_sectors_read + s.unique_sectors_written), card.dram), "DRAM"},
      {0, per(32 * (s.sectors_read + s.sectors_written), card.l2), "L2"},
      {0, tensor_work(s) / card.tensor, "mma"},
      {0, per(s.fused, card.fused), "fma"},
      {0, per(s.extrema, card.extrema), "max/min"},
      {0, per(s.exponentials + s.special_functions, card.special), "special functions"},
      {0, per(128 * s.wavefronts, card.shared), "shared memory"},
  }};
  Prediction slowest = *std::max_element(
      each.begin(), each.end(), [](const auto& a, const auto& b) { return a.busy < b.busy; });
  slowest.seconds = slowest.busy + card.launch_overhead;
  return slowest;
}

}  // namespace tessera
