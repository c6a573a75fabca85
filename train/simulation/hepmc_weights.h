// Event weights of HepMC3 ASCII, read beside the library: version 3.1 of it splits names of weights
// at blanks and does not know the lines with names of later versions.
#pragma once

#include <filesystem>
#include <fstream>
#include <streambuf>
#include <string>
#include <vector>

namespace tessera {

/// A file's text without the lines of weights (W, and N before the first event), which it keeps.
class WithoutWeights : public std::streambuf {
 public:
  explicit WithoutWeights(const std::filesystem::path& path) : in_(path) {}

  /// The nominal weight of the event that was read last: the one named nominal or default in any
  /// case, else the first; 1 where the event has none. Throws Error(data) on values that are no
  /// finite number of f32, and where there are more or fewer of them than names.
  [[nodiscard]] double nominal() const;

 protected:
  int_type underflow() override;

 private:
  bool take(const std::string& line);

  std::ifstream in_;
  std::string line_;
  bool in_event_ = false;
  std::vector<std::string> names_;
  std::string before_, last_;  // weights of the event before the line that was read last, and there
};

}  // namespace tessera
