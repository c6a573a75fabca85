// Names out of files and folders: which of them may become a key, a column or a line of text.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// Whether the bytes are UTF-8.
bool is_utf8(std::string_view text);

/// The text as UTF-8 on one line, for messages and labels: as it is where it is that already; else
/// control characters and line breaks become escapes, and bytes that are no UTF-8 become U+FFFD.
std::string one_line(std::string_view text);

/// Throws Error(data), beginning with `where`, on a name that is empty, is not UTF-8, or holds a
/// control character or a line break: it would break a table, a message or a JSON file.
void check_name(std::string_view name, std::string_view where);
/// The same for each name of a list, and on one that comes twice.
void check_names(std::span<const std::string> names, std::string_view where);

}  // namespace tessera
