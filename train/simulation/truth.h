// What a jet comes from: JetClass matching codes and hadronic-tau truth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/simulation/particles.h"

namespace tessera {

/// Class names of the ten JetClass-like classes, in label order.
const std::vector<std::string>& jetclass_names();

/// JetClass's verdict on one jet.
struct JetClassMatch {
  int code = 0;         ///< 11.. top, 21.. W, 31.. Z, 41.. Higgs, 50 QCD
  bool signal = false;  ///< a fully merged resonance
  bool keep = false;    ///< false: an unmatched jet of an event that has a hadronic resonance
  std::int32_t particle = -1;  ///< the matched resonance's last copy
  int label = -1;              ///< index into jetclass_names(), -1 = none
};

/// First match in record order: t, H, W, Z followed to their last copies; all decay products within
/// delta R < radius of the jet axis. Codes and rules: jet-universe/jetclass_generation
/// makeNtuples.C.
JetClassMatch match_jetclass(const Event& event, const FourVector& jet, double radius = 0.8);

/// Decay mode of a tau from its direct daughters: hadronic 0 .. 14 as HPS counts them, 15 other,
/// 16 leptonic. Charged 1 / 2 / 3 give base 0 / 5 / 10 + min(neutral mesons, 4); any other direct
/// daughter gives 15. Source: HEP-KBFI/ml-tau-data.
int tau_decay_mode(const std::vector<std::int32_t>& daughter_pids);
/// {0, 1, 2, 10, 11, 15} -> the class a classifier predicts: 3, 4 to 2; 5 to 10; 6-9, 12-14 to 11;
/// 16 and -1 to 15.
int reduced_decay_mode(int decay_mode);

/// A tau that decayed, seen without its neutrinos.
struct VisibleTau {
  FourVector p4;
  int decay_mode = -1;
};
std::vector<VisibleTau> visible_taus(const Event& event);

/// Index of the candidate nearest to `axis` within delta R < limit.
std::optional<std::size_t> nearest(const FourVector& axis,
                                   const std::vector<FourVector>& candidates, double limit);

}  // namespace tessera
