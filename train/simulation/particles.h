// Generated particles and the stream that brings them from apps/python/simulate.py, which documents
// the framing.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/four_vector.h"

namespace tessera {

/// One entry of a pruned event record; links are indices into the same event, -1 = none.
struct Particle {
  std::int32_t pid = 0;     ///< PDG code
  std::int32_t status = 0;  ///< > 0: final state
  std::int32_t mother = -1, daughter1 = -1, daughter2 = -1;
  FourVector p4;                  ///< GeV
  double m = 0;                   ///< GeV
  double vx = 0, vy = 0, vz = 0;  ///< production, mm
};

struct Event {
  std::uint64_t number = 0;  ///< running number at the generator, rejected events included
  double weight = 1;         ///< nominal event weight
  std::vector<Particle> particles;
};

/// Indices of the direct daughters of particle i.
std::vector<std::int32_t> daughters(const Event& event, std::int32_t i);
/// The last copy of particle i: follows daughters of the same PDG code.
std::int32_t last_copy(const Event& event, std::int32_t i);

/// Electric charge in e of a PDG code: leptons, W, and hadrons by their quark digits; 0 for the
/// rest.
int pdg_charge(std::int32_t pid);
bool is_neutrino(std::int32_t pid);

/// What a stream says about its generator.
struct StreamHeader {
  std::string generator, version, settings;  ///< settings: one string a line
  std::int64_t sample = 0, chunk = 0, seed = 0;
};

/// Events of a source, one after the other.
class EventSource {
 public:
  virtual ~EventSource() = default;
  /// The next event, or nothing at the end. Throws Error(data | io) on a damaged or broken stream.
  virtual std::optional<Event> next() = 0;
  [[nodiscard]] virtual const StreamHeader& header() const = 0;
  /// Events tried so far and the cross section in mb; 0 where the source does not know.
  [[nodiscard]] virtual std::uint64_t tried() const = 0;
  [[nodiscard]] virtual double sigma_mb() const = 0;
};

/// The binary stream from a file.
std::unique_ptr<EventSource> open_particle_file(const std::filesystem::path& path);
/// HepMC3 ASCII of any generator, pruned as the stream is. Throws Error(missing), or Error(data)
/// for a cut file.
std::unique_ptr<EventSource> open_hepmc_file(const std::filesystem::path& path);
/// Either of the two, by the first bytes. HepMC3 is read by the program `reader` where one is given
/// (its last argument is the path; it writes the binary stream), in a child with bounded time and
/// memory, since the HepMC3 library crashes on some damaged files: Error(data) then.
std::unique_ptr<EventSource> open_event_file(const std::filesystem::path& path,
                                             const std::vector<std::string>& reader = {});
/// The binary stream from the standard output of a child process; argv[0] is searched in PATH. The
/// child ends with the source.
std::unique_ptr<EventSource> open_particle_process(const std::vector<std::string>& argv);
/// Writes all events of a source as the binary stream. Throws Error(io), and what the source
/// throws.
void write_particle_stream(EventSource& source, std::FILE* out);

}  // namespace tessera
