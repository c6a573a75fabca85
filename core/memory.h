// Moving bytes: copies between devices. fill, copy_into and accumulate are declared in
// core/tensor.h.
#pragma once

#include <cstddef>

#include "core/device.h"

namespace tessera {

/// Copies bytes between any two devices, in the order of the current stream. What the host reads is
/// there when it returns, what it gives may change at once.
void copy_bytes(void* target, Device target_device, const void* source, Device source_device,
                std::size_t bytes);

}  // namespace tessera
