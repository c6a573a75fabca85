// View<T, R>: what a kernel sees of a tensor. Pointer, extents, strides; read by all three
// compilers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/device.h"
#include "core/target.h"

namespace tessera {

/// Borrowed rank-R array. Kernel contract: the innermost stride is 1, outer strides are free,
/// so a padded leading dimension is legal.
template <class T, int R>
struct View {
  T* data;
  std::int64_t shape[R];
  std::int64_t stride[R];

  [[nodiscard]] TESSERA_INLINE std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < R; ++i) {
      n *= shape[i];
    }
    return n;
  }
  /// Pointer to row i of the outermost axis.
  [[nodiscard]] TESSERA_INLINE T* row(std::int64_t i) const { return data + i * stride[0]; }
  TESSERA_INLINE T& operator()(std::int64_t i) const requires(R == 1) { return data[i]; }
  TESSERA_INLINE T& operator()(std::int64_t i, std::int64_t j) const requires(R == 2) {
    return data[i * stride[0] + j];
  }
  TESSERA_INLINE T& operator()(std::int64_t i, std::int64_t j, std::int64_t k) const
      requires(R == 3) {
    return data[i * stride[0] + j * stride[1] + k];
  }
  /// Views of const elements come free of charge.
  template <class U>
  requires(!std::is_const_v<T> && std::is_same_v<U, const T>) TESSERA_INLINE operator View<U, R>()
      const {
    View<U, R> v{};
    v.data = data;
    for (int i = 0; i < R; ++i) {
      v.shape[i] = shape[i];
      v.stride[i] = stride[i];
    }
    return v;
  }
};

/// What Tensor::view() gives: a View that still knows on which device its memory lies. The table of
/// a kernel refuses one of another device.
template <class T, int R>
struct PlacedView : View<T, R> {
  Device device;
};

}  // namespace tessera
