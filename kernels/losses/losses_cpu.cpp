// Rows of a batch of jets, a few classes each: small beside any layer, so clarity and double
// precision come first.
#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "kernels/losses/losses.h"

namespace tessera::cpu {

void residual_loss(View<const float, 1> prediction, View<const float, 1> target, float delta,
                   View<float, 1> loss, View<float, 1> slope, Stream) {
  for (std::int64_t i = 0; i < loss.shape[0]; ++i) {
    const float r = prediction(i) - target(i);
    if (delta <= 0) {
      loss(i) = r * r;
      slope(i) = 2 * r;
    } else {
      const float a = std::fabs(r);
      loss(i) = a <= delta ? 0.5F * r * r : delta * (a - 0.5F * delta);
      slope(i) = std::isnan(r) ? r : std::clamp(r, -delta, delta);
    }
  }
}

void focal(View<const float, 2> logits, View<const std::int32_t, 1> targets,
           View<const float, 1> class_weight, float gamma, View<float, 1> loss,
           View<float, 2> slope, Stream) {
  const std::int64_t c = logits.shape[1];
  for (std::int64_t i = 0; i < logits.shape[0]; ++i) {
    const float* z = logits.row(i);
    const double top = static_cast<double>(*std::max_element(z, z + c));
    double total = 0;
    for (std::int64_t j = 0; j < c; ++j) {
      total += std::exp(static_cast<double>(z[j]) - top);
    }
    const std::int32_t y = targets(i);
    const double log_p = static_cast<double>(z[y]) - top - std::log(total);
    const double p = std::exp(log_p), u = std::max(1 - p, 0.0),
                 w = static_cast<double>(class_weight(y));
    loss(i) = static_cast<float>(-std::pow(u, gamma) * w * log_p);
    // u^(gamma - 1) times ln p stays finite at p = 1, where ln p vanishes; u = 0 is taken as that
    // limit
    const double rise = gamma > 0 && u > 0 ? gamma * std::pow(u, gamma - 1) * p * log_p : 0.0;
    const double d_log_p = w * (rise - std::pow(u, gamma));
    for (std::int64_t j = 0; j < c; ++j) {
      const double q = std::exp(static_cast<double>(z[j]) - top) / total;
      slope(i, j) = static_cast<float>(d_log_p * ((j == y ? 1.0 : 0.0) - q));
    }
  }
}

void scale_rows(View<const float, 2> x, View<const float, 1> factor, View<float, 2> out, Stream) {
  for (std::int64_t i = 0; i < x.shape[0]; ++i) {
    for (std::int64_t j = 0; j < x.shape[1]; ++j) {
      out(i, j) = x(i, j) * factor(i);
    }
  }
}

}  // namespace tessera::cpu
