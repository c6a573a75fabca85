// HepMC3 ASCII files as a source of events, so that any generator serves.
#include <HepMC3/GenEvent.h>
#include <HepMC3/GenParticle.h>
#include <HepMC3/GenVertex.h>
#include <HepMC3/ReaderAscii.h>
#include <HepMC3/Setup.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <utility>

#include "core/check.h"
#include "train/file_kind.h"
#include "train/simulation/hepmc_weights.h"
#include "train/simulation/particles.h"

namespace tessera {
namespace {

using HepParticle = HepMC3::ConstGenParticlePtr;

bool is_history(int pid) {
  const int a = std::abs(pid);
  return a == 6 || a == 15 || (a >= 23 && a <= 25);
}

// The library's reader takes two blanks in a row for an empty field, which is 0, and so shifts the
// numbers behind it.
bool has_empty_field(const std::string& line) {
  return (line.starts_with("P ") || line.starts_with("V ")) && line.find("  ") != std::string::npos;
}

// Counts the events and checks the lines that the library takes without a word: it takes a cut or
// damaged file for a shorter one.
std::uint64_t count_events(const std::filesystem::path& path) {
  check_plain_file(path);
  std::ifstream in(path);
  TESSERA_CHECK_KIND(ErrorKind::io, in.good(), "{}: cannot open", path.string());
  std::uint64_t events = 0;
  std::uint64_t number = 0;
  bool complete = false;
  for (std::string line; std::getline(in, line);) {
    ++number;
    TESSERA_CHECK_KIND(ErrorKind::data, !has_empty_field(line),
                       "{}: line {}: expected fields with one blank between them, got two blanks",
                       path.string(), number);
    events += line.starts_with("E ") ? 1 : 0;
    complete = complete || line.starts_with("HepMC::Asciiv3-END_EVENT_LISTING");
  }
  TESSERA_CHECK_KIND(
      ErrorKind::data, complete,
      "{}: expected HepMC3 ASCII that ends with END_EVENT_LISTING; the file is cut or of "
      "another format",
      path.string());
  return events;
}

// Kept: final state, t tau Z W H, their daughters, and the copies of electrons and muons among
// those; `owners` are those whose daughters are all kept.
struct Kept {
  std::set<int> particles, owners;  // HepMC ids
};
Kept choose(const std::vector<HepParticle>& all) {
  Kept kept;
  std::vector<HepParticle> frontier;
  for (const HepParticle& p : all) {
    if (p->status() == 1 || is_history(p->pid())) {
      kept.particles.insert(p->id());
    }
    if (p->status() != 1 && is_history(p->pid())) {
      frontier.push_back(p);
    }
  }
  while (!frontier.empty()) {
    const HepParticle p = frontier.back();
    frontier.pop_back();
    if (!kept.owners.insert(p->id()).second) {
      continue;
    }
    for (const HepParticle& d : p->children()) {
      kept.particles.insert(d->id());
      const int a = std::abs(d->pid());
      if (d->status() != 1 && (a == 11 || a == 13)) {
        frontier.push_back(d);
      }
    }
  }
  return kept;
}

Particle convert(const HepParticle& p) {
  Particle out;
  out.pid = p->pid();
  out.status = p->status() == 1 ? 1 : -std::max(2, p->status());
  const auto& q = p->momentum();
  out.p4 = {q.px(), q.py(), q.pz(), q.e()};
  out.m = p->generated_mass();
  if (const auto v = p->production_vertex()) {
    out.vx = v->position().x(), out.vy = v->position().y(), out.vz = v->position().z();
  }
  return out;
}

Event convert(const HepMC3::GenEvent& source, std::uint64_t number) {
  std::vector<HepParticle> all = source.particles();
  // what leaves one vertex stands together, so that daughters are a range
  const auto vertex = [](const HepParticle& p) {
    const auto v = p->production_vertex();
    return v ? -v->id() : 0;
  };
  std::stable_sort(all.begin(), all.end(), [&](const HepParticle& a, const HepParticle& b) {
    return vertex(a) < vertex(b);
  });
  const Kept kept = choose(all);
  Event event{.number = number, .particles = {}};
  std::map<int, std::int32_t> index;
  std::vector<HepParticle> chosen;
  for (const HepParticle& p : all) {
    if (kept.particles.count(p->id()) != 0) {
      index[p->id()] = static_cast<std::int32_t>(chosen.size());
      chosen.push_back(p);
      event.particles.push_back(convert(p));
    }
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (kept.owners.count(chosen[i]->id()) == 0) {
      continue;
    }
    Particle& p = event.particles[i];
    for (const HepParticle& d : chosen[i]->children()) {
      const std::int32_t at = index.at(d->id());
      p.daughter1 = p.daughter1 < 0 ? at : std::min(p.daughter1, at);
      p.daughter2 = std::max(p.daughter2, at);
      event.particles[static_cast<std::size_t>(at)].mother = static_cast<std::int32_t>(i);
    }
  }
  return event;
}

// The event's cross section in pb, its first one; nothing where it has none. The text is parsed
// here, since the library's parser of this attribute reads through a null pointer on a short line.
std::optional<double> cross_section_of(const HepMC3::GenEvent& event) {
  std::string text = event.attribute_as_string("GenCrossSection");
  text.erase(0, text.find_first_not_of(' '));
  if (text.empty()) {
    return std::nullopt;
  }
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size() || *end == ' ';
  TESSERA_CHECK_KIND(ErrorKind::data,
                     code == std::errc() && whole && std::isfinite(value) && value >= 0,
                     "GenCrossSection: expected a number of pb from 0 on, got '{}'",
                     text.substr(0, 80));
  return value;
}

class HepMcSource : public EventSource {
 public:
  explicit HepMcSource(const std::filesystem::path& path)
      : name_(path.string()), events_(count_events(path)), text_(path), stream_(&text_) {
    HepMC3::Setup::set_print_errors(false);  // errors leave as exceptions
    HepMC3::Setup::set_print_warnings(false);
    HepMC3::Setup::set_debug_level(-1);
    reader_ = std::make_unique<HepMC3::ReaderAscii>(stream_);
    header_.generator = "HepMC3 file";
    header_.version = "3";
    header_.settings = path.filename().string();
  }

  std::optional<Event> next() override {
    HepMC3::GenEvent source(HepMC3::Units::GEV, HepMC3::Units::MM);
    if (tried_ == events_) {
      return std::nullopt;
    }
    read(source);
    Event event = convert(source, tried_++);
    event.weight = weight_of(event.number);
    for (const Particle& p : event.particles) {
      TESSERA_CHECK_KIND(ErrorKind::data, std::isfinite(p.p4.px + p.p4.py + p.p4.pz + p.p4.e),
                         "{}: event {}: expected finite momenta", name_, event.number);
    }
    return event;
  }
  const StreamHeader& header() const override { return header_; }
  std::uint64_t tried() const override { return tried_; }
  double sigma_mb() const override { return sigma_mb_; }

 private:
  [[nodiscard]] double weight_of(std::uint64_t event) const {
    try {
      return text_.nominal();
    } catch (const Error& e) {
      TESSERA_FAIL(e.kind(), "{}: event {}: {}", name_, event, e.message());
    }
  }

  // Whatever the library throws on a damaged event is the file's fault.
  void read(HepMC3::GenEvent& event) {
    std::string reason = "it is cut or damaged";
    bool good = false;
    try {
      good = reader_->read_event(event) && !reader_->failed();
      event.set_units(HepMC3::Units::GEV, HepMC3::Units::MM);
      if (const auto sigma = cross_section_of(event)) {
        sigma_mb_ = *sigma * 1e-9;  // from pb
      }
    } catch (const Error& e) {
      reason = e.message();
      good = false;
    } catch (const std::exception& e) {
      reason = e.what();
      good = false;
    }
    TESSERA_CHECK_KIND(ErrorKind::data, good, "{}: event {} of {} cannot be read: {}", name_,
                       tried_, events_, reason);
  }

  std::string name_;
  std::uint64_t events_;
  WithoutWeights text_;
  std::istream stream_;
  std::unique_ptr<HepMC3::ReaderAscii> reader_;
  StreamHeader header_;
  std::uint64_t tried_ = 0;
  double sigma_mb_ = 0;
};

}  // namespace

std::unique_ptr<EventSource> open_hepmc_file(const std::filesystem::path& path) {
  return std::make_unique<HepMcSource>(path);
}

}  // namespace tessera
