// What host and device units of matmul share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

enum class Activation : std::uint8_t { none, relu, gelu, silu };

/// One matrix operand of gemm with free strides: element (i, j) at data[i * row + j * col].
struct Operand {
  const float* data;
  std::int64_t row, col;
};

/// What gemm does around the sums: begins them at `bias` (N) or, with `accumulate`, at what c
/// holds; keeps them in `keep` (M, N); activates.
struct GemmEpilogue {
  const float* bias = nullptr;  ///< not together with accumulate
  Activation activation = Activation::none;
  float* keep = nullptr;
  bool accumulate = false;
  bool packed = false;  ///< the panels still hold b from an earlier call
};

}  // namespace tessera
