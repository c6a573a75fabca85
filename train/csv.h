// Lines of comma-separated values that every reader takes apart again (RFC 4180).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// The text of one field. It is quoted, and its quotes are doubled, where it holds a comma, a quote
/// or a line break, or begins or ends with a space, which some readers strip.
std::string csv_field(std::string_view text);

/// The fields with commas between them and "\n" at the end.
std::string csv_line(const std::vector<std::string>& fields);

}  // namespace tessera
