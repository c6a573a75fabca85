// manifest.json of a dataset directory: which files, how long, with which hashes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "train/equal_jets.h"
#include "train/file_io.h"
#include "train/hdf5.h"

namespace tessera {

/// Of weighted jets; sum^2 / squares is how many jets of one weight have the same relative error.
struct WeightSums {
  double sum = 0, squares = 0;
  bool operator==(const WeightSums&) const = default;
};

/// One data file of a split. `file` is relative to the manifest.
struct FileEntry {
  std::string file = {};
  std::uint64_t bytes = 0;
  std::string xxh3_128 = {};
  std::string content_xxh3 = {};  ///< over the uncompressed bytes of all datasets in name order
  std::uint64_t n = 0;
  std::uint64_t m = 0;
  std::uint64_t max_constituents = 0;
  std::map<std::string, std::uint64_t> class_counts = {};
  /// By class, "" where a file has no classes; empty where all weights are 1.
  std::map<std::string, WeightSums> class_weights = {};
  bool operator==(const FileEntry&) const = default;
};

/// What a column holds over all splits; entries that are not finite count as missing and enter
/// nothing else. Without any other entry the four numbers are nothing, and not in the file.
struct ColumnStats {
  std::string dtype, unit;
  std::optional<double> mean{}, std{}, min{}, max{};
  std::uint64_t n_missing = 0;
  bool operator==(const ColumnStats&) const = default;
};

struct DatasetManifest {
  std::string name;
  std::map<std::string, std::vector<FileEntry>> splits;  ///< train, val, test
  std::map<std::string, ColumnStats> columns;
  bool operator==(const DatasetManifest&) const = default;
};

enum class Verify : std::uint8_t { hash, chunks, none };

/// XXH3-128 over name, element type and uncompressed bytes of all columns in name order.
std::string content_hash(const H5File& file);

/// Hashes and counts of one native file, all of which is read and checked first.
FileEntry describe_file(const std::filesystem::path& directory, const std::string& file);
/// What make_manifest() does about a jet that is there twice under different ids. refuse_equal_jets
/// throws Error(data) naming both files and rows.
using OnEqualJets = std::function<void(const EqualJets&)>;
void refuse_equal_jets(const EqualJets& equal);

/// Describes the files of each split, with statistics of all f32 columns. Throws Error(data) on a
/// file that the reader would refuse, on an id that comes twice, and on a file, column or unit
/// whose name check_name() refuses.
DatasetManifest make_manifest(const std::filesystem::path& directory, const std::string& name,
                              const std::map<std::string, std::vector<std::string>>& splits,
                              const OnEqualJets& on_equal_jets = refuse_equal_jets);

/// Written last, through a temporary name and a rename.
void write_manifest(const std::filesystem::path& directory, const DatasetManifest& manifest,
                    const FileIo& io = {});
/// Throws Error(missing) with the command that makes one, or Error(data) naming what is wrong.
DatasetManifest read_manifest(const std::filesystem::path& directory);
/// Size, and with Verify::hash the file hash; throws Error(missing) or Error(data). Runs before
/// HDF5 sees the file.
void verify_file(const std::filesystem::path& directory, const FileEntry& entry, Verify verify);
/// Whether no file of the dataset says that it is real data (attribute 'simulated' = 0).
bool simulated(const std::filesystem::path& directory);
/// What tells two datasets apart wherever they are: a hash over the splits and the hashes of their
/// files, in order.
std::string data_hash(const DatasetManifest& manifest);
/// Hash of the manifest's content, stored in checkpoints to notice another data set.
std::string manifest_hash(const DatasetManifest& manifest);

}  // namespace tessera
