// Functions of core/gpu/warp.cuh in kernels of their own, for comparison with the host's.
#pragma once

#include "core/kernel.h"

namespace tessera {

/// y[i] = exp(x[i]), one thread an element.
TESSERA_DECLARE_DEVICE_KERNEL(exp_of, void(View<const float, 1> x, View<float, 1> y, Stream));

}  // namespace tessera
