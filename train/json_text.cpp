#include "train/json_text.h"

#include <cmath>

#include "core/check.h"

namespace tessera {

nlohmann::json parse_json(std::string_view text, std::string_view name) {
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t /*event*/, nlohmann::json&) {
    TESSERA_CHECK_KIND(ErrorKind::data, depth <= kMaxJsonDepth,
                       "{}: expected JSON nested at most {} deep, got more", name, kMaxJsonDepth);
    return true;
  };
  try {
    return nlohmann::json::parse(text, shallow);
  } catch (const nlohmann::json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", name, e.what());
  }
}

namespace {

std::string shown(const nlohmann::json& value) {
  return value.is_number() ? value.dump() : value.type_name();
}

}  // namespace

std::uint64_t count_at(const nlohmann::json& object, const std::string& key) {
  const nlohmann::json& value = object.at(key);
  TESSERA_CHECK_KIND(ErrorKind::data, value.is_number_unsigned(),
                     "'{}': expected a whole number from 0 to 2^64 - 1, got {}", key, shown(value));
  return value.get<std::uint64_t>();
}

std::int64_t whole_at(const nlohmann::json& object, const std::string& key, std::int64_t least,
                      std::int64_t most) {
  const nlohmann::json& value = object.at(key);
  // An unsigned value beyond 2^63 would turn negative.
  const bool whole = value.is_number_unsigned()
                         ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)
                         : value.is_number_integer();
  const std::int64_t n = whole ? value.get<std::int64_t>() : 0;
  TESSERA_CHECK_KIND(ErrorKind::data, whole && n >= least && n <= most,
                     "'{}': expected a whole number from {} to {}, got {}", key, least, most,
                     shown(value));
  return n;
}

double number_at(const nlohmann::json& object, const std::string& key, double least, double most) {
  const nlohmann::json& value = object.at(key);
  const double x = value.is_number() ? value.get<double>() : NAN;
  TESSERA_CHECK_KIND(ErrorKind::data, x >= least && x <= most,
                     "'{}': expected a number from {} to {}, got {}", key, least, most,
                     shown(value));
  return x;
}

}  // namespace tessera
