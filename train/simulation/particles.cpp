#include "train/simulation/particles.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "core/check.h"
#include "train/child_process.h"
#include "train/file_kind.h"
#include "train/json_text.h"
#include "train/simulation/particle_stream.h"

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

namespace {

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

Block decode(std::span<const char> body, bool weighted, const std::string& name) {
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
  if (weighted) {
    in.column<double>(n, [&](std::size_t i, double v) { block.events[i].weight = v; });
  }
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

/// Where the bytes of a stream come from: a file, or the standard output of a child.
class Bytes {
 public:
  Bytes(int descriptor, std::string name) : file_(descriptor), name_(std::move(name)) {}
  /// `crash`: the kind of error where a signal ends the child; `patience`: milliseconds that a
  /// reader of a file may be silent, -1 = any.
  Bytes(int descriptor, std::unique_ptr<ChildProcess> child, std::string name, ErrorKind crash,
        int patience)
      : file_(descriptor),
        child_(std::move(child)),
        name_(std::move(name)),
        crash_(crash),
        patience_(patience) {}
  ~Bytes() { ::close(file_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }

  void fill(std::span<char> out) {
    for (std::size_t done = 0; done < out.size();) {
      await();
      const ssize_t got = ::read(file_, out.data() + done, out.size() - done);
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        fail_at_end();
      }
      done += static_cast<std::size_t>(got);
    }
  }
  /// `size` more bytes at the end of `out`; memory grows with what arrives, since the size is the
  /// stream's own word.
  void append(std::vector<char>& out, std::size_t size) {
    constexpr std::size_t kPiece = 1U << 20U;
    while (size > 0) {
      const std::size_t piece = std::min(size, kPiece);
      out.resize(out.size() + piece);
      fill(std::span(out).last(piece));
      size -= piece;
    }
  }

 private:
  void await() const {
    pollfd waiting{.fd = file_, .events = POLLIN, .revents = 0};
    const int ready = patience_ < 0 ? 1 : ::poll(&waiting, 1, patience_);
    TESSERA_CHECK_KIND(ErrorKind::data, ready != 0, "{}: its reader was silent for {} s", name_,
                       patience_ / 1000);
  }
  [[noreturn]] void fail_at_end() {
    TESSERA_CHECK_KIND(ErrorKind::data, child_ != nullptr, "{}: the particle stream ended early",
                       name_);
    const ChildProcess::End end = child_->wait();
    TESSERA_CHECK_KIND(crash_, end.signal == 0, "{}: its reader was ended by signal {} ({})", name_,
                       end.signal, ::strsignal(end.signal));
    TESSERA_CHECK_KIND(kind_of_exit(end.code), end.code == 0,
                       "{}: stopped; the line above says why", name_);
    TESSERA_FAIL(ErrorKind::data, "{}: the particle stream ended early", name_);
  }

  int file_;
  std::unique_ptr<ChildProcess> child_;
  std::string name_;
  ErrorKind crash_ = ErrorKind::internal;
  int patience_ = -1;
};

class ParticleStream : public EventSource {
 public:
  template <class... Args>
  explicit ParticleStream(Args&&... args) : bytes_(std::forward<Args>(args)...) {
    read_header();
  }

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
  template <class T>
  T take() {
    T value;
    bytes_.fill({reinterpret_cast<char*>(&value), sizeof(T)});
    return value;
  }
  std::string take_text(std::size_t size) {
    std::string text(size, ' ');
    bytes_.fill(text);
    return text;
  }

  void read_header() {
    const std::string& name = bytes_.name();
    TESSERA_CHECK_KIND(ErrorKind::data, take_text(8) == kStreamMagic,
                       "{}: not a particle stream (expected it to begin with {})", name,
                       kStreamMagic);
    const auto version = take<std::uint32_t>(), length = take<std::uint32_t>();
    TESSERA_CHECK_KIND(ErrorKind::data, version == kStreamVersion && length < (1U << 20U),
                       "{}: expected stream version {}, got {}", name, kStreamVersion, version);
    constexpr std::int64_t kMost = INT64_MAX;
    try {
      const nlohmann::json json = parse_json(take_text(length), name);
      header_.generator = json.at("generator");
      header_.version = json.at("version");
      header_.sample = whole_at(json, "sample", 0, kMost);
      header_.chunk = whole_at(json, "chunk", 0, kMost);
      header_.seed = whole_at(json, "seed", 0, kMost);
      header_.settings =
          fmt::format("{}", fmt::join(json.at("settings").get<std::vector<std::string>>(), "\n"));
    } catch (const nlohmann::json::exception& error) {
      TESSERA_FAIL(ErrorKind::data, "{}: bad stream header: {}", name, error.what());
    }
  }

  bool read_block() {
    const std::string magic = take_text(4), &name = bytes_.name();
    if (magic == kEndMagic) {
      return false;
    }
    const bool weighted = magic == kWeightedBlockMagic;
    TESSERA_CHECK_KIND(ErrorKind::data, weighted || magic == kBlockMagic,
                       "{}: expected a block, got other bytes", name);
    std::vector<char> body;
    bytes_.append(body, kBlockHead);
    std::uint32_t events = 0, particles = 0;
    std::memcpy(&events, body.data(), 4);
    std::memcpy(&particles, body.data() + 4, 4);
    TESSERA_CHECK_KIND(ErrorKind::data, events <= 1000000 && particles <= 100000000,
                       "{}: a block of {} events and {} particles is too large", name, events,
                       particles);
    bytes_.append(body, events * (kEventBytes + (weighted ? sizeof(double) : 0)) +
                            std::size_t{particles} * kParticleBytes);
    TESSERA_CHECK_KIND(ErrorKind::data, take<std::uint32_t>() == crc32(body),
                       "{}: a block fails its checksum", name);
    block_ = decode(body, weighted, name);
    position_ = 0;
    return true;
  }

  Bytes bytes_;
  StreamHeader header_;
  Block block_;
  std::size_t position_ = 0;
};

/// Starts a program whose standard output is a particle stream.
std::unique_ptr<EventSource> stream_of(const std::vector<std::string>& argv,
                                       const ChildBounds& bounds, const std::string& name,
                                       ErrorKind crash, int patience) {
  int ends[2];
  TESSERA_CHECK_KIND(ErrorKind::resource, ::pipe2(ends, O_CLOEXEC) == 0, "pipe: {}",
                     std::strerror(errno));
  std::unique_ptr<ChildProcess> child;
  try {
    child = std::make_unique<ChildProcess>(argv, bounds, ends[1]);
  } catch (...) {
    ::close(ends[0]);
    ::close(ends[1]);
    throw;
  }
  ::close(ends[1]);
  return std::make_unique<ParticleStream>(ends[0], std::move(child), name, crash, patience);
}

bool is_stream(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string first(8, ' ');
  in.read(first.data(), 8);
  return first == kStreamMagic;
}

}  // namespace

std::unique_ptr<EventSource> open_particle_file(const std::filesystem::path& path) {
  check_plain_file(path);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  TESSERA_CHECK_KIND(ErrorKind::io, file >= 0, "{}: cannot open: {}", path.string(),
                     std::strerror(errno));
  return std::make_unique<ParticleStream>(file, path.string());
}

std::unique_ptr<EventSource> open_event_file(const std::filesystem::path& path,
                                             const std::vector<std::string>& reader) {
  check_plain_file(path);
  if (is_stream(path)) {
    return open_particle_file(path);
  }
  if (reader.empty()) {
    return open_hepmc_file(path);
  }
  constexpr std::uint64_t kMemory = std::uint64_t{4} << 30U;
  ChildBounds bounds = reader_bounds(path, kMemory);
  bounds.wall_seconds = ChildBounds::kUnbounded;  // it waits while this program simulates
  constexpr int kPatience = 600'000;
  std::vector<std::string> argv = reader;
  argv.push_back(path.string());
  return stream_of(argv, bounds, path.string(), ErrorKind::data, kPatience);
}

std::unique_ptr<EventSource> open_particle_process(const std::vector<std::string>& argv) {
  return stream_of(argv, {}, argv.at(0) + " " + (argv.size() > 1 ? argv[1] : ""),
                   ErrorKind::internal, -1);
}

}  // namespace tessera
