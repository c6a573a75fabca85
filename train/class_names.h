// Class names: labels of data go to the outputs of a model by name, never by position.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

/// The names as messages show them, such as ["QCD", "DarkZ"], with quotes and line breaks escaped.
std::string list_of(const std::vector<std::string>& names);

/// The place of each of `names` in `order`. Throws Error(data), naming both lists, unless the two
/// hold the same names. `where` says whose the names are, as "FILE: attribute 'classes'"; `owner`
/// says whose order it is, as "the model".
std::vector<std::uint8_t> places_by_name(const std::vector<std::string>& names,
                                         const std::vector<std::string>& order,
                                         const std::string& where, const std::string& owner);

}  // namespace tessera
