// What linear_cross_entropy costs as a whole at the design's shape, by counters of small runs on
// simt.
#pragma once

#include <string>
#include <vector>

#include "core/simt/report.h"
#include "kernels/matmul/precision.h"
#include "tests/support/hardware.h"

namespace tessera::bench {

/// Launches of one kernel in a call.
struct LossLaunch {
  std::string kernel;
  double launches;
  simt::LaunchStats stats;  ///< of all of them
};

/// A call at t rows and v classes of width 256: losses alone or with all gradients.
struct LossShape {
  double t, v;
  bool gradients;
  Precision precision;
};

/// Counters of tiled kernels are a + b x + c y + d x y in tiles of rows x and tiles of classes y,
/// so four small runs tell any shape. Chunks of rows (gradients in f32) are counted as many times
/// as there are; their logits count as DRAM traffic, although some of them stay in the cache.
std::vector<LossLaunch> loss_launches(const LossShape& shape);

/// Seconds on a card: the sum over the launches, each with its overhead.
double predicted_loss_time(const std::vector<LossLaunch>& launches, const Hardware& card);

/// Products of t x v x 256 at the bf16 rate of mma.sync: one for losses, three for gradients from
/// stored logits (f32), four in tiles (bf16). f32 takes the time of six of bf16 for each:
/// three of tf32.
double loss_floor(const LossShape& shape, const Hardware& card);

}  // namespace tessera::bench
