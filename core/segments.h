// Ragged batches: tokens of all jets in one (T, ...) tensor, with the offsets of each jet.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Offsets of B segments over T tokens: B + 1 values, first 0, non-decreasing, last T. Shared and
/// immutable; empty segments are legal.
class Segments {
 public:
  Segments() = default;
  /// Throws Error(usage) on offsets that do not start at 0 or decrease.
  explicit Segments(std::vector<std::int32_t> cu_seqlens);
  /// From lengths; throws Error(usage) if one is negative or the total reaches 2^31.
  static Segments from_lengths(std::span<const std::int32_t> lengths);

  [[nodiscard]] std::span<const std::int32_t> cu_seqlens() const;
  /// B + 1 offsets as an i32 tensor; copied to the device once.
  [[nodiscard]] Tensor on(Device device) const;
  [[nodiscard]] int count() const;
  [[nodiscard]] std::int32_t total() const;
  [[nodiscard]] std::int32_t length(int segment) const;
  [[nodiscard]] int max_length() const;
  /// For each token its segment, i32 (T).
  [[nodiscard]] std::vector<std::int32_t> segment_of_token() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Values of a ragged batch, (T, ...), with their segments.
struct Ragged {
  Tensor values;
  Segments segments;
};

}  // namespace tessera
