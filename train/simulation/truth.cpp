#include "train/simulation/truth.h"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace tessera {

const std::vector<std::string>& jetclass_names() {
  static const std::vector<std::string> names = {"QCD",  "Hbb", "Hcc", "Hgg",  "H4q",
                                                 "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"};
  return names;
}

namespace {

bool is_quark(int pid) { return std::abs(pid) >= 1 && std::abs(pid) <= 5; }
bool is_light_lepton(int pid) { return std::abs(pid) == 11 || std::abs(pid) == 13; }

int label_of(int code) {
  switch (code) {
    case 41:
      return 1;
    case 42:
      return 2;
    case 44:
      return 3;
    case 45:
      return 4;
    case 46:
      return 5;
    case 31:
    case 32:
    case 33:
      return 6;
    case 21:
    case 22:
      return 7;
    case 11:
    case 12:
      return 8;
    case 15:
    case 16:
      return 9;
    default:
      return -1;
  }
}

/// The scan of one event for one jet; remembers which kind of resonance came first.
class Matcher {
 public:
  Matcher(const Event& event, const FourVector& jet, double radius)
      : event_(event), jet_(jet), radius_(radius) {}

  JetClassMatch run() {
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(event_.particles.size()); ++i) {
      if (!seen_.insert(i).second) {
        continue;
      }
      const Match m = test(i);
      if (m.code != 0) {
        return finish(m);
      }
    }
    return finish({});
  }

 private:
  struct Match {
    int code = 0;
    std::int32_t particle = -1;
  };

  const Particle& at(std::int32_t i) const { return event_.particles[static_cast<std::size_t>(i)]; }
  bool inside(std::int32_t i) const { return delta_r(at(i).p4, jet_) < radius_; }
  void claim(int family) {
    if (family_ == 0) {
      family_ = family;
    }
  }

  // Follows to the last copy and marks the copies as done.
  std::int32_t follow(std::int32_t i) {
    const std::int32_t last = last_copy(event_, i);
    while (i != last) {
      seen_.insert(i);
      for (const std::int32_t d : daughters(event_, i)) {
        if (at(d).pid == at(i).pid) {
          i = d;
          break;
        }
      }
    }
    seen_.insert(last);
    return last;
  }

  std::vector<std::int32_t> quarks(std::int32_t i, bool gluons = false) const {
    std::vector<std::int32_t> out;
    for (const std::int32_t d : daughters(event_, i)) {
      if (is_quark(at(d).pid) || (gluons && at(d).pid == 21)) {
        out.push_back(d);
      }
    }
    return out;
  }

  Match test(std::int32_t i) {
    switch (std::abs(at(i).pid)) {
      case 6:
        return top(i);
      case 25:
        return higgs(i);
      case 24:
        return w_or_z(i, 20);
      case 23:
        return w_or_z(i, 30);
      default:
        return {};
    }
  }

  // The two quarks, the one nearer to the jet first.
  std::vector<std::int32_t> nearer_first(std::vector<std::int32_t> q) const {
    if (delta_r(at(q[0]).p4, jet_) > delta_r(at(q[1]).p4, jet_)) {
      std::swap(q[0], q[1]);
    }
    return q;
  }

  Match w_or_z(std::int32_t i, int family) {
    const std::int32_t boson = follow(i);
    std::vector<std::int32_t> q = quarks(boson);
    if (q.size() < 2) {
      return {};
    }
    claim(family);
    q = nearer_first(q);
    if (!inside(q[0]) || !inside(q[1])) {
      return {};
    }
    const int a = std::abs(at(q[0]).pid), b = std::abs(at(q[1]).pid);
    if (family == 20) {
      return {a >= 4 || b >= 4 ? 21 : 22, boson};
    }
    return {a == 5 && b == 5 ? 31 : a == 4 && b == 4 ? 32 : 33, boson};
  }

  Match top(std::int32_t i) {
    const std::int32_t last = follow(i);
    std::int32_t w = -1, b = -1;
    for (const std::int32_t d : daughters(event_, last)) {
      if (std::abs(at(d).pid) == 24) {
        w = follow(d);
      } else if (is_quark(at(d).pid)) {
        b = d;
      }
    }
    if (w < 0 || b < 0) {
      return {};
    }
    claim(10);
    const std::vector<std::int32_t> q = quarks(w);
    return q.size() >= 2 ? hadronic_top(last, w, b, nearer_first(q)) : leptonic_top(last, w, b);
  }

  Match hadronic_top(std::int32_t last, std::int32_t w, std::int32_t b,
                     const std::vector<std::int32_t>& q) {
    if (!inside(b)) {
      return w_or_z(w, 20);
    }
    const bool heavy0 = std::abs(at(q[0]).pid) >= 4, heavy1 = std::abs(at(q[1]).pid) >= 4;
    if (inside(q[0]) && inside(q[1])) {
      return {heavy0 || heavy1 ? 11 : 12, last};
    }
    return inside(q[0]) ? Match{heavy0 ? 13 : 14, last} : Match{};
  }

  Match leptonic_top(std::int32_t last, std::int32_t w, std::int32_t b) const {
    for (const std::int32_t d : daughters(event_, w)) {
      if (is_light_lepton(at(d).pid)) {
        const bool merged = inside(b) && inside(last_copy(event_, d));
        return merged ? Match{std::abs(at(d).pid) == 11 ? 15 : 16, last} : Match{};
      }
    }
    return {};
  }

  Match higgs(std::int32_t i) {
    const std::int32_t last = follow(i);
    const std::vector<std::int32_t> products = daughters(event_, last);
    const bool to_bosons = std::any_of(products.begin(), products.end(), [&](std::int32_t d) {
      return std::abs(at(d).pid) == 24 || at(d).pid == 23;
    });
    return to_bosons || products.size() > 2 ? higgs_to_bosons(last, products) : higgs_to_two(last);
  }

  Match higgs_to_bosons(std::int32_t last, const std::vector<std::int32_t>& products) {
    claim(40);
    int quarks_inside = 0, leptons_inside = 0;
    const auto count = [&](std::int32_t d) {
      quarks_inside += is_quark(at(d).pid) && inside(d) ? 1 : 0;
      leptons_inside += is_light_lepton(at(d).pid) && inside(last_copy(event_, d)) ? 1 : 0;
    };
    for (const std::int32_t p : products) {
      if (std::abs(at(p).pid) == 24 || at(p).pid == 23) {
        for (const std::int32_t d : daughters(event_, last_copy(event_, p))) {
          count(d);
        }
      } else {
        count(p);
      }
    }
    if (quarks_inside >= 4) {
      return {45, last};
    }
    return quarks_inside == 2 && leptons_inside == 1 ? Match{46, last} : Match{};
  }

  Match higgs_to_two(std::int32_t last) {
    const std::vector<std::int32_t> q = quarks(last, true);
    if (q.size() < 2) {
      return {};
    }
    claim(40);
    if (!inside(q[0]) || !inside(q[1])) {
      return {};
    }
    const int a = std::abs(at(q[0]).pid), b = std::abs(at(q[1]).pid);
    return {a != b ? 43 : a == 5 ? 41 : a == 4 ? 42 : a == 21 ? 44 : 43, last};
  }

  JetClassMatch finish(const Match& m) const {
    JetClassMatch out{.code = m.code == 0 ? 50 : m.code, .particle = m.particle};
    switch (family_) {
      case 10:
        out.signal = m.code == 11 || m.code == 12 || m.code == 15 || m.code == 16;
        break;
      case 20:
        out.signal = m.code > 20 && m.code < 30;
        break;
      case 30:
        out.signal = m.code > 30 && m.code < 40;
        break;
      case 40:
        out.signal = m.code > 40 && m.code < 50;
        break;
      default:
        break;
    }
    out.keep = family_ == 0 || out.signal;
    out.label = out.signal ? label_of(m.code) : out.keep ? 0 : -1;
    return out;
  }

  const Event& event_;
  const FourVector& jet_;
  double radius_;
  int family_ = 0;  // 0 QCD, 10 top, 20 W, 30 Z, 40 Higgs: the first hadronic resonance met
  std::set<std::int32_t> seen_;
};

bool is_charged_tau_meson(int pid) { return pid == 211 || pid == 321; }
bool is_neutral_tau_meson(int pid) {
  return pid == 111 || pid == 130 || pid == 310 || pid == 311 || pid == 221 || pid == 223;
}

}  // namespace

JetClassMatch match_jetclass(const Event& event, const FourVector& jet, double radius) {
  return Matcher(event, jet, radius).run();
}

int tau_decay_mode(const std::vector<std::int32_t>& daughter_pids) {
  int charged = 0, neutral = 0;
  bool other = false;
  for (const std::int32_t signed_pid : daughter_pids) {
    const int pid = std::abs(signed_pid);
    if (pid == 11 || pid == 13) {
      return 16;
    }
    if (is_charged_tau_meson(pid)) {
      ++charged;
    } else if (is_neutral_tau_meson(pid)) {
      ++neutral;
    } else if (!is_neutrino(pid)) {
      other = true;
    }
  }
  if (other || charged < 1 || charged > 3) {
    return 15;
  }
  return 5 * (charged - 1) + std::min(neutral, 4);
}

int reduced_decay_mode(int decay_mode) {
  if (decay_mode < 0 || decay_mode > 14) {
    return 15;
  }
  if (decay_mode <= 4) {
    return std::min(decay_mode, 2);
  }
  return decay_mode == 5 || decay_mode == 10 ? 10 : 11;
}

std::vector<VisibleTau> visible_taus(const Event& event) {
  std::vector<VisibleTau> out;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(event.particles.size()); ++i) {
    const std::vector<std::int32_t> products = daughters(event, i);
    if (std::abs(event.particles[static_cast<std::size_t>(i)].pid) != 15 || products.empty() ||
        last_copy(event, i) != i) {
      continue;
    }
    VisibleTau tau;
    std::vector<std::int32_t> pids;
    for (const std::int32_t d : products) {
      const Particle& p = event.particles[static_cast<std::size_t>(d)];
      pids.push_back(p.pid);
      if (!is_neutrino(p.pid)) {
        tau.p4 += p.p4;
      }
    }
    tau.decay_mode = tau_decay_mode(pids);
    out.push_back(tau);
  }
  return out;
}

std::optional<std::size_t> nearest(const FourVector& axis,
                                   const std::vector<FourVector>& candidates, double limit) {
  std::optional<std::size_t> best;
  double closest = limit;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const double r = delta_r(axis, candidates[i]);
    if (r < closest) {
      closest = r;
      best = i;
    }
  }
  return best;
}

}  // namespace tessera
