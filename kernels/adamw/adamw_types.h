// What host and device units of adamw share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/view.h"

namespace tessera {

/// What the update of one span needs, bias corrections folded in.
struct AdamWUpdate {
  float clip, decay, beta1, beta2, step_size, root_correction, eps;
};

/// Elements of one partial sum of the norm.
inline constexpr std::int64_t kSquaredNormBlock = 4096;

/// Elements that one block of the update on devices takes.
inline constexpr std::int64_t kAdamWBlock = 1024;

/// Constants of the update on devices; what changes from step to step lies in device memory
/// (AdamWRates), so that a captured step can be replayed.
struct AdamWConstants {
  float beta1, beta2, eps, weight_decay, clip_norm;
};

/// Places in the (AdamWRates::count) f32 tensor that the update reads.
struct AdamWRates {
  enum : int { lr, correction, root_correction, count };
};

/// Places in the (AdamWReport::count) f32 tensor that a step leaves on its device. The norm is root
/// / power. bad_block and bad_offset hold the bits of integers: the block of kSquaredNormBlock
/// gradients with the first that is not finite and its place in there; kAllFinite or
/// kLossNotFinite. While it is not kAllFinite no step changes anything.
struct AdamWReport {
  enum : int { root, power, clip, bad_block, bad_offset, count };
};
inline constexpr std::int32_t kAllFinite = -1;
inline constexpr std::int32_t kLossNotFinite = -2;

/// Where an update on a device finds its rates: span s ends at ends(s), with shares of rate and
/// decay scales(s, 0..1); block b of kAdamWBlock elements begins in span first(b).
struct AdamWTables {
  View<const std::int64_t, 1> ends;
  View<const float, 2> scales;
  View<const std::int32_t, 1> first;
  View<const float, 1> rates, report;
};

}  // namespace tessera
