// The first jets of the repository's sample: the same columns, a tenth of the time, for tests of
// the whole chain. Under a sanitizer the measures on the full test splits took most of its hour.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/temp_dir.h"
#include "train/dataset.h"
#include "train/native_writer.h"

namespace tessera {

/// The columns of a block that the chain reads, by the names of the format.
inline NativeJets native_columns(JetBlock b, std::vector<std::string> classes) {
  NativeJets out{.offsets = std::move(b.offsets), .classes = std::move(classes)};
  const auto keep = [&](const char* path, auto& column) {
    if (!column.empty()) out.columns[path] = std::move(column);
  };
  keep("pf/px", b.px), keep("pf/py", b.py), keep("pf/pz", b.pz), keep("pf/energy", b.energy);
  keep("pf/charge", b.charge), keep("pf/pid", b.pid);
  keep("pf/d0", b.d0), keep("pf/d0err", b.d0err), keep("pf/dz", b.dz), keep("pf/dzerr", b.dzerr);
  keep("id", b.id), keep("label/class", b.label_class), keep("label/tau_dm", b.tau_dm);
  keep("weight", b.weight);
  keep("jet/pt", b.jet_pt), keep("jet/eta", b.jet_eta), keep("jet/phi", b.jet_phi);
  keep("jet/energy", b.jet_energy);
  keep("truth/vis_px", b.vis_px), keep("truth/vis_py", b.vis_py), keep("truth/vis_pz", b.vis_pz);
  keep("truth/vis_energy", b.vis_energy);
  return out;
}

/// Writes to `to` the first `jets` of every file of the dataset `from`, in its splits; with
/// `weight` of each row, if given.
inline void write_head_of(const std::filesystem::path& from, const std::filesystem::path& to,
                          std::uint64_t jets, float (*weight)(std::size_t row) = nullptr) {
  std::filesystem::create_directories(to);
  std::map<std::string, std::vector<std::string>> splits;
  for (const auto& [split, files] : read_manifest(from).splits) {
    for (const FileEntry& entry : files) {
      const NativeFile file(from / entry.file);
      JetBlock block = file.read(0, jets);
      for (std::size_t row = 0; weight && row < block.jets(); ++row) {
        block.weight.push_back(weight(row));
      }
      write_native_jets(to / entry.file, native_columns(std::move(block), file.classes()));
      splits[split].push_back(entry.file);
    }
  }
  write_manifest(to, make_manifest(to, from.filename(), splits));
}

/// The overrides by which a verb takes the first 150 jets, or as many as asked for, of each file of
/// the sample.
inline std::string small_sample(const TempDir& dir, std::uint64_t jets = 150) {
  const std::filesystem::path sample = TESSERA_SOURCE_DIR "/apps/sample", to = dir.path() / "small";
  for (const char* set : {"jets", "tau"}) {
    write_head_of(sample / set, to / set, jets);
  }
  return "data.jets=" + (to / "jets").string() + " data.taus=" + (to / "tau").string();
}

}  // namespace tessera
