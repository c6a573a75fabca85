// The element types of columns in files, and which values pass from one to another.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

namespace tessera {

/// The element types a column may have in a file.
enum class ColumnType : std::uint8_t { i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 };

/// "i8", "f32", ...
const char* name(ColumnType type);
/// Bytes of one element.
std::size_t width(ColumnType type);

/// A C++ type that a column can hold.
template <class T>
concept ColumnValue = (std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char>) ||
                      std::same_as<T, float> || std::same_as<T, double>;

template <ColumnValue T>
constexpr ColumnType column_type() {
  if constexpr (std::is_same_v<T, float>) {
    return ColumnType::f32;
  } else if constexpr (std::is_same_v<T, double>) {
    return ColumnType::f64;
  } else {
    constexpr int log2_bytes = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return static_cast<ColumnType>(2 * log2_bytes + (std::is_unsigned_v<T> ? 1 : 0));
  }
}

/// Where a conversion stopped: the first element that does not fit, and its value.
struct Unconverted {
  std::uint64_t index;
  std::string value;
};
/// Whether any value passes at all: integers to integers, to floats that hold each of them exactly,
/// f64 to f32; never a float to an integer.
bool convertible(ColumnType from, ColumnType to);
/// Converts `count` values where each is preserved: integers that fit, f64 within the range of f32.
/// Nothing is returned when all did.
std::optional<Unconverted> convert_values(ColumnType from, const void* in, ColumnType to, void* out,
                                          std::uint64_t count);

}  // namespace tessera
