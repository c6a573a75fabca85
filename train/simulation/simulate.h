// Simulated jets: generator stream -> detector -> clustering -> truth -> native file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "train/native_writer.h"
#include "train/simulation/detector.h"

namespace tessera {

/// A jet as it enters a native file. Constituents in falling pt.
struct SimulatedJet {
  std::uint64_t id = 0;
  double weight = 1;   ///< of its event
  FourVector p4 = {};  ///< clustered jet, GeV
  std::vector<Candidate> constituents = {};
  int label = -1;           ///< class index, -1 = none (JetClass-like)
  int gen_match = 0;        ///< JetClass code
  FourVector genpart = {};  ///< matched resonance
  std::int32_t genpart_pid = 0;
  FourVector softdrop = {};
  double tau[4] = {0, 0, 0, 0};           ///< N-subjettiness 1..4
  int tau_dm = -1;                        ///< decay mode, -1 = no tau
  FourVector visible = {}, gen_jet = {};  ///< visible tau (zero without one), generator jet
};

/// JetClass-like jets of one event (samples 1..11): anti-kt 0.8, 500 < pt < 1000 GeV, |eta| < 2,
/// JetClass matching; kept when the label is the one asked for. `dropped` counts the others by
/// reason.
std::vector<SimulatedJet> jetclass_jets(const Event& event, const DetectorOutput& detector,
                                        int wanted_label,
                                        std::map<std::string, std::uint64_t>& dropped);

/// Fu-tau-re-like jets of one e+e- event: generalised kt R = 0.4, p = -1, pt > min_pt GeV, matched
/// to a generator jet (delta R < 0.3) without muon; with `taus` only jets whose generator jet has a
/// hadronic tau (delta R < 0.4) are kept.
std::vector<SimulatedJet> tau_jets(const Event& event, const DetectorOutput& detector, bool taus,
                                   double min_pt, std::map<std::string, std::uint64_t>& dropped);

/// One stream of events: a sample and chunk of apps/python/simulate.py, or a part of a file.
/// Sources that name one file read it one after the other: each begins at the event behind the last
/// one of the source before.
struct SimulateSource {
  int sample = 0;                   ///< 1..11 pp, 21..23 e+e-
  int chunk = 0;                    ///< 0-79 train, 80-89 validation, 90-99 test
  std::uint64_t jets = 1000;        ///< kept jets wanted
  std::filesystem::path file = {};  ///< particle stream or HepMC3 ASCII; empty = run the generator
};

struct SimulateConfig {
  std::vector<SimulateSource> sources;  ///< their jets alternate in the file
  std::filesystem::path output;
  std::vector<std::string> generator = {"python3", "apps/python/simulate.py"};
  /// Program that reads HepMC3 files in a bounded child (open_event_file); empty = this process
  /// does.
  std::vector<std::string> event_reader = {};
  std::uint64_t detector_seed = 0;
  std::uint64_t skip_events = 0;  ///< events of each file that are passed over
  double tau_min_pt = 5;          ///< GeV, samples 21 and 22, as the public v1 files
  double quark_min_pt = 15;       ///< GeV, sample 23
  TrackMomentum track_momentum = TrackMomentum::smeared;
  bool substructure = true;  ///< sdmass and tau1..4 of JetClass-like jets
  NativeOptions native;
  std::string command;  ///< recorded in the file
};

/// What became of one source.
struct SourceReport {
  int sample = 0, chunk = 0;
  std::uint64_t first_event = 0;  ///< number in its file; 0 of a generator
  std::uint64_t events = 0, jets = 0;
  double sigma_pb = 0;
  double mean_constituents = 0, mean_charged = 0, mean_mass = 0, mean_pt = 0;
  std::map<std::string, std::uint64_t> dropped;  ///< jets, by reason
};
struct SimulateReport {
  std::vector<SourceReport> sources;
  std::uint64_t jets = 0, constituents = 0;
  std::map<std::string, std::uint64_t> next_event;  ///< by file: the first one that was not read
};

struct SimulateProgress {
  std::size_t source = 0;
  std::uint64_t jets = 0, wanted = 0, events = 0;
};
using SimulateObserver = std::function<void(const SimulateProgress&)>;

/// Runs all sources and writes one native file. Same configuration, same bytes. An event of a file
/// gives the same jets whichever source or run reads it; their ids hold its number. Event weights
/// become the column 'weight' where one differs from 1. Throws Error(missing) when the generator is
/// not installed or a source ends before it has given its jets.
SimulateReport simulate(const SimulateConfig& config, const SimulateObserver& observer = {});

}  // namespace tessera
