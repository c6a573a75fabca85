// What every SIMD level of attention_cpu.cpp shares.
#pragma once

#include "kernels/attention/attention.h"

namespace tessera::cpu {
/// A call: inputs, gradients (or null), what every thread needs.
struct AttentionCall {
  const float *q, *k, *v, *dout;
  AttentionLayout layout;
  float *out, *dq, *dk, *dv, *dbias;
};

/// Tasks [begin, end), numbered segment * heads + head.
struct AttentionChunk {
  std::int64_t begin, end;
  double cost;
};

constexpr std::int64_t kQueryBlock = 112;  // queries whose P and dS are kept at a time
constexpr std::int64_t kWidestVector = 16;

/// Floats of scratch for segments of at most these lengths, at any SIMD level.
inline std::int64_t attention_scratch(std::int64_t queries, std::int64_t keys, std::int64_t width) {
  const std::int64_t panels = (keys + 2 * kWidestVector - 1) / (2 * kWidestVector);
  const std::int64_t all_keys = panels * 2 * kWidestVector;
  const std::int64_t block = queries < kQueryBlock ? queries : kQueryBlock;
  return 2 * all_keys * width + (2 * keys + 2 * block) * (width + kWidestVector) +
         2 * block * (all_keys + kWidestVector);
}
}  // namespace tessera::cpu
