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

/// What becomes of the column 'weight'.
enum class Weights : std::uint8_t {
  use,       ///< as they are, negative ones too
  absolute,  ///< their magnitude
  ignore,    ///< every jet counts once
};

struct DatasetOptions {
  std::string split = "train";
  Verify verify = Verify::hash;
  Weights weights = Weights::use;
  std::uint64_t block = 4096;              ///< jets read at once
  std::uint64_t cache_bytes = 1ULL << 30;  ///< decoded blocks kept in memory
  /// Class names in the order that labels get; empty = that of the first labelled file.
  std::vector<std::string> classes{};
  std::string classes_of = "the first file";  ///< whose order it is, for messages
  bool labels = true;  ///< false: label/class is not read, as if the files had none
};

/// One split of a dataset directory, or a lone file. Jets are numbered over its files in manifest
/// order. Reading is thread safe.
class Dataset {
 public:
  /// Verifies and opens each file and checks attributes, extents and offsets; throws Error(missing
  /// | data), one line naming file, dataset, row, expected, got.
  Dataset(const std::filesystem::path& directory, const DatasetOptions& options = {});
  /// A lone native file as a dataset of one split, options.split. No manifest knows its hash, so
  /// that only its own checksums guard it.
  static Dataset of_file(const std::filesystem::path& file, const DatasetOptions& options = {});
  ~Dataset();
  Dataset(Dataset&&) noexcept;

  [[nodiscard]] std::uint64_t size() const;
  /// Constituents of each jet, all jets of the split.
  [[nodiscard]] const std::vector<std::uint32_t>& lengths() const;
  /// Class names in the order of the labels that are delivered, whatever the order in each file;
  /// empty when unlabelled.
  [[nodiscard]] const std::vector<std::string>& classes() const;
  [[nodiscard]] const DatasetManifest& manifest() const;
  [[nodiscard]] const std::string& split() const;
  /// Whether a file of the split has the column.
  [[nodiscard]] bool holds(const std::string& column) const;

  /// A file of the split; its rows are jets first .. first + jets - 1.
  struct File {
    std::filesystem::path path;
    std::string name;  ///< as in the manifest
    std::uint64_t first, jets;
  };
  [[nodiscard]] std::vector<File> files() const;

  /// Weight of each jet, (N); empty where all are 1, or ignored. A file without the column has 1.
  /// The constructor throws Error(data) where weights add up to nothing above 0.
  [[nodiscard]] const std::vector<float>& weights() const;
  [[nodiscard]] bool weighted() const { return !weights().empty(); }
  /// Whether there are weights that the options ignore.
  [[nodiscard]] bool weights_ignored() const;
  /// Throws Error(data) naming file and row of the first negative weight: a training that lowers a
  /// loss of negative weight has no bound.
  void check_no_negative_weight() const;

  /// The block that holds jet `jet`, from the cache or the file, and the jet's row in it. Values
  /// are validated when decoded: momenta finite, energy >= 0, pid 0..5, labels in range.
  struct Located {
    std::shared_ptr<const JetBlock> block;
    std::uint64_t row;
  };
  [[nodiscard]] Located locate(std::uint64_t jet) const;

  /// The first file with jets that lacks a column; empty where each has it.
  [[nodiscard]] std::filesystem::path file_without(const std::string& column) const;

  /// Per-jet columns of the whole split, for selections; empty when some file lacks the column.
  [[nodiscard]] std::vector<std::uint64_t> ids() const;
  [[nodiscard]] std::vector<std::uint8_t> class_labels() const;
  [[nodiscard]] std::vector<std::int8_t> decay_modes() const;
  [[nodiscard]] std::vector<float> jet_pts() const;

 private:
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
