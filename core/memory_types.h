// What the host and the device units of core/memory share.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

/// Element i of a row-major walk over `shape` stands at the sum of index times stride, in elements,
/// of each of two tensors.
struct StridedWalk {
  static constexpr int kRank = 6;
  int rank;
  std::int64_t size;
  std::int64_t shape[kRank], target[kRank], source[kRank];
};

/// Kernels of core/memory_cuda.cu; `bytes` is the width of an element, 2, 4 or 8.
TESSERA_DECLARE_DEVICE_KERNEL(fill_elements, void(void* target, int bytes, StridedWalk walk,
                                                  std::uint64_t value, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(copy_elements, void(void* target, const void* source, int bytes,
                                                  StridedWalk walk, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(add_elements,
                              void(float* target, const float* source, StridedWalk walk, Stream));
/// The same of bf16: each sum is made in f32 and rounded once.
TESSERA_DECLARE_DEVICE_KERNEL(add_elements_bf16,
                              void(bf16* target, const bf16* source, StridedWalk walk, Stream));
/// Conversions, to nearest even.
TESSERA_DECLARE_DEVICE_KERNEL(round_elements,
                              void(bf16* target, const float* source, StridedWalk walk, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(widen_elements,
                              void(float* target, const bf16* source, StridedWalk walk, Stream));

}  // namespace tessera
