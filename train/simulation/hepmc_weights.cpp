#include "train/simulation/hepmc_weights.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <sstream>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

constexpr const char* kBetweenNames = "\\|";  // a line break, as the format escapes it

std::vector<std::string> split_names(std::string text) {
  std::vector<std::string> names;
  for (std::size_t end = 0; end != std::string::npos;) {
    end = text.find(kBetweenNames);
    names.push_back(text.substr(0, end));
    text.erase(0, end == std::string::npos ? end : end + 2);
  }
  return names;
}

bool is_nominal(std::string name) {
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name == "nominal" || name == "default";
}

std::vector<double> values_of(const std::string& text) {
  std::vector<double> values;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    std::size_t used = 0;
    try {
      values.push_back(std::stod(word, &used));
    } catch (const std::exception&) {  // no number, or one beyond double
    }
    TESSERA_CHECK_KIND(ErrorKind::data,
                       used == word.size() && std::isfinite(static_cast<float>(values.back())),
                       "expected finite event weights, got '{}'", word.substr(0, 40));
  }
  return values;
}

}  // namespace

double WithoutWeights::nominal() const {
  const std::vector<double> values = values_of(before_);
  if (values.empty()) {
    return 1;
  }
  TESSERA_CHECK_KIND(ErrorKind::data, names_.empty() || names_.size() == values.size(),
                     "expected {} event weights, as many as have names, got {}", names_.size(),
                     values.size());
  const auto found = std::ranges::find_if(names_, is_nominal);
  return values[found == names_.end() ? 0 : static_cast<std::size_t>(found - names_.begin())];
}

// The library reads an event up to the 'E' of the next one, which it only looks at.
WithoutWeights::int_type WithoutWeights::underflow() {
  while (std::getline(in_, line_)) {
    if (take(line_)) {
      continue;
    }
    line_ += '\n';
    setg(line_.data(), line_.data(), line_.data() + line_.size());
    return traits_type::to_int_type(line_.front());
  }
  return traits_type::eof();
}

// Whether a line is one of weights, which the library does not see.
bool WithoutWeights::take(const std::string& line) {
  if (line.starts_with("E ") || line.starts_with("HepMC::Asciiv3-END")) {
    in_event_ = line.starts_with("E ");
    before_ = std::exchange(last_, "");
    return false;
  }
  if (line.starts_with("W ")) {
    if (in_event_) {
      last_ = line.substr(2);
    } else if (line.find_first_not_of("0123456789 \r", 2) != std::string::npos) {
      names_ = split_names(line.substr(2));  // before version 3.2; a number of names since then
    }
    return true;
  }
  if (!in_event_ && line.starts_with("N ")) {
    names_ = split_names(line.substr(2));
    return true;
  }
  return false;
}

}  // namespace tessera
