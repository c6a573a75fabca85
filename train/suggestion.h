// What somebody who mistyped a name may have meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// The name with the smallest Levenshtein distance to `typed`, the first of several; "none" of
/// none.
std::string nearest_name(std::string_view typed, std::span<const std::string> names);

}  // namespace tessera
