// Writes the native ragged HDF5 format: columns in memory, one file at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "train/file_io.h"

namespace tessera {

using NativeColumn =
    std::variant<std::vector<std::int8_t>, std::vector<std::uint8_t>, std::vector<std::int32_t>,
                 std::vector<std::int64_t>, std::vector<std::uint64_t>, std::vector<float>>;
using NativeAttribute = std::variant<std::string, std::int64_t>;

/// Content of one native file of kind "jets". `offsets` (N + 1) and the columns by path.
struct NativeJets {
  std::vector<std::int64_t> offsets = {0};
  std::map<std::string, NativeColumn> columns;        ///< "pf/px" (M), "jet/pt" (N), ...
  std::map<std::string, NativeAttribute> attributes;  ///< beyond those the writer sets itself
  std::vector<std::string> classes;                   ///< of label/class, empty when absent
};

struct NativeOptions {
  int deflate = 6;
  /// Explicit mantissa bits kept of the floats under pf/ (round to nearest even), 23 = all. 14 bits
  /// leave a relative error of 2^-15 and halve the file.
  int mantissa_bits = 23;
  bool overwrite = false;
  FileIo io = {};  ///< puts the file on disk
};

/// Rounds to `bits` explicit mantissa bits, to nearest, ties to even; NaN and infinities unchanged.
float round_mantissa(float value, int bits);

/// Checks extents (N = offsets - 1 for id, jet/, label/, truth/, weight; M = last offset for pf/),
/// and writes; the file appears when it is complete and on disk. Sets format, format_version, kind,
/// n, m, mantissa_bits, content_xxh3. Same content, same bytes. Throws Error(usage | io).
void write_native_jets(const std::filesystem::path& path, NativeJets jets,
                       const NativeOptions& options = {});

}  // namespace tessera
