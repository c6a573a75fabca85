#include "core/shape.h"

#include <fmt/ranges.h>

#include "core/check.h"

namespace tessera {
namespace {

std::int64_t checked_product(std::int64_t a, std::int64_t b, const Shape& shape) {
  std::int64_t product = 0;
  TESSERA_CHECK(!__builtin_mul_overflow(a, b, &product),
                "Shape: {} has more than 2^63 - 1 elements", shape);
  return product;
}

}  // namespace

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  TESSERA_CHECK(rank_ <= kMaxRank, "Shape: at most {} axes, got {}", kMaxRank, rank_);
  for (int i = 0; i < rank_; ++i) {
    const std::int64_t e = extents[static_cast<std::size_t>(i)];
    TESSERA_CHECK(e >= 0, "Shape: extents must not be negative, got {} on axis {}", e, i);
    extents_[static_cast<std::size_t>(i)] = e;
  }
}

std::int64_t Shape::size() const {
  std::int64_t n = 1;
  for (const std::int64_t e : extents()) {
    n = checked_product(n, e, *this);
  }
  return n;
}

std::string Shape::str() const { return fmt::format("({})", fmt::join(extents(), ", ")); }

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step = checked_product(step, shape[i], shape);
  }
  return strides;
}

}  // namespace tessera
