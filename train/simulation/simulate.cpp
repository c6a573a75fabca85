#include "train/simulation/simulate.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "train/destination.h"
#include "train/hash.h"
#include "train/jets.h"
#include "train/simulation/event_files.h"
#include "train/simulation/truth.h"
#include "train/substructure.h"

namespace tessera {
namespace {

std::vector<FourVector> momenta(const std::vector<Candidate>& candidates) {
  std::vector<FourVector> out;
  out.reserve(candidates.size());
  for (const Candidate& c : candidates) {
    out.push_back(c.p4);
  }
  return out;
}

std::vector<Candidate> by_falling_pt(const std::vector<Candidate>& all,
                                     const std::vector<int>& members) {
  std::vector<Candidate> out;
  for (const int i : members) {
    const Candidate& c = all[static_cast<std::size_t>(i)];
    if (std::abs(c.p4.pz) <= 10000 && std::abs(c.p4.eta()) <= 5 && c.p4.pt() > 0) {
      out.push_back(c);
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Candidate& a, const Candidate& b) { return a.p4.pt() > b.p4.pt(); });
  return out;
}

void add_substructure(SimulatedJet& jet) {
  const std::vector<FourVector> p = momenta(jet.constituents);
  jet.softdrop = soft_drop(p);
  for (int n = 1; n <= 4; ++n) {
    jet.tau[n - 1] = n_subjettiness(p, n);
  }
}

/// Generator jets of stable visible particles; has_muon marks those with a muon or tau inside.
struct GenJets {
  std::vector<FourVector> p4;
  std::vector<bool> has_muon;
};
GenJets generator_jets(const Event& event) {
  std::vector<FourVector> visible;
  std::vector<bool> muon;
  for (const Particle& p : event.particles) {
    if (p.status > 0 && !is_neutrino(p.pid)) {
      visible.push_back(p.p4);
      muon.push_back(std::abs(p.pid) == 13 || std::abs(p.pid) == 15);
    }
  }
  GenJets out;
  for (const ClusteredJet& jet : cluster_ee_genkt(visible, 0.4, -1, 0)) {
    out.p4.push_back(jet.p4);
    out.has_muon.push_back(std::any_of(jet.constituents.begin(), jet.constituents.end(),
                                       [&](int i) { return muon[static_cast<std::size_t>(i)]; }));
  }
  return out;
}

}  // namespace

std::vector<SimulatedJet> jetclass_jets(const Event& event, const DetectorOutput& detector,
                                        int wanted_label,
                                        std::map<std::string, std::uint64_t>& dropped) {
  std::vector<SimulatedJet> out;
  for (const ClusteredJet& c : cluster_antikt(momenta(detector.candidates), 0.8, 500)) {
    if (c.p4.pt() >= 1000 || std::abs(c.p4.eta()) >= 2) {
      ++dropped["pt or eta"];
      continue;
    }
    const JetClassMatch match = match_jetclass(event, c.p4);
    if (!match.keep || match.label != wanted_label) {
      ++dropped[match.keep ? "another class" : "not merged"];
      continue;
    }
    SimulatedJet jet{.p4 = c.p4,
                     .constituents = by_falling_pt(detector.candidates, c.constituents),
                     .label = match.label,
                     .gen_match = match.code};
    if (match.particle >= 0) {
      jet.genpart = event.particles[static_cast<std::size_t>(match.particle)].p4;
      jet.genpart_pid = event.particles[static_cast<std::size_t>(match.particle)].pid;
    }
    out.push_back(std::move(jet));
  }
  return out;
}

std::vector<SimulatedJet> tau_jets(const Event& event, const DetectorOutput& detector, bool taus,
                                   double min_pt, std::map<std::string, std::uint64_t>& dropped) {
  const GenJets gen = generator_jets(event);
  const std::vector<VisibleTau> all_taus = taus ? visible_taus(event) : std::vector<VisibleTau>{};
  std::vector<FourVector> tau_axes;
  for (const VisibleTau& t : all_taus) {
    tau_axes.push_back(t.p4);
  }
  std::vector<SimulatedJet> out;
  for (const ClusteredJet& c : cluster_ee_genkt(momenta(detector.candidates), 0.4, -1, min_pt)) {
    const auto g = nearest(c.p4, gen.p4, 0.3);
    if (!g || gen.has_muon[*g]) {
      ++dropped[g ? "muon in the generator jet" : "no generator jet"];
      continue;
    }
    SimulatedJet jet{.p4 = c.p4,
                     .constituents = by_falling_pt(detector.candidates, c.constituents),
                     .gen_jet = gen.p4[*g]};
    if (taus) {
      const auto t = nearest(gen.p4[*g], tau_axes, 0.4);
      if (!t || all_taus[*t].decay_mode == 16) {
        ++dropped[t ? "leptonic tau" : "no tau"];
        continue;
      }
      jet.visible = all_taus[*t].p4;
      jet.tau_dm = all_taus[*t].decay_mode;
    }
    out.push_back(std::move(jet));
  }
  return out;
}

namespace {

bool is_ee(int sample) { return sample >= 21; }

std::unique_ptr<EventSource> run_generator(const SimulateConfig& config,
                                           const SimulateSource& source) {
  std::vector<std::string> argv = config.generator;
  argv.insert(argv.end(),
              {"--sample", std::to_string(source.sample), "--chunk", std::to_string(source.chunk)});
  return open_particle_process(argv);
}

// An event of a file has random numbers by its content: sample and chunk are only what this run
// calls it, and equal events must give equal jets, which a manifest notices.
Rng detector_rng(const SimulateConfig& config, const SimulateSource& source, const Event& event) {
  if (!source.file.empty()) {
    return Rng(config.detector_seed).fork("event of a file").fork(content_key(event));
  }
  const auto stream = static_cast<std::uint64_t>(100 * source.sample + source.chunk);
  return Rng(config.detector_seed, stream).fork(event.number);
}

// sample (16 bits), chunk (16), and a number (32): of the jet in a generated source; of a file's
// event (26 bits) and the jet in it (6).
std::uint64_t jet_id(const SimulateSource& source, const Event& event, std::uint64_t jet_of_source,
                     std::uint64_t jet_of_event) {
  constexpr std::uint64_t kEvents = 1ULL << 26U, kJets = 1ULL << 6U;
  const std::uint64_t prefix = static_cast<std::uint64_t>(source.sample) << 48U |
                               static_cast<std::uint64_t>(source.chunk) << 32U;
  if (source.file.empty()) {
    return prefix | jet_of_source;
  }
  TESSERA_CHECK_KIND(ErrorKind::data, event.number < kEvents && jet_of_event < kJets,
                     "{}: expected events below {} of at most {} jets, got event {} with more than "
                     "{}",
                     source.file.string(), kEvents, kJets, event.number, jet_of_event);
  return prefix | event.number << 6U | jet_of_event;
}

std::vector<SimulatedJet> jets_of(const SimulateConfig& config, const SimulateSource& source,
                                  const Event& event, SourceReport& report) {
  DetectorCard card = is_ee(source.sample) ? clicdet_card() : cms_card();
  card.track_momentum = config.track_momentum;
  const DetectorOutput detector = run_detector(card, event, detector_rng(config, source, event));
  if (!is_ee(source.sample)) {
    return jetclass_jets(event, detector, std::min(source.sample - 1, 9), report.dropped);
  }
  const bool taus = source.sample != 23;
  return tau_jets(event, detector, taus, taus ? config.tau_min_pt : config.quark_min_pt,
                  report.dropped);
}

void summarise(const std::vector<SimulatedJet>& jets, SourceReport& report) {
  double constituents = 0, charged = 0, mass = 0, pt = 0;
  for (const SimulatedJet& jet : jets) {
    constituents += static_cast<double>(jet.constituents.size());
    charged += static_cast<double>(std::count_if(jet.constituents.begin(), jet.constituents.end(),
                                                 [](const Candidate& c) { return c.charge != 0; }));
    mass += jet.p4.m();
    pt += jet.p4.pt();
  }
  const double n = std::max(1.0, static_cast<double>(jets.size()));
  report.jets = jets.size();
  report.mean_constituents = constituents / n;
  report.mean_charged = charged / n;
  report.mean_mass = mass / n;
  report.mean_pt = pt / n;
}

struct SourceResult {
  std::vector<SimulatedJet> jets;
  SourceReport report;
  StreamHeader header;
};

// The jets of an event, as many as the source still wants.
void add_jets(const SimulateConfig& config, const SimulateSource& source, const Event& event,
              SourceResult& out) {
  std::uint64_t of_event = 0;
  for (SimulatedJet& jet : jets_of(config, source, event, out.report)) {
    if (out.jets.size() == source.jets) {
      return;
    }
    jet.id = jet_id(source, event, out.jets.size(), of_event++);
    jet.weight = event.weight;
    if (config.substructure && !is_ee(source.sample)) {
      add_substructure(jet);
    }
    out.jets.push_back(std::move(jet));
  }
}

std::string early_end(const SimulateSource& source, const SourceResult& got) {
  const std::string from =
      source.file.empty()
          ? ""
          : fmt::format(" ({}, from event {} on)", source.file.string(), got.report.first_event);
  return fmt::format("simulate: sample {} chunk {} ended with {} of {} jets after {} events{}",
                     source.sample, source.chunk, got.jets.size(), source.jets, got.report.events,
                     from);
}

SourceResult run_source(const SimulateConfig& config, std::size_t index, EventFiles& files,
                        const SimulateObserver& observer) {
  const SimulateSource& source = config.sources[index];
  EventReading generated;
  EventReading& reading =
      source.file.empty() ? generated : files.at(source.file, config.skip_events);
  if (source.file.empty()) {
    generated.events = run_generator(config, source);
  }
  SourceResult out;
  out.report.sample = source.sample;
  out.report.chunk = source.chunk;
  out.report.first_event = reading.next_number;
  out.header = reading.events->header();
  while (out.jets.size() < source.jets) {
    const auto event = reading.next();
    TESSERA_CHECK_KIND(ErrorKind::missing, event.has_value(), "{}", early_end(source, out));
    out.report.events = reading.next_number - out.report.first_event;
    add_jets(config, source, *event, out);
    if (observer && event->number % 100 == 0) {
      observer({index, out.jets.size(), source.jets, out.report.events});
    }
  }
  out.report.sigma_pb = reading.events->sigma_mb() * 1e9;
  summarise(out.jets, out.report);
  return out;
}

// Sources mixed evenly, so that any stretch of the file holds all of them: jet k of n stands at
// (k + 1/2) / n.
std::vector<const SimulatedJet*> alternate(const std::vector<SourceResult>& results) {
  std::vector<std::pair<double, const SimulatedJet*>> placed;
  for (const SourceResult& r : results) {
    for (std::size_t k = 0; k < r.jets.size(); ++k) {
      placed.emplace_back((static_cast<double>(k) + 0.5) / static_cast<double>(r.jets.size()),
                          &r.jets[k]);
    }
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const SimulatedJet*> out;
  out.reserve(placed.size());
  for (const auto& [position, jet] : placed) {
    out.push_back(jet);
  }
  return out;
}

template <class T, class Get>
void jet_column(NativeJets& file, const std::string& name,
                const std::vector<const SimulatedJet*>& jets, Get get) {
  std::vector<T> values;
  values.reserve(jets.size());
  for (const SimulatedJet* jet : jets) {
    values.push_back(static_cast<T>(get(*jet)));
  }
  file.columns[name] = std::move(values);
}

template <class T, class Get>
void constituent_column(NativeJets& file, const std::string& name,
                        const std::vector<const SimulatedJet*>& jets, Get get) {
  std::vector<T> values;
  for (const SimulatedJet* jet : jets) {
    for (const Candidate& c : jet->constituents) {
      values.push_back(static_cast<T>(get(c)));
    }
  }
  file.columns["pf/" + name] = std::move(values);
}

void four_vector_columns(NativeJets& file, const std::string& prefix,
                         const std::vector<const SimulatedJet*>& jets,
                         FourVector SimulatedJet::*which) {
  jet_column<float>(file, prefix + "px", jets,
                    [&](const SimulatedJet& j) { return (j.*which).px; });
  jet_column<float>(file, prefix + "py", jets,
                    [&](const SimulatedJet& j) { return (j.*which).py; });
  jet_column<float>(file, prefix + "pz", jets,
                    [&](const SimulatedJet& j) { return (j.*which).pz; });
  jet_column<float>(file, prefix + "energy", jets,
                    [&](const SimulatedJet& j) { return (j.*which).e; });
}

void common_columns(NativeJets& file, const std::vector<const SimulatedJet*>& jets) {
  for (const SimulatedJet* jet : jets) {
    file.offsets.push_back(file.offsets.back() +
                           static_cast<std::int64_t>(jet->constituents.size()));
  }
  constituent_column<float>(file, "px", jets, [](const Candidate& c) { return c.p4.px; });
  constituent_column<float>(file, "py", jets, [](const Candidate& c) { return c.p4.py; });
  constituent_column<float>(file, "pz", jets, [](const Candidate& c) { return c.p4.pz; });
  constituent_column<float>(file, "energy", jets, [](const Candidate& c) { return c.p4.e; });
  constituent_column<float>(file, "mass", jets, [](const Candidate& c) { return c.mass; });
  constituent_column<std::int8_t>(file, "charge", jets,
                                  [](const Candidate& c) { return c.charge; });
  constituent_column<std::int8_t>(file, "pid", jets, [](const Candidate& c) { return c.kind; });
  constituent_column<float>(file, "d0", jets, [](const Candidate& c) { return c.d0; });
  constituent_column<float>(file, "d0err", jets, [](const Candidate& c) { return c.d0err; });
  constituent_column<float>(file, "dz", jets, [](const Candidate& c) { return c.dz; });
  constituent_column<float>(file, "dzerr", jets, [](const Candidate& c) { return c.dzerr; });
  jet_column<std::uint64_t>(file, "id", jets, [](const SimulatedJet& j) { return j.id; });
  jet_column<float>(file, "jet/pt", jets, [](const SimulatedJet& j) { return j.p4.pt(); });
  jet_column<float>(file, "jet/eta", jets, [](const SimulatedJet& j) { return j.p4.eta(); });
  jet_column<float>(file, "jet/phi", jets, [](const SimulatedJet& j) { return j.p4.phi(); });
  jet_column<float>(file, "jet/energy", jets, [](const SimulatedJet& j) { return j.p4.e; });
  if (std::ranges::any_of(jets, [](const SimulatedJet* j) { return j->weight != 1; })) {
    jet_column<float>(file, "weight", jets, [](const SimulatedJet& j) { return j.weight; });
  }
}

void jetclass_columns(NativeJets& file, const std::vector<const SimulatedJet*>& jets,
                      bool substructure) {
  file.classes = jetclass_names();
  jet_column<std::uint8_t>(file, "label/class", jets,
                           [](const SimulatedJet& j) { return j.label; });
  jet_column<std::int32_t>(file, "truth/gen_match", jets,
                           [](const SimulatedJet& j) { return j.gen_match; });
  jet_column<std::int32_t>(file, "truth/genpart_pid", jets,
                           [](const SimulatedJet& j) { return j.genpart_pid; });
  jet_column<float>(file, "truth/genpart_pt", jets,
                    [](const SimulatedJet& j) { return j.genpart.pt(); });
  jet_column<float>(file, "truth/genpart_eta", jets,
                    [](const SimulatedJet& j) { return j.genpart_pid == 0 ? 0 : j.genpart.eta(); });
  jet_column<float>(file, "truth/genpart_phi", jets,
                    [](const SimulatedJet& j) { return j.genpart.phi(); });
  if (!substructure) {
    return;
  }
  jet_column<float>(file, "jet/sdmass", jets, [](const SimulatedJet& j) { return j.softdrop.m(); });
  for (int n = 1; n <= 4; ++n) {
    jet_column<float>(file, "jet/tau" + std::to_string(n), jets,
                      [n](const SimulatedJet& j) { return j.tau[n - 1]; });
  }
}

void tau_columns(NativeJets& file, const std::vector<const SimulatedJet*>& jets) {
  jet_column<std::int8_t>(file, "label/tau_dm", jets,
                          [](const SimulatedJet& j) { return j.tau_dm; });
  four_vector_columns(file, "truth/vis_", jets, &SimulatedJet::visible);
  four_vector_columns(file, "truth/gen_", jets, &SimulatedJet::gen_jet);
}

void describe(NativeJets& file, const SimulateConfig& config,
              const std::vector<SourceResult>& results) {
  std::string settings;
  for (const SourceResult& r : results) {
    const std::uint64_t first = r.report.first_event;
    settings +=
        fmt::format("# sample {} chunk {}: {} jets of {} events{}, {:.6g} pb\n{}\n",
                    r.report.sample, r.report.chunk, r.report.jets, r.report.events,
                    first > 0 ? fmt::format(" ({} to {})", first, first + r.report.events - 1) : "",
                    r.report.sigma_pb, r.header.settings);
  }
  const StreamHeader& first = results.front().header;
  file.attributes = {
      {"frame", "lab"},
      {"order", "pt_desc"},
      {"simulated", std::int64_t{1}},
      {"source", "tessera simulate"},
      {"licence", "MIT"},
      {"generator", first.generator},
      {"generator_version", first.version},
      {"settings", settings},
      {"settings_hash", hash_text(settings)},
      {"detector", (is_ee(config.sources.front().sample) ? clicdet_card() : cms_card()).name},
      {"seed", static_cast<std::int64_t>(config.detector_seed)},
      {"command", config.command},
      {"tool_version", "0.1.0"}};
}

void check_config(const SimulateConfig& config) {
  TESSERA_CHECK(!config.sources.empty(), "simulate: expected at least one source, got none");
  for (const SimulateSource& s : config.sources) {
    TESSERA_CHECK((s.sample >= 1 && s.sample <= 11) || (s.sample >= 21 && s.sample <= 23),
                  "simulate: expected a sample of 1..11 or 21..23, got {}", s.sample);
    TESSERA_CHECK(s.chunk >= 0 && s.chunk <= 99, "simulate: expected a chunk of 0..99, got {}",
                  s.chunk);
    TESSERA_CHECK(is_ee(s.sample) == is_ee(config.sources.front().sample),
                  "simulate: pp and e+e- samples cannot share a file");
  }
  check_file_destination(config.output);
  TESSERA_CHECK(config.native.overwrite || !std::filesystem::exists(config.output),
                "simulate: {} exists; it is not overwritten", config.output.string());
}

}  // namespace

SimulateReport simulate(const SimulateConfig& config, const SimulateObserver& observer) {
  check_config(config);
  std::vector<SourceResult> results;
  EventFiles files(config.event_reader);
  for (std::size_t i = 0; i < config.sources.size(); ++i) {
    results.push_back(run_source(config, i, files, observer));
  }
  const std::vector<const SimulatedJet*> jets = alternate(results);
  NativeJets file;
  common_columns(file, jets);
  if (is_ee(config.sources.front().sample)) {
    tau_columns(file, jets);
  } else {
    jetclass_columns(file, jets, config.substructure);
  }
  describe(file, config, results);
  SimulateReport report{.sources = {},
                        .jets = jets.size(),
                        .constituents = static_cast<std::uint64_t>(file.offsets.back()),
                        .next_event = files.next_numbers()};
  for (SourceResult& r : results) {
    report.sources.push_back(std::move(r.report));
  }
  write_native_jets(config.output, std::move(file), config.native);
  return report;
}

}  // namespace tessera
