// RowPacker: builds the row index of a packed batch whose segments start with the registers.
#pragma once

#include "core/segments.h"

namespace tessera {

/// Segments of the form [register 0 .. R-1][payload rows]. Indices count rows of a table whose
/// first R rows are the registers; payload() tells where the payload landed, to drop the registers
/// after the blocks.
class RowPacker {
 public:
  explicit RowPacker(std::int64_t registers) : registers_(static_cast<std::int32_t>(registers)) {}

  void begin_segment() {
    offsets_.push_back(static_cast<std::int32_t>(index_.size()));
    for (std::int32_t r = 0; r < registers_; ++r) {
      index_.push_back(r);
    }
  }
  void append(std::int32_t row) {
    payload_.push_back(static_cast<std::int32_t>(index_.size()));
    index_.push_back(row);
  }
  void append_range(std::int32_t first, std::int32_t count) {
    for (std::int32_t i = 0; i < count; ++i) {
      append(first + i);
    }
  }

  [[nodiscard]] Tensor index() const { return vector_tensor(index_); }
  [[nodiscard]] Tensor payload() const { return vector_tensor(payload_); }
  [[nodiscard]] Segments segments() const {
    std::vector<std::int32_t> offsets = offsets_;
    offsets.push_back(static_cast<std::int32_t>(index_.size()));
    return Segments(std::move(offsets));
  }

  /// i32 (N) from host values.
  static Tensor vector_tensor(const std::vector<std::int32_t>& values) {
    return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  }

 private:
  std::int32_t registers_;
  std::vector<std::int32_t> index_, payload_, offsets_;
};

}  // namespace tessera
