// The activations and their slopes on a device.
#pragma once

#include "core/gpu/warp.cuh"
#include "kernels/matmul/matmul_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

// Phi(x) and exp(-x^2/2). erfc by the minimax fit of
// kernels/matmul/activation-inl.h.
struct Normal {
  float cdf, bell;
};

TESSERA_DEVICE Normal normal_of(float x) {
  const float size = x < 0 ? -x : x;
  const float t = 1.0F / fma(0.24748737F, size < 1e30F ? size : 1e30F, 1.0F);
  float r = fma(0.02129995925F, t, -0.0909689965F);
  r = fma(r, t, 0.1181246505F);
  r = fma(r, t, -0.050986586F);
  r = fma(r, t, 0.07502353F);
  r = fma(r, t, 0.055701574F);
  r = fma(r, t, 0.08173732F);
  r = fma(r, t, 0.0925996635F);
  r = fma(r, t, 0.098735728F);
  r = fma(r, t, 0.0987331645F);
  const float bell = exp(-0.5F * x * x);
  const float tail = r * t * bell;
  return {x < 0 ? tail : 1.0F - tail, bell};
}

TESSERA_DEVICE float sigmoid(float x) { return 1.0F / (1.0F + exp(x < -80.0F ? 80.0F : -x)); }

TESSERA_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? 0.0F : x;  // NaN passes
    case Activation::gelu:
      return x * normal_of(x).cdf;
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::none:
      break;
  }
  return x;
}

// relu: x > 0; gelu: Phi(x) + x phi(x); silu: s (1 + x (1 - s)).
TESSERA_DEVICE float activate_slope(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0F : 0.0F;
    case Activation::gelu: {
      const Normal n = normal_of(x);
      return fma(x * 0.39894228F, n.bell, n.cdf);
    }
    case Activation::silu: {
      const float s = sigmoid(x);
      return s * fma(x, 1.0F - s, 1.0F);
    }
    case Activation::none:
      break;
  }
  return 1.0F;
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
