// Writes events as the binary stream: what a bounded reader of somebody's event file sends.
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "core/check.h"
#include "train/simulation/particle_stream.h"
#include "train/simulation/particles.h"

namespace tessera {
namespace {

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string header_bytes(const StreamHeader& h) {
  const std::string json =
      nlohmann::json{{"generator", h.generator}, {"version", h.version}, {"sample", h.sample},
                     {"chunk", h.chunk},         {"seed", h.seed},       {"settings", {h.settings}}}
          .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  std::string out(kStreamMagic);
  put(out, kStreamVersion);
  put(out, static_cast<std::uint32_t>(json.size()));
  return out + json;
}

// A block of one event, so that the reader knows cross section and tried events behind each.
std::string block_bytes(const Event& event, const EventSource& source) {
  std::string body;
  put(body, std::uint32_t{1});
  put(body, static_cast<std::uint32_t>(event.particles.size()));
  put(body, source.tried());
  put(body, source.sigma_mb());
  put(body, 0.0);
  put(body, event.number);
  put(body, static_cast<std::uint32_t>(event.particles.size()));
  put(body, event.weight);
  for (const auto member : {&Particle::pid, &Particle::status, &Particle::mother,
                            &Particle::daughter1, &Particle::daughter2}) {
    for (const Particle& p : event.particles) {
      put(body, p.*member);
    }
  }
  for (const auto member : {&FourVector::px, &FourVector::py, &FourVector::pz, &FourVector::e}) {
    for (const Particle& p : event.particles) {
      put(body, p.p4.*member);
    }
  }
  for (const auto member : {&Particle::m, &Particle::vx, &Particle::vy, &Particle::vz}) {
    for (const Particle& p : event.particles) {
      put(body, p.*member);
    }
  }
  const std::uint32_t check = crc32(body);
  body.insert(0, kWeightedBlockMagic);
  put(body, check);
  return body;
}

void write(const std::string& bytes, std::FILE* out) {
  TESSERA_CHECK_KIND(ErrorKind::io, std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size(),
                     "particle stream: cannot write: {}", std::strerror(errno));
}

}  // namespace

void write_particle_stream(EventSource& source, std::FILE* out) {
  write(header_bytes(source.header()), out);
  while (const auto event = source.next()) {
    write(block_bytes(*event, source), out);
  }
  write(kEndMagic, out);
  TESSERA_CHECK_KIND(ErrorKind::io, std::fflush(out) == 0, "particle stream: cannot write: {}",
                     std::strerror(errno));
}

}  // namespace tessera
