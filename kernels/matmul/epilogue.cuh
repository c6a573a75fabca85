// Where an element of a product begins (bias or what is there) and how it ends (kept, activated,
// stored).
#pragma once

#include <cstdint>

#include "core/gpu/warp.cuh"
#include "kernels/matmul/activation.cuh"
#include "kernels/matmul/matmul_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

template <class C>
TESSERA_DEVICE float start_value(const EpilogueOf<C>& epilogue, const View<C, 2>& c, std::int64_t i,
                                 std::int64_t j) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return 0.0F;
  }
  if (epilogue.accumulate) {
    return static_cast<float>(ldg(&c(i, j)));
  }
  return epilogue.bias == nullptr ? 0.0F : ldg(epilogue.bias + j);
}

template <class C>
TESSERA_DEVICE void store_value(const EpilogueOf<C>& epilogue, const View<C, 2>& c, std::int64_t i,
                                std::int64_t j, float value) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return;
  }
  if (epilogue.keep != nullptr) {
    stg(epilogue.keep + i * c.shape[1] + j, C(value));
  }
  stg(&c(i, j), C(activate(value, epilogue.activation)));
}

// Two neighbouring elements in one store.
TESSERA_DEVICE void put_two(float* to, float x, float y) {
  stg(reinterpret_cast<Float2*>(to), Float2{x, y});
}
TESSERA_DEVICE void put_two(bf16* to, float x, float y) {
  stg(reinterpret_cast<std::uint32_t*>(to), pack_bf16x2(x, y));
}

// Whether the pairs of columns that a lane has may be stored as one.
template <class C>
TESSERA_DEVICE bool pairs_are_aligned(const EpilogueOf<C>& epilogue, const View<C, 2>& c) {
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(c.data) | reinterpret_cast<std::uintptr_t>(epilogue.keep);
  const std::int64_t strides = c.stride[0] | (epilogue.keep == nullptr ? 0 : c.shape[1]);
  return addresses % (2 * sizeof(C)) == 0 && strides % 2 == 0;
}

// c (i, j) and (i, j + 1), j even: as one store where it can be, so that sectors are written whole.
template <class C>
TESSERA_DEVICE void store_pair(const EpilogueOf<C>& epilogue, const View<C, 2>& c, std::int64_t i,
                               std::int64_t j, float x, float y, bool aligned) {
  if (!aligned || i >= c.shape[0] || j + 1 >= c.shape[1]) {
    store_value(epilogue, c, i, j, x);
    store_value(epilogue, c, i, j + 1, y);
    return;
  }
  if (epilogue.keep != nullptr) {
    put_two(epilogue.keep + i * c.shape[1] + j, x, y);
  }
  put_two(&c(i, j), activate(x, epilogue.activation), activate(y, epilogue.activation));
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
