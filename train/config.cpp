#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <type_traits>
#include <utility>

// Debian's toml++ 3.3.0 asserts on some malformed keys ("a.\x02"), which would abort on a user's
// typing error.
namespace {
struct ParserAssertion {};
[[maybe_unused]] [[noreturn]] void fail_parser() { throw ParserAssertion{}; }
}  // namespace
#define TOML_ASSERT(condition) \
  do {                         \
    if (!(condition)) {        \
      fail_parser();           \
    }                          \
  } while (false)
#include <toml++/toml.h>

#include "core/check.h"
#include "train/file_io.h"
#include "train/suggestion.h"

namespace tessera {
namespace {

template <class T>
constexpr bool is_list = false;
template <class T>
constexpr bool is_list<std::vector<T>> = true;

template <class T>
constexpr const char* kind_of() {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_integral_v<T>) {
    return "an integer";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number";
  } else {
    return "a text in quotes";
  }
}

// Where a mistake is and what it is about.
struct Place {
  std::string_view source;
  toml::source_position at;
  std::string key;

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    TESSERA_FAIL(ErrorKind::usage, "{}:{}:{}: {}: {}", source, at.line, at.column, key,
                 fmt::format(text, std::forward<Args>(args)...));
  }
};

// "1e+20", "0.5": the shortest decimal that reads back equal, with a point or exponent, as TOML
// floats need.
template <class T>
std::string number_text(T value) {
  std::string text = fmt::format("{}", value);
  if constexpr (std::is_floating_point_v<T>) {
    if (text.find_first_of(".en") == std::string::npos) {
      text += ".0";
    }
  }
  return text;
}

std::string limit_text(double x) { return std::isinf(x) ? "any" : fmt::format("{}", x); }

std::string range_text(const FieldInfo& info) {
  return fmt::format("{} to {}{}", limit_text(info.min), info.below_max ? "less than " : "",
                     limit_text(info.max));
}

template <class T>
void check_range(const FieldInfo& info, T value, const Place& place) {
  const auto x = static_cast<double>(value);
  const bool beyond = info.below_max ? x >= info.max : x > info.max;
  if (std::isnan(x) || std::isinf(x) || x < info.min || beyond) {
    place.fail("expected {}{}{}, got {}", range_text(info), info.unit.empty() ? "" : " ", info.unit,
               value);
  }
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

template <class T>
T scalar_from(const toml::node& node, const FieldInfo& info, const Place& place) {
  if constexpr (std::is_same_v<T, bool>) {
    if (const auto v = node.value_exact<bool>()) {
      return *v;
    }
  } else if constexpr (std::is_integral_v<T>) {
    if (const auto v = node.value_exact<std::int64_t>()) {
      if (!std::in_range<T>(*v)) {
        place.fail("expected {} to {}, got {}", std::numeric_limits<T>::min(),
                   std::numeric_limits<T>::max(), *v);
      }
      check_range(info, *v, place);
      return static_cast<T>(*v);
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    if (node.is_number()) {
      const double v = node.is_integer() ? static_cast<double>(*node.value<std::int64_t>())
                                         : *node.value_exact<double>();
      check_range(info, v, place);
      check_range(info, static_cast<T>(v),
                  place);  // a float may overflow where the double does not
      return static_cast<T>(v);
    }
  } else if (const auto v = node.value_exact<std::string>()) {
    if (!info.choices.empty() && std::ranges::find(info.choices, *v) == info.choices.end()) {
      place.fail("expected one of {}, got '{}'", joined(info.choices), *v);
    }
    return *v;
  }
  std::ostringstream got;
  got << node.type();
  place.fail("expected {}, got a value of type {}", kind_of<T>(), got.str());
}

template <class T>
void set_value(T& target, const toml::node& node, const FieldInfo& info, const Place& place) {
  if constexpr (is_list<T>) {
    using Element = typename T::value_type;
    const toml::array* list = node.as_array();
    if (std::is_arithmetic_v<Element> && node.is_number()) {  // a list of one
      target = {scalar_from<Element>(node, info, place)};
      return;
    }
    if (list == nullptr) {
      place.fail("expected a list in brackets, each {}", kind_of<Element>());
    }
    T values;
    for (const toml::node& element : *list) {
      values.push_back(scalar_from<Element>(element, info, place));
    }
    target = std::move(values);
  } else {
    target = scalar_from<T>(node, info, place);
  }
}

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

template <class T>
std::string value_text(const T& value) {
  if constexpr (is_list<T>) {
    std::vector<std::string> parts;
    for (const auto& element : value) {
      parts.push_back(value_text(element));
    }
    return "[" + joined(parts) + "]";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return toml_text(value);
  } else {
    return number_text(value);
  }
}

std::string text_of(const FieldPointer& pointer) {
  return std::visit([](const auto* p) { return value_text(*p); }, pointer);
}

std::string nearest(const std::vector<Field>& fields, const std::string& key) {
  std::vector<std::string> names;
  std::ranges::transform(fields, std::back_inserter(names), &Field::name);
  return nearest_name(key, names);
}

bool is_table_of(const std::vector<Field>& fields, const std::string& key) {
  return std::ranges::any_of(fields, [&](const Field& f) { return f.name.starts_with(key + "."); });
}

// The leaves of a TOML document by dotted name.
template <class F>
void walk(const toml::table& table, const std::string& prefix, F&& visit) {
  for (const auto& [key, node] : table) {
    const std::string name =
        prefix.empty() ? std::string(key.str()) : prefix + "." + std::string(key.str());
    visit(name, node, key.source().begin);
  }
}

// Follows quotes and comments through a TOML text, byte by byte.
class QuoteScanner {
 public:
  // Whether the byte at `at` stands outside quotes and comments; call for each byte in turn.
  bool plain(std::string_view text, std::size_t at) {
    if (at < skip_until_) {
      return false;
    }
    const char c = text[at];
    if (c == '\n' && delimiter_.size() < 3) {
      delimiter_.clear();
      comment_ = false;
      return true;
    }
    if (comment_) {
      return false;
    }
    return delimiter_.empty() ? outside(text, at, c) : inside(text, at, c);
  }

 private:
  bool outside(std::string_view text, std::size_t at, char c) {
    if (c == '"' || c == '\'') {
      delimiter_ = text.substr(at, 3) == std::string(3, c) ? std::string(3, c) : std::string(1, c);
      skip_until_ = at + delimiter_.size();
      return false;
    }
    comment_ = c == '#';
    return !comment_;
  }
  bool inside(std::string_view text, std::size_t at, char c) {
    if (c == '\\' && delimiter_[0] == '"') {
      skip_until_ = at + 2;
    } else if (text.substr(at, delimiter_.size()) == delimiter_) {
      skip_until_ = at + delimiter_.size();
      delimiter_.clear();
    }
    return false;
  }
  std::string delimiter_;
  bool comment_ = false;
  std::size_t skip_until_ = 0;
};

// toml++ 3.3.0 runs into undefined behaviour on some characters beyond ASCII outside quotes (its
// is_non_ascii_* tables end in an unreachable default); TOML has no use for them there, so they are
// refused before it sees them.
void check_characters(std::string_view text, std::string_view source) {
  QuoteScanner scanner;
  std::size_t line = 1, line_begin = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto c = static_cast<unsigned char>(text[at]);
    const bool allowed = (c >= 0x20 && c < 0x7f) || c == '\t' || c == '\n' || c == '\r';
    if (scanner.plain(text, at) && !allowed) {
      TESSERA_FAIL(ErrorKind::usage, "{}:{}:{}: a character that needs quotes (byte 0x{:02x})",
                   source, line, at - line_begin + 1, c);
    }
    if (c == '\n') {
      ++line;
      line_begin = at + 1;
    }
  }
}

toml::table parse(std::string_view text, std::string_view source) {
  check_characters(text, source);
  try {
    return toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    TESSERA_FAIL(ErrorKind::usage, "{}:{}:{}: {}", source, e.source().begin.line,
                 e.source().begin.column, e.description());
  } catch (const ParserAssertion&) {
    TESSERA_FAIL(ErrorKind::usage, "{}:1:1: not TOML: a key with a character that needs quotes",
                 source);
  }
}

}  // namespace

void FieldTable::add_field(Field field) {
  TESSERA_CHECK(find(field.name) == nullptr, "config: expected distinct fields, got '{}' twice",
                field.name);
  fields_.push_back(std::move(field));
}

const Field* FieldTable::find(std::string_view name) const {
  const auto it = std::ranges::find(fields_, name, &Field::name);
  return it == fields_.end() ? nullptr : &*it;
}

void FieldTable::read_file(const std::filesystem::path& path, void* config) const {
  read_text(tessera::read_text(path, 16ULL << 20), path.string(), config);
}

void FieldTable::read_text(std::string_view text, std::string_view source, void* config) const {
  const toml::table document = parse(text, source);
  const std::function<void(const std::string&, const toml::node&, toml::source_position)> visit =
      [&](const std::string& name, const toml::node& node, toml::source_position at) {
        const Place place{source, at, name};
        if (const Field* field = find(name)) {
          std::visit([&](auto* target) { set_value(*target, node, field->info, place); },
                     field->at(config));
        } else if (node.is_table() && is_table_of(fields_, name)) {
          walk(*node.as_table(), name, visit);
        } else {
          place.fail("unknown key; the nearest known one is '{}'", nearest(fields_, name));
        }
      };
  walk(document, "", visit);
}

void FieldTable::apply(std::string_view assignment, void* config) const {
  const std::size_t equals = assignment.find('=');
  TESSERA_CHECK(equals != std::string_view::npos && equals > 0, "override '{}': expected key=value",
                assignment);
  const std::string key(assignment.substr(0, equals)), value(assignment.substr(equals + 1));
  const Field* field = find(key);
  TESSERA_CHECK(field != nullptr, "override '{}': unknown key; the nearest known one is '{}'",
                assignment, nearest(fields_, key));
  const bool is_text = std::holds_alternative<std::string*>(field->at(config));
  const bool unquoted = is_text && !value.starts_with('"') && !value.starts_with('\'');
  const std::string line = "value = " + (unquoted ? toml_text(value) : value);
  const std::string source = fmt::format("override '{}'", assignment);
  const toml::table document = parse(line, source);
  TESSERA_CHECK(document.size() == 1 && document.contains("value"),
                "override '{}': expected one value", assignment);
  const Place place{source, {1, static_cast<toml::source_index>(equals + 2)}, key};
  std::visit([&](auto* target) { set_value(*target, *document.get("value"), field->info, place); },
             field->at(config));
}

std::string FieldTable::dump(const void* config) const {
  // Fields are only read through the addresses.
  void* values = const_cast<void*>(config);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  std::map<std::string, std::string> tables;
  std::vector<std::string> order;
  for (const Field& f : fields_) {
    const std::size_t dot = f.name.rfind('.');
    const std::string table = dot == std::string::npos ? "" : f.name.substr(0, dot);
    if (!tables.contains(table)) {
      order.push_back(table);
    }
    tables[table] += f.name.substr(dot == std::string::npos ? 0 : dot + 1) + " = " +
                     text_of(f.at(values)) + "\n";
  }
  std::string text = tables[""];  // keys of the root stand before the first table
  for (const std::string& table : order) {
    if (!table.empty()) {
      text += fmt::format("{}[{}]\n{}", text.empty() ? "" : "\n", table, tables[table]);
    }
  }
  return text;
}

std::string FieldTable::help(const void* defaults) const {
  void* values = const_cast<void*>(defaults);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  std::string text;
  for (const Field& f : fields_) {
    text += fmt::format("  {} = {}", f.name, text_of(f.at(values)));
    if (!f.info.unit.empty()) {
      text += " " + f.info.unit;
    }
    if (!f.info.choices.empty()) {
      text += " (" + joined(f.info.choices) + ")";
    } else if (std::isfinite(f.info.min) || std::isfinite(f.info.max)) {
      text += " (" + range_text(f.info) + ")";
    }
    text += fmt::format("\n      {}\n", f.info.help);
  }
  return text;
}

}  // namespace tessera
