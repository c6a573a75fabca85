// Model inputs from raw constituents: the data contract.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "train/dataset.h"

namespace tessera {

inline constexpr int kCoreFeatures = 3;       ///< ln pt - 1.8, 3 deta, 3 dphi
inline constexpr int kContextFeatures = 9;    ///< energies, Delta R, track; append_context()
inline constexpr int kParticleFeatures = 13;  ///< ParT and DeepSets
inline constexpr int kPidClasses =
    9;  ///< ch+, ch-, neutral hadron, photon, e+, e-, mu+, mu-, unknown

/// The data contract: everything that decides a model's inputs. Its hash travels with every
/// checkpoint.
struct FeatureConfig {
  std::string contract =
      "tess-kinpid";  ///< "alpha3" (core only) or "tess-kinpid" (core + pid + ctx)
  std::uint32_t max_constituents = 128;
  double max_delta =
      0.8;  ///< strict cut on |deta| and |dphi|; dropped particles leave before truncation
  bool use_tracks = true;  ///< false: d0, dz and their errors are 0, for equal-input comparisons
  bool particles = false;  ///< also fill the 13-feature set
};

/// y = (clip(f(x)) - subtract) * multiply; inverse x = f^-1(y / multiply + subtract).
struct Transform {
  double subtract = 0;
  double multiply = 1;
  [[nodiscard]] double forward(double x) const { return (x - subtract) * multiply; }
  [[nodiscard]] double inverse(double y) const { return y / multiply + subtract; }
};
inline constexpr std::array<Transform, 3> kCoreTransforms{{{1.8, 1}, {0, 3}, {0, 3}}};

/// Survivors of some jets, packed. Row order in a jet: falling pT (stable), leading
/// max_constituents kept.
struct FeatureRows {
  std::vector<std::int32_t> cu_seqlens{0};  // (B + 1)
  std::vector<float> core;                  // (T, 3)
  std::vector<float> context;               // (T, 9); empty for alpha3
  std::vector<std::int32_t> pid;            // (T), 0 .. 8; empty for alpha3
  std::vector<float> particles;             // (T, 13); empty unless asked for
  std::vector<float> four_momenta;          // (T, 4) px, py, pz, E in GeV; beside `particles` only
  std::uint64_t cut = 0;                    ///< particles dropped by pt > 0 or max_delta
  std::uint64_t truncated = 0;              ///< survivors beyond max_constituents
  std::uint64_t unmeasured = 0;             ///< NaN track values that became 0
  std::uint64_t empty = 0;                  ///< jets without a survivor
};

/// Sum of all constituents of a jet, before any cut: the axis that features refer to.
struct Axis {
  double px = 0, py = 0, pz = 0, energy = 0;
  [[nodiscard]] double pt() const;
  [[nodiscard]] double eta() const;
  [[nodiscard]] double phi() const;
};
Axis jet_axis(const JetBlock& block, std::uint64_t row);

/// phi wrapped to [-pi, pi).
double wrap_phi(double phi);

/// Decay mode of the generator to the six classes {0, 1, 2, 10, 11, 15} of the task, as 0..5; -1
/// for leptonic or none.
int tau_decay_class(int decay_mode);
inline constexpr int kTauDecayClasses = 6;

/// Index of the particle kind among kPidClasses from the file's pid code (0..5) and charge.
int pid_class(int pid, int charge);

/// Core features (3 values) back to pt, eta, phi relative to the axis: the inverse used on
/// reconstructed particles.
struct PtDetaDphi {
  double pt, deta, dphi;
};
PtDetaDphi inverse_core(const float* core);

/// Where a jet's survivors stand in the block's columns: inside the cuts, in falling pT (stable),
/// the leading max_constituents.
std::vector<std::size_t> kept_particles(const JetBlock& block, std::uint64_t row,
                                        const FeatureConfig& config);

/// Appends one jet's survivors to `rows`, all quantities computed in double.
void append_features(const JetBlock& block, std::uint64_t row, const FeatureConfig& config,
                     FeatureRows& rows);

/// Canonical JSON of the contract (names, order, units, transforms, cuts, conventions) and its
/// XXH3-128.
std::string contract_json(const FeatureConfig& config);
std::string contract_hash(const FeatureConfig& config);

}  // namespace tessera
