#include "train/class_names.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"

namespace tessera {

std::string list_of(const std::vector<std::string>& names) { return fmt::format("{}", names); }

std::vector<std::uint8_t> places_by_name(const std::vector<std::string>& names,
                                         const std::vector<std::string>& order,
                                         const std::string& where, const std::string& owner) {
  TESSERA_CHECK_KIND(ErrorKind::data, std::ranges::is_permutation(names, order),
                     "{}: expected the classes {} of {} in any order, got {}", where,
                     list_of(order), owner, list_of(names));
  std::vector<std::uint8_t> places;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(order, name);
    places.push_back(static_cast<std::uint8_t>(found - order.begin()));
  }
  return places;
}

}  // namespace tessera
