#include "train/column_type.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

namespace tessera {
namespace {

template <class F>
decltype(auto) with_type(ColumnType type, F&& f) {
  switch (type) {
    case ColumnType::i8:
      return f(std::int8_t{});
    case ColumnType::u8:
      return f(std::uint8_t{});
    case ColumnType::i16:
      return f(std::int16_t{});
    case ColumnType::u16:
      return f(std::uint16_t{});
    case ColumnType::i32:
      return f(std::int32_t{});
    case ColumnType::u32:
      return f(std::uint32_t{});
    case ColumnType::i64:
      return f(std::int64_t{});
    case ColumnType::u64:
      return f(std::uint64_t{});
    case ColumnType::f32:
      return f(float{});
    default:
      return f(double{});
  }
}

// Whether every value of From is exactly a value of the float type To.
template <class From, class To>
constexpr bool exact_in_float() {
  return std::numeric_limits<From>::digits <= std::numeric_limits<To>::digits;
}

// Index of the first element that does not fit, or count.
template <class From, class To>
std::uint64_t convert(const From* in, To* out, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
      if (!std::in_range<To>(in[i])) {
        return i;
      }
    } else if constexpr (std::is_same_v<From, double> && std::is_same_v<To, float>) {
      if (std::isfinite(in[i]) && std::abs(in[i]) > std::numeric_limits<float>::max()) {
        return i;
      }
    }
    out[i] = static_cast<To>(in[i]);
  }
  return count;
}

template <class From, class To>
constexpr bool convertible_types() {
  if (std::is_floating_point_v<From>) {
    return std::is_floating_point_v<To>;
  }
  return std::is_integral_v<To> || exact_in_float<From, To>();
}

}  // namespace

const char* name(ColumnType type) {
  const char* names[] = {"i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"};
  return names[static_cast<std::size_t>(type)];
}

std::size_t width(ColumnType type) {
  const std::size_t widths[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
  return widths[static_cast<std::size_t>(type)];
}

bool convertible(ColumnType from, ColumnType to) {
  return with_type(from, [to]<class From>(From) {
    return with_type(to, []<class To>(To) { return convertible_types<From, To>(); });
  });
}

std::optional<Unconverted> convert_values(ColumnType from, const void* in, ColumnType to, void* out,
                                          std::uint64_t count) {
  std::optional<Unconverted> bad;
  with_type(from, [&]<class From>(From) {
    with_type(to, [&]<class To>(To) {
      if constexpr (convertible_types<From, To>()) {
        const auto* values = static_cast<const From*>(in);
        const std::uint64_t stop = convert(values, static_cast<To*>(out), count);
        if (stop != count) {
          bad = Unconverted{stop, fmt::format("{}", values[stop])};
        }
      }
    });
  });
  return bad;
}

}  // namespace tessera
