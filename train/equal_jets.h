// The same jet under two ids: a leak between splits that no id shows.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "train/native_file.h"

namespace tessera {

/// Two rows that hold the same constituents.
struct EqualJets {
  struct Place {
    std::filesystem::path file;
    std::uint64_t row = 0;
  };
  Place first, second;
  std::uint64_t others = 0;  ///< jets, beside `second`, that are equal to an earlier one
};

/// Finds jets of equal constituents (four-momenta, charge, pid; in order) among files, in O(N log
/// N) with 16 bytes a jet. Jets without constituents have nothing to compare and are passed over,
/// and so are files of generated jets (attribute 'source' = "generated"): a model of finitely many
/// tokens may well draw a jet twice.
class EqualJetSearch {
 public:
  void add(const std::filesystem::path& path);
  /// The first pair in the order of the files; nothing if all jets differ.
  [[nodiscard]] std::optional<EqualJets> find() const;

 private:
  struct File {
    std::filesystem::path path;
    std::vector<std::uint64_t> keys;  // (N) of the constituents; 0 = passed over
  };
  [[nodiscard]] std::vector<std::uint64_t> repeated_keys() const;
  std::vector<File> files_;
};

}  // namespace tessera
