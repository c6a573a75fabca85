// What the host and the device units of core/memory share.
#pragma once

#include <cstdint>

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

/// Kernels of core/memory_cuda.cu, for devices beyond the cpu; `bytes` is the width of an element,
/// 2, 4 or 8.
TESSERA_DECLARE_KERNEL(fill_elements, void(void* target, int bytes, StridedWalk walk,
                                           std::uint64_t value, Stream));
TESSERA_DECLARE_KERNEL(copy_elements,
                       void(void* target, const void* source, int bytes, StridedWalk walk, Stream));
TESSERA_DECLARE_KERNEL(add_elements,
                       void(float* target, const float* source, StridedWalk walk, Stream));

}  // namespace tessera
