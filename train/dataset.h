// The native reader: jets of a dataset split, streamed in blocks out of checked files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "train/manifest.h"
#include "train/native_file.h"

namespace tessera {

struct DatasetOptions {
  std::string split = "train";
  Verify verify = Verify::hash;
  std::uint64_t block = 4096;              ///< jets read at once
  std::uint64_t cache_bytes = 1ULL << 30;  ///< decoded blocks kept in memory
};

/// One split of a dataset directory. Jets are numbered over its files in manifest order. Reading is
/// thread safe.
class Dataset {
 public:
  /// Verifies and opens each file and checks attributes, extents and offsets; throws Error(missing
  /// | data), one line naming file, dataset, row, expected, got.
  Dataset(const std::filesystem::path& directory, const DatasetOptions& options = {});
  ~Dataset();
  Dataset(Dataset&&) noexcept;

  [[nodiscard]] std::uint64_t size() const;
  /// Constituents of each jet, all jets of the split.
  [[nodiscard]] const std::vector<std::uint32_t>& lengths() const;
  /// Class names of label/class; empty when unlabelled.
  [[nodiscard]] const std::vector<std::string>& classes() const;
  [[nodiscard]] const DatasetManifest& manifest() const;

  /// The block that holds jet `jet`, from the cache or the file, and the jet's row in it. Values
  /// are validated when decoded: momenta finite, energy >= 0, pid 0..5, labels in range.
  struct Located {
    std::shared_ptr<const JetBlock> block;
    std::uint64_t row;
  };
  [[nodiscard]] Located locate(std::uint64_t jet) const;

  /// Per-jet columns of the whole split, for selections; empty when some file lacks the column.
  [[nodiscard]] std::vector<std::uint64_t> ids() const;
  [[nodiscard]] std::vector<std::uint8_t> class_labels() const;
  [[nodiscard]] std::vector<std::int8_t> decay_modes() const;
  [[nodiscard]] std::vector<float> jet_pts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
