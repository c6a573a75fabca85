// Small native data sets for tests, made of random but physical jets.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/rng.h"
#include "train/dataset.h"

namespace tessera {

/// Jets with the given lengths; ids first_id, first_id + 1, ... ; charge and labels follow from the
/// id, d0 is NaN for neutrals.
inline JetBlock random_jets(const std::vector<std::int64_t>& lengths, std::uint64_t first_id = 0,
                            std::uint64_t seed = 1) {
  JetBlock b;
  b.offsets = {0};
  Rng rng(seed, first_id);
  for (std::size_t j = 0; j < lengths.size(); ++j) {
    const std::uint64_t id = first_id + j;
    const float eta = rng.uniform(-1.5F, 1.5F), phi = rng.uniform(-3.14F, 3.14F);
    float sum_energy = 0;
    for (std::int64_t i = 0; i < lengths[j]; ++i) {
      const float pt = 100.0F * std::exp(-6.0F * rng.uniform());
      const float e = eta + rng.uniform(-0.4F, 0.4F), p = phi + rng.uniform(-0.4F, 0.4F);
      b.px.push_back(pt * std::cos(p));
      b.py.push_back(pt * std::sin(p));
      b.pz.push_back(pt * std::sinh(e));
      b.energy.push_back(pt * std::cosh(e));
      sum_energy += b.energy.back();
      const int pid = static_cast<int>(rng.below(6));
      const bool charged = pid == 1 || pid >= 4;
      b.pid.push_back(static_cast<std::int8_t>(pid));
      b.charge.push_back(static_cast<std::int8_t>(charged ? (rng.below(2) == 0 ? -1 : 1) : 0));
      b.d0.push_back(charged ? rng.uniform(-1, 1) : std::nanf(""));
      b.d0err.push_back(charged ? 0.02F : std::nanf(""));
      b.dz.push_back(charged ? rng.uniform(-1, 1) : std::nanf(""));
      b.dzerr.push_back(charged ? 0.03F : std::nanf(""));
    }
    b.offsets.push_back(b.offsets.back() + lengths[j]);
    b.id.push_back(id);
    b.jet_pt.push_back(static_cast<float>(id % 1000));
    b.jet_eta.push_back(eta);
    b.jet_phi.push_back(phi);
    b.jet_energy.push_back(sum_energy);
    b.label_class.push_back(static_cast<std::uint8_t>(id % 3));
    b.tau_dm.push_back(static_cast<std::int8_t>(static_cast<int>(id % 18) - 1));
    b.vis_px.push_back(1.0F);
    b.vis_py.push_back(2.0F);
    b.vis_pz.push_back(3.0F);
    b.vis_energy.push_back(4.0F);
  }
  return b;
}

inline void write_jets(const std::filesystem::path& path, const JetBlock& b,
                       std::uint64_t chunk = 65536, const std::string& content_hash = "",
                       const std::function<void(H5File&)>& more = {}) {
  auto f = H5File::create(path);
  if (!content_hash.empty()) {
    f.write_attribute("content_xxh3", content_hash);
  }
  const ColumnOptions o{.chunk = chunk};
  f.write_attribute("format", "tessera");
  f.write_attribute("format_version", std::uint32_t{1});
  f.write_attribute("kind", "jets");
  f.write_column("offsets", b.offsets, o);
  f.write_column("pf/px", b.px, o);
  f.write_column("pf/py", b.py, o);
  f.write_column("pf/pz", b.pz, o);
  f.write_column("pf/energy", b.energy, o);
  f.write_column("pf/charge", b.charge, o);
  f.write_column("pf/pid", b.pid, o);
  if (!b.mass.empty()) {
    f.write_column("pf/mass", b.mass, o);
  }
  if (!b.weight.empty()) {
    f.write_column("weight", b.weight, o);
  }
  f.write_column("pf/d0", b.d0, o);
  f.write_column("pf/d0err", b.d0err, o);
  f.write_column("pf/dz", b.dz, o);
  f.write_column("pf/dzerr", b.dzerr, o);
  f.write_column("id", b.id, o);
  f.write_column("jet/pt", b.jet_pt, o);
  f.write_column("jet/eta", b.jet_eta, o);
  f.write_column("jet/phi", b.jet_phi, o);
  f.write_column("jet/energy", b.jet_energy, o);
  f.write_column("label/class", b.label_class, o);
  f.write_attribute("classes", std::vector<std::string>{"QCD", "Hbb", "Tbqq"}, "label/class");
  f.write_column("label/tau_dm", b.tau_dm, o);
  f.write_column("truth/vis_px", b.vis_px, o);
  f.write_column("truth/vis_py", b.vis_py, o);
  f.write_column("truth/vis_pz", b.vis_pz, o);
  f.write_column("truth/vis_energy", b.vis_energy, o);
  if (more) {
    more(f);
  }
  f.close();
}

/// A manifest for a file that the manifest's maker would refuse.
inline void list_unchecked(const std::filesystem::path& directory, const std::string& file,
                           std::uint64_t jets) {
  FileEntry entry{.file = file, .n = jets};
  entry.bytes = std::filesystem::file_size(directory / file);
  DatasetManifest manifest{.name = "unchecked", .splits = {{"train", {entry}}}, .columns = {}};
  write_manifest(directory, manifest);
}

/// A directory with train files train_0.h5, train_1.h5, ... of the given lengths, and a manifest.
inline void write_dataset(const std::filesystem::path& directory,
                          const std::vector<std::vector<std::int64_t>>& files,
                          std::uint64_t chunk = 65536) {
  std::vector<std::string> names;
  std::uint64_t first_id = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    names.push_back("train_" + std::to_string(i) + ".h5");
    write_jets(directory / names.back(), random_jets(files[i], first_id), chunk);
    first_id += files[i].size();
  }
  write_manifest(directory, make_manifest(directory, "test", {{"train", names}}));
}

inline std::vector<std::int64_t> random_lengths(std::size_t jets, std::uint64_t seed,
                                                std::uint64_t longest = 60) {
  Rng rng(seed);
  std::vector<std::int64_t> lengths(jets);
  for (auto& n : lengths) {
    n = static_cast<std::int64_t>(rng.below(longest + 1));
  }
  return lengths;
}

}  // namespace tessera
