// JSON files that others wrote: parsed into a tree that is safe to copy, print and destroy.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera {

/// Nothing of ours nests deeper than 4. The library recurses when it copies or prints a tree, so
/// that some hundred thousand brackets would overflow the stack.
inline constexpr int kMaxJsonDepth = 32;

/// Throws Error(data) that begins with `name` for broken or deeper nested JSON. Objects are sorted
/// maps: the library's ordered ones take quadratic time on many keys.
nlohmann::json parse_json(std::string_view text, std::string_view name);

/// The text of a tree in which strings of others may stand, such as paths: bytes that are no UTF-8
/// become U+FFFD, on which the library's own dump() throws.
template <class Json>
std::string json_text(const Json& tree, int indent = -1) {
  return tree.dump(indent, ' ', false, Json::error_handler_t::replace);
}

/// The whole number at `key`. The library's own conversion takes -1 and 1.5, too, and is undefined
/// for 1e300. Throws Error(data), or the library's exception where the key is missing.
std::uint64_t count_at(const nlohmann::json& object, const std::string& key);

/// The whole number at `key`, from `least` to `most`; throws as count_at.
std::int64_t whole_at(const nlohmann::json& object, const std::string& key, std::int64_t least,
                      std::int64_t most);
/// The number at `key`, from `least` to `most`; throws as count_at.
double number_at(const nlohmann::json& object, const std::string& key, double least, double most);

}  // namespace tessera
