// Rows of a batch of jets, a few classes each: a thread per element or row.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 128;

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    residual_kernel(View<const float, 1> prediction, View<const float, 1> target, float delta,
                    View<float, 1> loss, View<float, 1> slope) {
  const std::int64_t i = global_thread();
  if (i >= loss.shape[0]) {
    return;
  }
  const float r = ldg(prediction.data + i) - ldg(target.data + i);
  const float a = r < 0 ? -r : r;
  if (delta <= 0) {
    stg(loss.data + i, r * r);
    stg(slope.data + i, 2 * r);
  } else {
    stg(loss.data + i, a <= delta ? 0.5F * r * r : delta * (a - 0.5F * delta));
    stg(slope.data + i, r > delta ? delta : r < -delta ? -delta : r);  // NaN passes
  }
}

// u^gamma for u in [0, 1]
TESSERA_DEVICE float power(float u, float gamma) {
  if (gamma == 0.0F) {
    return 1.0F;
  }
  return u > 0.0F ? exp(gamma * log(u)) : u;  // NaN passes
}

// 1 - p is the sum over the other classes: no digits are lost where p is near 1.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    focal_kernel(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                 View<const float, 1> class_weight, float gamma, View<float, 1> loss,
                 View<float, 2> slope) {
  const std::int64_t i = global_thread();
  if (i >= logits.shape[0]) {
    return;
  }
  const std::int64_t c = logits.shape[1];
  const std::int32_t y = ldg(targets.data + i);
  float top = ldg(logits.row(i));
  for (std::int64_t j = 1; j < c; ++j) {
    top = max(top, ldg(&logits(i, j)));
  }
  const float z = ldg(&logits(i, y)) - top;
  float others = 0;
  for (std::int64_t j = 0; j < c; ++j) {
    others += j == y ? 0.0F : exp(ldg(&logits(i, j)) - top);
  }
  const float total = others + exp(z);
  const float log_p = z - log(total);
  const float u = others / total;
  const float w = ldg(class_weight.data + y);
  const float shrink = power(u, gamma);
  const float rise =
      gamma > 0 && u > 0 ? gamma * power(u, gamma - 1) * (exp(z) / total) * log_p : 0.0F;
  stg(loss.data + i, -shrink * w * log_p);
  const float d_log_p = w * (rise - shrink);
  for (std::int64_t j = 0; j < c; ++j) {
    const float q = exp(ldg(&logits(i, j)) - top) / total;
    stg(&slope(i, j), d_log_p * (j == y ? u : -q));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    scale_rows_kernel(View<const float, 2> x, View<const float, 1> factor, View<float, 2> out) {
  const std::int64_t i = global_thread();
  const std::int64_t d = x.shape[1];
  if (i < x.shape[0] * d) {
    stg(&out(i / d, i % d), ldg(&x(i / d, i % d)) * ldg(factor.data + i / d));
  }
}

LaunchConfig config_for(const char* name, std::int64_t n, Stream stream) {
  return {name, {blocks_for(n, kThreads)}, {kThreads}, 0, stream};
}

}  // namespace

void residual_loss(View<const float, 1> prediction, View<const float, 1> target, float delta,
                   View<float, 1> loss, View<float, 1> slope, Stream stream) {
  if (loss.shape[0] > 0) {
    launch(residual_kernel, config_for("residual_loss", loss.shape[0], stream), prediction, target,
           delta, loss, slope);
  }
}

void focal(View<const float, 2> logits, View<const std::int32_t, 1> targets,
           View<const float, 1> class_weight, float gamma, View<float, 1> loss,
           View<float, 2> slope, Stream stream) {
  if (logits.size() > 0) {
    launch(focal_kernel, config_for("focal", logits.shape[0], stream), logits, targets,
           class_weight, gamma, loss, slope);
  }
}

void scale_rows(View<const float, 2> x, View<const float, 1> factor, View<float, 2> out,
                Stream stream) {
  if (x.size() > 0) {
    launch(scale_rows_kernel, config_for("scale_rows", x.size(), stream), x, factor, out);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
