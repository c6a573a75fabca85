#include "train/simulation/particles.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "core/check.h"

extern char** environ;

namespace tessera {

std::vector<std::int32_t> daughters(const Event& event, std::int32_t i) {
  const Particle& p = event.particles[static_cast<std::size_t>(i)];
  std::vector<std::int32_t> out;
  if (p.daughter1 < 0) {
    return out;
  }
  if (p.daughter2 >= 0 && p.daughter2 < p.daughter1) {
    return {p.daughter1, p.daughter2};
  }
  for (std::int32_t d = p.daughter1; d <= std::max(p.daughter1, p.daughter2); ++d) {
    out.push_back(d);
  }
  return out;
}

std::int32_t last_copy(const Event& event, std::int32_t i) {
  const std::int32_t pid = event.particles[static_cast<std::size_t>(i)].pid;
  // a record has no cycles, but a damaged one may: no chain is longer than the event
  for (std::size_t step = 0; step < event.particles.size(); ++step) {
    std::int32_t next = -1;
    for (const std::int32_t d : daughters(event, i)) {
      if (event.particles[static_cast<std::size_t>(d)].pid == pid) {
        next = d;
        break;
      }
    }
    if (next < 0) {
      return i;
    }
    i = next;
  }
  return i;
}

bool is_neutrino(std::int32_t pid) {
  const int a = std::abs(pid);
  return a == 12 || a == 14 || a == 16;
}

// PDG numbering scheme: hadrons are n_q1 n_q2 n_q3 n_J; mesons have n_q1 = 0.
int pdg_charge(std::int32_t pid) {
  const int a = std::abs(pid), sign = pid < 0 ? -1 : 1;
  if (a == 11 || a == 13 || a == 15) {
    return -sign;
  }
  if (a == 24 || a == 37) {
    return sign;
  }
  if (a < 100 || a >= 1000000000) {
    return 0;
  }
  const auto third = [](int quark) { return quark % 2 == 0 ? 2 : -1; };  // of e / 3
  const int q3 = a / 10 % 10, q2 = a / 100 % 10, q1 = a / 1000 % 10;
  if (q2 == 0) {
    return 0;  // not a hadron (K0S, K0L have digits and are neutral by the rule below)
  }
  if (a == 130 || a == 310) {
    return 0;
  }
  if (q1 != 0) {
    return q3 == 0 ? 0 : sign * (third(q1) + third(q2) + third(q3)) / 3;
  }
  // for mesons the heavier quark comes first and is the antiquark where it is down-type
  const int charge = (third(q2) - third(q3)) / 3;
  return sign * (q2 % 2 == 0 ? charge : -charge);
}

namespace {

std::uint32_t crc32(std::span<const char> bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) {
        c = (c & 1U) != 0 ? 0xEDB88320U ^ (c >> 1) : c >> 1;
      }
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t crc = ~0U;
  for (const char b : bytes) {
    crc = table[(crc ^ static_cast<unsigned char>(b)) & 0xFFU] ^ (crc >> 8);
  }
  return ~crc;
}

/// Reads plain little-endian values out of a byte buffer.
class Cursor {
 public:
  explicit Cursor(std::span<const char> bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  template <class T, class Assign>
  void column(std::size_t count, Assign assign) {
    for (std::size_t i = 0; i < count; ++i) {
      assign(i, take<T>());
    }
  }

 private:
  std::span<const char> bytes_;
  std::size_t position_ = 0;
};

constexpr std::size_t kBlockHead = 4 + 4 + 8 + 8 + 8;
constexpr std::size_t kEventBytes = 8 + 4;
constexpr std::size_t kParticleBytes = 5 * 4 + 8 * 8;

struct Block {
  std::vector<Event> events;
  std::uint64_t tried = 0;
  double sigma_mb = 0;
};

void check_links(const Event& event, const std::string& name) {
  const auto size = static_cast<std::int32_t>(event.particles.size());
  for (const Particle& p : event.particles) {
    TESSERA_CHECK_KIND(ErrorKind::data,
                       p.mother < size && p.daughter1 < size && p.daughter2 < size &&
                           std::isfinite(p.p4.px + p.p4.py + p.p4.pz + p.p4.e),
                       "{}: event {}: expected links inside the event and finite momenta", name,
                       event.number);
  }
}

Block decode(std::span<const char> body, const std::string& name) {
  Cursor in(body);
  const auto n = in.take<std::uint32_t>(), total = in.take<std::uint32_t>();
  Block block;
  block.tried = in.take<std::uint64_t>();
  block.sigma_mb = in.take<double>();
  in.take<double>();
  block.events.resize(n);
  in.column<std::uint64_t>(n, [&](std::size_t i, std::uint64_t v) { block.events[i].number = v; });
  std::vector<Particle> all(total);
  std::uint64_t sum = 0;
  std::vector<std::uint32_t> counts(n);
  in.column<std::uint32_t>(n, [&](std::size_t i, std::uint32_t v) { counts[i] = v, sum += v; });
  TESSERA_CHECK_KIND(ErrorKind::data, sum == total,
                     "{}: a block announces {} particles, its events {}", name, total, sum);
  for (const auto member : {&Particle::pid, &Particle::status, &Particle::mother,
                            &Particle::daughter1, &Particle::daughter2}) {
    in.column<std::int32_t>(total, [&](std::size_t i, std::int32_t v) { all[i].*member = v; });
  }
  for (const auto member : {&FourVector::px, &FourVector::py, &FourVector::pz, &FourVector::e}) {
    in.column<double>(total, [&](std::size_t i, double v) { all[i].p4.*member = v; });
  }
  for (const auto member : {&Particle::m, &Particle::vx, &Particle::vy, &Particle::vz}) {
    in.column<double>(total, [&](std::size_t i, double v) { all[i].*member = v; });
  }
  auto begin = all.begin();
  for (std::size_t i = 0; i < n; ++i) {
    block.events[i].particles.assign(begin, begin + counts[i]);
    begin += counts[i];
    check_links(block.events[i], name);
  }
  return block;
}

class ParticleStream : public EventSource {
 public:
  ParticleStream(int descriptor, pid_t child, std::string name)
      : file_(descriptor), child_(child), name_(std::move(name)) {
    read_header();
  }
  ~ParticleStream() override {
    ::close(file_);
    if (child_ > 0) {
      int status = 0;
      ::waitpid(child_, &status, 0);  // its next write fails, and it ends
    }
  }
  ParticleStream(const ParticleStream&) = delete;
  ParticleStream& operator=(const ParticleStream&) = delete;

  std::optional<Event> next() override {
    while (position_ == block_.events.size()) {
      if (!read_block()) {
        return std::nullopt;
      }
    }
    return std::move(block_.events[position_++]);
  }
  const StreamHeader& header() const override { return header_; }
  std::uint64_t tried() const override { return block_.tried; }
  double sigma_mb() const override { return block_.sigma_mb; }

 private:
  void fill(std::span<char> out) {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t got = ::read(file_, out.data() + done, out.size() - done);
      if (got < 0 && errno == EINTR) {
        continue;
      }
      TESSERA_CHECK_KIND(child_ > 0 ? ErrorKind::missing : ErrorKind::data, got > 0,
                         "{}: the particle stream ended early{}", name_,
                         child_ > 0 ? " (the generator's own message says why)" : "");
      done += static_cast<std::size_t>(got);
    }
  }
  template <class T>
  T take() {
    T value;
    fill({reinterpret_cast<char*>(&value), sizeof(T)});
    return value;
  }
  std::string take_text(std::size_t size) {
    std::string text(size, ' ');
    fill(text);
    return text;
  }

  void read_header() {
    TESSERA_CHECK_KIND(ErrorKind::data, take_text(8) == "TSRPART1",
                       "{}: not a particle stream (expected it to begin with TSRPART1)", name_);
    const auto version = take<std::uint32_t>(), length = take<std::uint32_t>();
    TESSERA_CHECK_KIND(ErrorKind::data, version == 1 && length < (1U << 20),
                       "{}: expected stream version 1, got {}", name_, version);
    try {
      const auto json = nlohmann::json::parse(take_text(length));
      header_.generator = json.at("generator");
      header_.version = json.at("version");
      header_.sample = json.at("sample");
      header_.chunk = json.at("chunk");
      header_.seed = json.at("seed");
      header_.settings =
          fmt::format("{}", fmt::join(json.at("settings").get<std::vector<std::string>>(), "\n"));
    } catch (const nlohmann::json::exception& error) {
      TESSERA_FAIL(ErrorKind::data, "{}: bad stream header: {}", name_, error.what());
    }
  }

  bool read_block() {
    const std::string magic = take_text(4);
    if (magic == "END1") {
      return false;
    }
    TESSERA_CHECK_KIND(ErrorKind::data, magic == "BLK1", "{}: expected a block, got other bytes",
                       name_);
    std::vector<char> body(kBlockHead);
    fill(body);
    std::uint32_t events = 0, particles = 0;
    std::memcpy(&events, body.data(), 4);
    std::memcpy(&particles, body.data() + 4, 4);
    TESSERA_CHECK_KIND(ErrorKind::data, events <= 1000000 && particles <= 100000000,
                       "{}: a block of {} events and {} particles is too large", name_, events,
                       particles);
    body.resize(kBlockHead + events * kEventBytes + particles * kParticleBytes);
    fill(std::span(body).subspan(kBlockHead));
    TESSERA_CHECK_KIND(ErrorKind::data, take<std::uint32_t>() == crc32(body),
                       "{}: a block fails its checksum", name_);
    block_ = decode(body, name_);
    position_ = 0;
    return true;
  }

  int file_;
  pid_t child_;
  std::string name_;
  StreamHeader header_;
  Block block_;
  std::size_t position_ = 0;
};

}  // namespace

std::unique_ptr<EventSource> open_particle_file(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  TESSERA_CHECK_KIND(ErrorKind::missing, file >= 0, "{}: cannot open: {}", path.string(),
                     std::strerror(errno));
  return std::make_unique<ParticleStream>(file, 0, path.string());
}

std::unique_ptr<EventSource> open_event_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string first(8, ' ');
  in.read(first.data(), 8);
  return first == "TSRPART1" ? open_particle_file(path) : open_hepmc_file(path);
}

std::unique_ptr<EventSource> open_particle_process(const std::vector<std::string>& argv) {
  int ends[2];
  TESSERA_CHECK_KIND(ErrorKind::resource, ::pipe2(ends, O_CLOEXEC) == 0, "pipe: {}",
                     std::strerror(errno));
  std::vector<char*> arguments;
  for (const std::string& a : argv) {
    arguments.push_back(const_cast<char*>(a.c_str()));
  }
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, argv.at(0).c_str(), &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    TESSERA_FAIL(ErrorKind::missing, "cannot run {}: {}", argv[0], std::strerror(error));
  }
  return std::make_unique<ParticleStream>(ends[0], child,
                                          argv[0] + " " + (argv.size() > 1 ? argv[1] : ""));
}

}  // namespace tessera
