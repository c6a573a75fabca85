#include "train/json_text.h"

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

std::uint64_t count_at(const nlohmann::json& object, const std::string& key) {
  const nlohmann::json& value = object.at(key);
  TESSERA_CHECK_KIND(ErrorKind::data, value.is_number_unsigned(),
                     "'{}': expected a whole number from 0 to 2^64 - 1, got {}", key,
                     value.is_number() ? value.dump() : value.type_name());
  return value.get<std::uint64_t>();
}

}  // namespace tessera
