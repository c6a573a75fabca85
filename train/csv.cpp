#include "train/csv.h"

namespace tessera {

std::string csv_field(std::string_view text) {
  const bool special = text.find_first_of(",\"\r\n") != std::string_view::npos;
  const bool padded = !text.empty() && (text.front() == ' ' || text.back() == ' ');
  if (!special && !padded) {
    return std::string(text);
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c == '"' ? "\"\"" : std::string(1, c);
  }
  return quoted + '"';
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::string line;
  for (const std::string& field : fields) {
    line += csv_field(field) + ',';
  }
  if (!line.empty()) {
    line.pop_back();
  }
  return line + '\n';
}

}  // namespace tessera
