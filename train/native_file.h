// One native file of jets: everything in it is checked before a value is delivered.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "train/hdf5.h"

namespace tessera {

/// Decoded, validated columns of some jets. Optional columns that the file lacks stay empty.
/// px .. energy in GeV; d0, dz and errors in mm, NaN = not measured.
struct JetBlock {
  std::vector<std::int64_t> offsets;                        // (N + 1), first 0
  std::vector<float> px, py, pz, energy, mass;              // (M); mass optional
  std::vector<std::int8_t> charge, pid;                     // (M)
  std::vector<float> d0, d0err, dz, dzerr;                  // (M), optional
  std::vector<std::uint64_t> id;                            // (N)
  std::vector<float> weight;                                // (N), optional
  std::vector<float> jet_pt, jet_eta, jet_phi, jet_energy;  // (N)
  std::vector<std::uint8_t> label_class;                    // (N), optional
  std::vector<std::int8_t> tau_dm;                          // (N), optional; -1 none, 0..16
  std::vector<float> vis_px, vis_py, vis_pz, vis_energy;    // (N), optional

  [[nodiscard]] std::uint64_t jets() const { return offsets.size() - 1; }
  bool operator==(const JetBlock&) const = default;
};

/// Unit that the format gives a column, as "GeV"; "" for none and for columns that it does not
/// know.
std::string column_unit(std::string_view column);

/// An open file with its offsets in memory (8 bytes a jet). Errors are one line, Error(data),
/// naming file, dataset, row and jet, expected, got.
class NativeFile {
 public:
  /// Checks the attributes (format, version, kind, frame, counts), every known column's presence,
  /// rank, extent, checksum and unit, and the offsets.
  explicit NativeFile(const std::filesystem::path& path);

  [[nodiscard]] const H5File& h5() const { return h5_; }
  [[nodiscard]] std::uint64_t jets() const { return offsets_.size() - 1; }
  [[nodiscard]] const std::vector<std::int64_t>& offsets() const { return offsets_; }
  /// Class names of label/class; empty when unlabelled.
  [[nodiscard]] const std::vector<std::string>& classes() const { return classes_; }

  /// Jets [begin, end) with their values checked: momenta and labels finite and in range, energy
  /// at least 0, pid 0..5; NaN in track columns alone.
  [[nodiscard]] JetBlock read(std::uint64_t begin, std::uint64_t end) const;
  /// A whole column of one value per jet; empty when the file lacks it. Labels are checked.
  [[nodiscard]] std::vector<std::uint64_t> ids() const;
  [[nodiscard]] std::vector<std::uint8_t> class_labels() const;
  [[nodiscard]] std::vector<std::int8_t> decay_modes() const;
  [[nodiscard]] std::vector<float> jet_pts() const;
  [[nodiscard]] std::vector<float> weights() const;

 private:
  class Columns;
  void check_attributes() const;
  void check_columns() const;
  void load_offsets();
  void load_classes();
  void read_constituents(const Columns& columns, JetBlock& block) const;
  void read_jets(const Columns& columns, JetBlock& block) const;

  H5File h5_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::string> classes_;
};

/// Opens the file and reads all of it.
void check_native_file(const std::filesystem::path& path);

}  // namespace tessera
