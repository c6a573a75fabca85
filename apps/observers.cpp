#include "apps/observers.h"

#include <algorithm>

#include "core/check.h"
#include "train/suggestion.h"

namespace tessera::apps {
namespace {

/// Columns with one value a jet.
std::vector<std::string> jet_columns(const H5File& h5, std::uint64_t jets) {
  std::vector<std::string> names = h5.columns();
  std::erase_if(names, [&](const std::string& name) {
    return name == "offsets" || name.starts_with("pf/") || !h5.is_column(name) ||
           h5.size(name) != jets;
  });
  return names;
}

std::vector<std::string> class_names_of(const H5File& h5, const std::string& column) {
  const auto classes = h5.read_attribute<std::vector<std::string>>("classes", column);
  std::vector<std::string> values;
  for (const auto place : h5.read_column<std::uint8_t>(column)) {
    TESSERA_CHECK_KIND(ErrorKind::data, place < classes.size(),
                       "{}: dataset '{}': expected 0 to {}, got {}", h5.path().string(), column,
                       classes.size() - 1, place);
    values.push_back(classes[place]);
  }
  return values;
}

AnswerValues values_of(const H5File& h5, const std::string& column) {
  if (h5.has_attribute("classes", column)) {
    return class_names_of(h5, column);
  }
  switch (h5.info(column).type) {
    case ColumnType::f32:
      return h5.read_column<float>(column);
    case ColumnType::f64:
      return h5.read_column<double>(column);
    case ColumnType::u64:
      return h5.read_column<std::uint64_t>(column);
    default:
      return h5.read_column<std::int64_t>(column);
  }
}

}  // namespace

void add_observers(const Dataset& data, const std::vector<std::string>& names, AnswerTable& table) {
  AnswerTable all;
  bool first = true;
  for (const Dataset::File& file : data.files()) {
    const H5File h5 = H5File::open(file.path);
    const std::vector<std::string> known = jet_columns(h5, file.jets);
    AnswerTable part;
    for (const std::string& name : names) {
      TESSERA_CHECK_KIND(
          first ? ErrorKind::usage : ErrorKind::data, std::ranges::find(known, name) != known.end(),
          "--observers: {}: expected a dataset with one value a jet, got '{}'; the nearest one is "
          "'{}'",
          file.path.string(), name, nearest_name(name, known));
      part.add(name, values_of(h5, name));
    }
    first ? void(all = std::move(part)) : all.append(part);
    first = false;
  }
  for (const AnswerColumn& column : all.columns()) {
    table.add(column.name, column.values);
  }
}

}  // namespace tessera::apps
