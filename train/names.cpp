#include "train/names.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/check.h"

namespace tessera {
namespace {

using nlohmann::json;

// ASCII control characters; of UTF-8 those of Latin-1 (U+0080 to U+009F) and the two separators of
// lines and paragraphs (U+2028, U+2029), at which some readers break a line.
bool breaks_a_line(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = [&](std::size_t ahead) {
      return i + ahead < text.size() ? static_cast<unsigned char>(text[i + ahead]) : 0U;
    };
    const bool ascii = byte(0) < 0x20 || byte(0) == 0x7f;
    const bool latin = byte(0) == 0xc2 && byte(1) >= 0x80 && byte(1) <= 0x9f;
    const bool separator = byte(0) == 0xe2 && byte(1) == 0x80 && (byte(2) | 1U) == 0xa9;
    if (ascii || latin || separator) {
      return true;
    }
  }
  return false;
}

const char* fault_of(std::string_view name) {
  return name.empty()          ? "an empty one"
         : !is_utf8(name)      ? "bytes that are no UTF-8"
         : breaks_a_line(name) ? "a control character or line break"
                               : nullptr;
}

}  // namespace

bool is_utf8(std::string_view text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::type_error&) {
    return false;
  }
}

std::string one_line(std::string_view text) {
  if (is_utf8(text) && !breaks_a_line(text)) {
    return std::string(text);
  }
  // the library escapes all but ASCII where it is asked to, the characters of breaks_a_line too
  const std::string quoted = json(text).dump(-1, ' ', true, json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

void check_name(std::string_view name, std::string_view where) {
  const char* fault = fault_of(name);
  TESSERA_CHECK_KIND(ErrorKind::data, fault == nullptr,
                     "{}: expected a name of one line in UTF-8, got {}: '{}'", one_line(where),
                     fault, one_line(name));
}

void check_names(std::span<const std::string> names, std::string_view where) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    check_name(names[i], where);
    TESSERA_CHECK_KIND(ErrorKind::data,
                       std::ranges::find(names.first(i), names[i]) == names.first(i).end(),
                       "{}: expected distinct names, got '{}' twice", one_line(where), names[i]);
  }
}

}  // namespace tessera
