#include "train/features.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>

#include "core/check.h"
#include "train/hash.h"

namespace tessera {
namespace {

constexpr double kPi = std::numbers::pi;

// The context constants are those of the public JetClass configuration
// (jet-universe/particle_transformer), clipped to +-5.
constexpr Transform kLogEnergy{2.0, 0.7}, kLogRelative{-4.7, 0.7}, kDeltaR{0.2, 4.0},
    kLogPt{1.7, 0.7};

double clip5(double x) { return std::clamp(x, -5.0, 5.0); }

// One constituent with all that features are made of.
struct Particle {
  std::size_t index;
  double px, py, pz, energy, pt, deta, dphi;
};

struct Jet {
  const JetBlock& block;
  Axis axis;
  double axis_pt, axis_energy;
};

double column_value(const std::vector<float>& column, std::size_t i) {
  return column.empty() ? std::nan("") : static_cast<double>(column[i]);
}

// tanh d0, tanh dz, errors clipped to 0..1, validity; all 0 where the track was not measured.
struct Track {
  double d0 = 0, dz = 0, d0err = 0, dzerr = 0, valid = 0;
};

Track track_of(const JetBlock& b, std::size_t i, const FeatureConfig& config,
               std::uint64_t& unmeasured) {
  if (!config.use_tracks) {
    return {};
  }
  const double d0 = column_value(b.d0, i), d0err = column_value(b.d0err, i);
  const double dz = column_value(b.dz, i), dzerr = column_value(b.dzerr, i);
  if (!b.d0.empty() && std::isnan(d0 + d0err + dz + dzerr)) {
    unmeasured += static_cast<std::uint64_t>(std::isnan(d0)) + std::isnan(d0err) + std::isnan(dz) +
                  std::isnan(dzerr);
  }
  // Neutrals carry 0 with error 0 in some sources and NaN in others: both mean "no track".
  if (!std::isfinite(d0 + d0err + dz + dzerr) || d0err <= 0) {
    return {};
  }
  return {std::tanh(d0), std::tanh(dz), std::clamp(d0err, 0.0, 1.0), std::clamp(dzerr, 0.0, 1.0),
          1};
}

void push(std::vector<float>& out, std::initializer_list<double> values) {
  for (const double v : values) {
    out.push_back(static_cast<float>(v));
  }
}

double log_or_floor(double x) { return std::log(std::max(x, 1e-8)); }

void append_core(const Particle& p, FeatureRows& rows) {
  push(rows.core, {kCoreTransforms[0].forward(std::log(p.pt)), kCoreTransforms[1].forward(p.deta),
                   kCoreTransforms[2].forward(p.dphi)});
}

void append_context(const Particle& p, const Jet& jet, const FeatureConfig& config,
                    FeatureRows& rows) {
  const Track t = track_of(jet.block, p.index, config, rows.unmeasured);
  push(rows.context,
       {clip5(kLogEnergy.forward(log_or_floor(p.energy))),
        clip5(kLogRelative.forward(log_or_floor(p.pt / jet.axis_pt))),
        clip5(kLogRelative.forward(log_or_floor(p.energy / jet.axis_energy))),
        clip5(kDeltaR.forward(std::hypot(p.deta, p.dphi))), t.d0, t.dz, t.d0err, t.dzerr, t.valid});
  rows.pid.push_back(pid_class(jet.block.pid[p.index], jet.block.charge[p.index]));
}

void append_particles(const Particle& p, const Jet& jet, FeatureRows& rows) {
  const int pid = jet.block.pid[p.index];
  push(rows.particles,
       {p.deta, p.dphi, clip5(kLogPt.forward(log_or_floor(p.pt))),
        clip5(kLogEnergy.forward(log_or_floor(p.energy))),
        clip5(kLogRelative.forward(log_or_floor(p.pt / jet.axis_pt))),
        clip5(kLogRelative.forward(log_or_floor(p.energy / jet.axis_energy))),
        clip5(kDeltaR.forward(std::hypot(p.deta, p.dphi))),
        static_cast<double>(jet.block.charge[p.index]), pid == 4 ? 1.0 : 0.0, pid == 5 ? 1.0 : 0.0,
        pid == 3 ? 1.0 : 0.0, pid == 1 ? 1.0 : 0.0, pid == 2 ? 1.0 : 0.0});
  push(rows.four_momenta, {p.px, p.py, p.pz, p.energy});
}

// Particles inside the cuts, in falling pT, stable.
std::vector<Particle> survivors(const Jet& jet, std::size_t begin, std::size_t end,
                                const FeatureConfig& config) {
  const double eta = jet.axis.eta(), phi = jet.axis.phi();
  std::vector<Particle> kept;
  for (std::size_t i = begin; i < end; ++i) {
    Particle p{i, jet.block.px[i], jet.block.py[i], jet.block.pz[i], jet.block.energy[i], 0, 0, 0};
    p.pt = std::hypot(p.px, p.py);
    if (!(p.pt > 0)) {
      continue;
    }
    p.deta = std::asinh(p.pz / p.pt) - eta;
    p.dphi = wrap_phi(std::atan2(p.py, p.px) - phi);
    if (std::abs(p.deta) < config.max_delta && std::abs(p.dphi) < config.max_delta) {
      kept.push_back(p);
    }
  }
  std::stable_sort(kept.begin(), kept.end(),
                   [](const Particle& a, const Particle& b) { return a.pt > b.pt; });
  return kept;
}

}  // namespace

double Axis::pt() const { return std::hypot(px, py); }
double Axis::eta() const { return pt() > 0 ? std::asinh(pz / pt()) : 0; }
double Axis::phi() const { return std::atan2(py, px); }

Axis jet_axis(const JetBlock& block, std::uint64_t row) {
  Axis axis;
  for (auto i = static_cast<std::size_t>(block.offsets[row]);
       i < static_cast<std::size_t>(block.offsets[row + 1]); ++i) {
    axis.px += static_cast<double>(block.px[i]);
    axis.py += static_cast<double>(block.py[i]);
    axis.pz += static_cast<double>(block.pz[i]);
    axis.energy += static_cast<double>(block.energy[i]);
  }
  return axis;
}

double wrap_phi(double phi) {
  double wrapped = phi - 2 * kPi * std::floor((phi + kPi) / (2 * kPi));
  return wrapped >= kPi ? wrapped - 2 * kPi : wrapped;  // floor may round up at the edge
}

int tau_decay_class(int dm) {
  static constexpr std::array<int, 17> kMap{0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 3, 4, 4, 4, 4, 5, -1};
  return dm >= 0 && dm < static_cast<int>(kMap.size()) ? kMap[static_cast<std::size_t>(dm)] : -1;
}

int pid_class(int pid, int charge) {
  const bool negative = charge < 0;
  switch (pid) {
    case 1:
      return charge == 0 ? 8 : negative ? 1 : 0;
    case 2:
      return 2;
    case 3:
      return 3;
    case 4:
      return charge == 0 ? 8 : negative ? 5 : 4;
    case 5:
      return charge == 0 ? 8 : negative ? 7 : 6;
    default:
      return 8;
  }
}

PtDetaDphi inverse_core(const float* core) {
  return {std::exp(kCoreTransforms[0].inverse(static_cast<double>(core[0]))),
          kCoreTransforms[1].inverse(static_cast<double>(core[1])),
          kCoreTransforms[2].inverse(static_cast<double>(core[2]))};
}

std::vector<std::size_t> kept_particles(const JetBlock& block, std::uint64_t row,
                                        const FeatureConfig& config) {
  const Jet jet{block, jet_axis(block, row), 0, 0};
  std::vector<std::size_t> kept;
  for (const Particle& p : survivors(jet, static_cast<std::size_t>(block.offsets[row]),
                                     static_cast<std::size_t>(block.offsets[row + 1]), config)) {
    if (kept.size() < config.max_constituents) {
      kept.push_back(p.index);
    }
  }
  return kept;
}

void append_features(const JetBlock& block, std::uint64_t row, const FeatureConfig& config,
                     FeatureRows& rows) {
  Jet jet{block, jet_axis(block, row), 0, 0};
  jet.axis_pt = std::max(jet.axis.pt(), 1e-8);
  jet.axis_energy = std::max(jet.axis.energy, 1e-8);
  const auto begin = static_cast<std::size_t>(block.offsets[row]);
  const auto end = static_cast<std::size_t>(block.offsets[row + 1]);
  const std::vector<Particle> kept = survivors(jet, begin, end, config);
  const std::size_t count = std::min<std::size_t>(kept.size(), config.max_constituents);
  rows.cut += end - begin - kept.size();
  rows.truncated += kept.size() - count;
  rows.empty += count == 0 ? 1 : 0;
  for (std::size_t k = 0; k < count; ++k) {
    append_core(kept[k], rows);
    if (config.contract != "alpha3") {
      append_context(kept[k], jet, config, rows);
    }
    if (config.particles) {
      append_particles(kept[k], jet, rows);
    }
  }
  rows.cu_seqlens.push_back(rows.cu_seqlens.back() + static_cast<std::int32_t>(count));
}

std::string contract_json(const FeatureConfig& config) {
  TESSERA_CHECK(config.contract == "alpha3" || config.contract == "tess-kinpid",
                "data.contract: expected alpha3 or tess-kinpid, got '{}'", config.contract);
  using Json = nlohmann::ordered_json;
  const auto feature = [](const char* name, const char* f, const Transform& t, const char* unit) {
    return Json{{"name", name},
                {"f", f},
                {"subtract", t.subtract},
                {"multiply", t.multiply},
                {"unit", unit}};
  };
  Json j = {{"contract", config.contract},
            {"version", 1},
            {"core",
             {feature("pt", "log", kCoreTransforms[0], "GeV"),
              feature("deta", "identity", kCoreTransforms[1], "1"),
              feature("dphi", "identity", kCoreTransforms[2], "rad")}},
            {"cuts", {{"pt_min", 0}, {"max_delta", config.max_delta}, {"strict", true}}},
            {"sign", "signed"},
            {"axis", "sum of all constituents before cuts"},
            {"order", "pt_desc"},
            {"max_constituents", config.max_constituents},
            {"mass", "massless"}};
  if (config.contract == "tess-kinpid") {
    j["pid"] = {"ch+", "ch-", "nh", "photon", "e+", "e-", "mu+", "mu-", "unknown"};
    j["context"] = {feature("energy", "log", kLogEnergy, "GeV"),
                    feature("pt_rel", "log", kLogRelative, "1"),
                    feature("energy_rel", "log", kLogRelative, "1"),
                    feature("delta_r", "identity", kDeltaR, "1"),
                    feature("d0", "tanh", Transform{}, "mm"),
                    feature("dz", "tanh", Transform{}, "mm"),
                    feature("d0err", "clip 0 1", Transform{}, "mm"),
                    feature("dzerr", "clip 0 1", Transform{}, "mm"),
                    feature("track_valid", "identity", Transform{}, "1")};
    j["context_clip"] = 5;
    j["use_tracks"] = config.use_tracks;
  }
  return j.dump();
}

std::string contract_hash(const FeatureConfig& config) { return hash_text(contract_json(config)); }

}  // namespace tessera
