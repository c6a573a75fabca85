// What host and device units of matmul share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

enum class Activation : std::uint8_t { none, relu, gelu, silu };

/// One matrix operand of gemm with free strides: element (i, j) at data[i * row + j * col].
template <class T>
struct OperandOf {
  const T* data;
  std::int64_t row, col;
};
using Operand = OperandOf<float>;

/// What gemm does around the sums: begins them at `bias` (N) or, with `accumulate`, at what c
/// holds; keeps them in `keep` (M, N); activates.
template <class T>
struct EpilogueOf {
  const float* bias = nullptr;  ///< not together with accumulate
  Activation activation = Activation::none;
  T* keep = nullptr;
  T* slope = nullptr;  ///< act' of the sums (M, N); on the cpu alone
  bool accumulate = false;
  bool packed = false;  ///< the panels still hold b from an earlier call
};
using GemmEpilogue = EpilogueOf<float>;

/// How a device makes c (m, n) with sums over k on tensor cores: c is cut in tiles of 128 x 64, and
/// where these are few and k is long (gradients of weights), k in parts of `depth`, whose sums are
/// added in order. A function of the shape alone, so that the bits are.
struct GemmPlan {
  static constexpr std::int64_t kRows = 128, kColumns = 64, kStep = 32;
  std::int64_t tiles, parts, depth;

  constexpr GemmPlan(std::int64_t m, std::int64_t n, std::int64_t k)
      : tiles(ceil(m, kRows) * ceil(n, kColumns)), parts(1), depth(k) {
    constexpr std::int64_t kEnoughTiles = 128, kShortest = 1024;
    if (tiles > 0 && tiles < kEnoughTiles && k >= 2 * kShortest) {
      const std::int64_t wanted = ceil(kEnoughTiles, tiles), most = k / kShortest;
      depth = ceil(ceil(k, wanted < most ? wanted : most), kStep) * kStep;
      parts = ceil(k, depth);
    }
  }
  /// Floats of scratch for the sums of the parts.
  [[nodiscard]] constexpr std::int64_t workspace(std::int64_t m, std::int64_t n) const {
    return parts > 1 ? parts * m * n : 0;
  }

 private:
  static constexpr std::int64_t ceil(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
};

}  // namespace tessera
