#include "apps/answer_table.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "train/csv.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

template <class T>
constexpr bool kFloat = std::is_floating_point_v<T>;

std::string text_of(const std::string& value, int) { return value; }
std::string text_of(double value, int digits) { return fmt::format("{:.{}g}", value, digits); }
std::string text_of(auto value, int) { return fmt::format("{}", value); }

template <class T>
bool no_value(const T& value) {
  if constexpr (kFloat<T>) {
    return std::isnan(value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value.empty();
  } else {
    return false;
  }
}

std::size_t length(const AnswerValues& values) {
  return std::visit([](const auto& v) { return v.size(); }, values);
}

std::string cell(const AnswerValues& values, std::size_t row, int digits) {
  return std::visit([&](const auto& v) { return no_value(v[row]) ? "" : text_of(v[row], digits); },
                    values);
}

ordered_json json_cell(const AnswerValues& values, std::size_t row) {
  return std::visit(
      [&](const auto& v) { return no_value(v[row]) ? ordered_json() : ordered_json(v[row]); },
      values);
}

}  // namespace

const char* type_name(const AnswerValues& values) {
  constexpr const char* kNames[] = {"i64", "u64", "f32", "f64", "text"};
  return kNames[values.index()];
}

void AnswerTable::add(const std::string& name, AnswerValues values) {
  TESSERA_CHECK(std::ranges::find(columns_, name, &AnswerColumn::name) == columns_.end(),
                "predict: expected each column once, got '{}' twice", name);
  TESSERA_CHECK(columns_.empty() || length(values) == rows(),
                "predict: column '{}': expected {} rows, got {}", name, rows(), length(values));
  columns_.push_back({name, std::move(values)});
}

void AnswerTable::append(const AnswerTable& other) {
  TESSERA_CHECK(
      std::ranges::equal(columns_, other.columns_, {}, &AnswerColumn::name, &AnswerColumn::name),
      "predict: expected tables with the same columns");
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    TESSERA_CHECK_KIND(
        ErrorKind::data, columns_[c].values.index() == other.columns_[c].values.index(),
        "column '{}': expected one type of number in all files, got two", columns_[c].name);
    std::visit(
        [&]<class T>(std::vector<T>& rows) {
          const auto& more = std::get<std::vector<T>>(other.columns_[c].values);
          rows.insert(rows.end(), more.begin(), more.end());
        },
        columns_[c].values);
  }
}

std::size_t AnswerTable::rows() const {
  return columns_.empty() ? 0 : length(columns_.front().values);
}

std::string AnswerTable::csv(int digits) const {
  std::vector<std::string> fields;
  for (const AnswerColumn& column : columns_) {
    fields.push_back(column.name);
  }
  std::string text = csv_line(fields);
  for (std::size_t row = 0; row < rows(); ++row) {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      fields[c] = cell(columns_[c].values, row, digits);
    }
    text += csv_line(fields);
  }
  return text;
}

ordered_json AnswerTable::json() const {
  ordered_json all = ordered_json::array();
  for (std::size_t row = 0; row < rows(); ++row) {
    ordered_json object;
    for (const AnswerColumn& column : columns_) {
      object[column.name] = json_cell(column.values, row);
    }
    all.push_back(std::move(object));
  }
  return all;
}

}  // namespace tessera::apps
