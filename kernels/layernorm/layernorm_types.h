// What host and device units of the layer norm share; no host header is reachable from here.
#pragma once

#include "core/view.h"

namespace tessera {

/// What a forward pass adds to x (T, d) first, and where the sum goes; null: nothing.
template <class T>
struct LayerNormResidual {
  View<const T, 2> added;
  View<T, 2> sum;
};

}  // namespace tessera
