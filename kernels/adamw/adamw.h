// AdamW over flat parameter buffers.
#pragma once

#include <span>

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/adamw/adamw_types.h"

namespace tessera {

struct AdamWOptions {
  float lr = 1e-3F;
  float beta1 = 0.9F, beta2 = 0.999F, eps = 1e-8F;
  float weight_decay = 0;
  float clip_norm = 0;    ///< largest global gradient norm; 0 = no clipping
  std::int64_t step = 1;  ///< counts from 1, for the bias correction
};

/// A piece of the flat buffer with its own shares of learning rate and decay.
struct AdamWSpan {
  std::int64_t begin, end;
  float lr_scale = 1, weight_decay_scale = 1;
};

/// The buffers of a step, all (P) f32.
struct AdamWBuffers {
  Tensor parameters, gradients, m, v;
};

/// One step in place: g *= min(1, clip / (|g| + 1e-6)); p *= 1 - lr wd; m, v moments; p -= lr m^ /
/// (sqrt(v^) + eps). All (P) f32. Returns |g| before clipping. Throws Error(numeric) on a
/// non-finite norm, with nothing changed. On devices the spans must be the whole of [0, P), in
/// order, and the host waits for the norm. Loshchilov, Hutter 2019; order and constants as
/// torch.optim.AdamW.
double adamw_step(const Tensor& parameters, const Tensor& gradients, const Tensor& m,
                  const Tensor& v, std::span<const AdamWSpan> spans, const AdamWOptions& options);

/// The same step on a device in the order of its queue: norm, clip factor and verdict stay in
/// device memory, where the update reads them, and the host waits for nothing. One pass over all
/// spans: 28 bytes a parameter, and 4 for the norm.
class AdamWOnDevice {
 public:
  /// The spans must be the whole of [0, P), in order.
  AdamWOnDevice(std::span<const AdamWSpan> spans, Device device);

  /// Rate and step number of the steps queued from now on.
  void set_rates(const AdamWOptions& options) const;
  /// Queues a step; of the options only the constants are read. `loss` holds one f32: where it is
  /// not finite nothing changes. `report` (AdamWReport::count) f32 tells how it went.
  void step(const AdamWBuffers& buffers, const AdamWOptions& options, const Tensor& loss,
            const Tensor& report) const;
  /// What `report` must hold before the first step, and after one that went wrong.
  static std::vector<float> clean_report();

 private:
  std::int64_t size_;
  Tensor ends_, scales_, first_;  // of the spans, and the first span of each block
  Tensor rates_, partials_, bad_;
};

/// The verdict of a report that was read back.
struct AdamWVerdict {
  double norm = 0;
  bool loss_finite = true;
  std::int64_t first_bad = -1;  ///< element of the gradients; -1 = all are finite
  [[nodiscard]] bool good() const { return loss_finite && first_bad < 0; }
};
AdamWVerdict adamw_verdict(std::span<const float> report);

/// out (1) f64 = sum of squares, in fixed chunks merged as a tree.
TESSERA_DECLARE_KERNEL(squared_norm, void(View<const float, 1> x, double* out, Stream));

/// Devices: for each block of kSquaredNormBlock elements a power of two that brings the largest of
/// them near one, and the sum of squares of what it multiplies, so that no square leaves the range
/// of f32. out (2, blocks): sums, powers; bad (blocks): place of the block's first element that is
/// not finite, or kSquaredNormBlock.
TESSERA_DECLARE_KERNEL(squared_norm_blocks, void(View<const float, 1> x, View<float, 2> out,
                                                 View<std::int32_t, 1> bad, Stream));

/// Devices: the report of a step from the partial sums, added in a fixed order.
TESSERA_DECLARE_KERNEL(adamw_report,
                       void(View<const float, 2> partials, View<const std::int32_t, 1> bad,
                            View<const float, 1> loss, float clip_norm, View<float, 1> report,
                            Stream));

TESSERA_DECLARE_KERNEL(adamw_update,
                       void(View<float, 1> p, View<const float, 1> g, View<float, 1> m,
                            View<float, 1> v, AdamWUpdate update, Stream));

/// Devices: all spans in one pass, unless the report forbids it.
TESSERA_DECLARE_KERNEL(adamw_update_spans,
                       void(View<float, 1> p, View<const float, 1> g, View<float, 1> m,
                            View<float, 1> v, AdamWTables tables, AdamWConstants constants,
                            Stream));

}  // namespace tessera
