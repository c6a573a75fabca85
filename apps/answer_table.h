// A table of answers in memory: typed columns, as CSV, JSON or HDF5.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

namespace tessera::apps {

/// One value a row. NaN and the empty text are cells without a value.
using AnswerValues =
    std::variant<std::vector<std::int64_t>, std::vector<std::uint64_t>, std::vector<float>,
                 std::vector<double>, std::vector<std::string>>;

/// "i64", "u64", "f32", "f64" or "text".
const char* type_name(const AnswerValues& values);

struct AnswerColumn {
  std::string name;
  AnswerValues values;
};

/// Columns of equal length, and as many names as columns, none twice.
class AnswerTable {
 public:
  /// Adds a column. Throws Error(usage) where its name is taken or its length is not that of the
  /// others.
  void add(const std::string& name, AnswerValues values);
  /// Adds the rows of a table with the same names and types, in the same order.
  void append(const AnswerTable& other);
  [[nodiscard]] const std::vector<AnswerColumn>& columns() const { return columns_; }
  [[nodiscard]] std::size_t rows() const;

  /// A line of names and a line for each row. An f64 has so many significant digits, an f32 as many
  /// as it needs.
  [[nodiscard]] std::string csv(int digits = 7) const;
  /// An array of one object a row; null for a cell without a value.
  [[nodiscard]] nlohmann::ordered_json json() const;

 private:
  std::vector<AnswerColumn> columns_;
};

}  // namespace tessera::apps
