#include "train/simulation/event_files.h"

#include <span>

#include "core/check.h"
#include "train/hash.h"

namespace tessera {

std::optional<Event> EventReading::next() {
  std::optional<Event> event = events->next();
  next_number = event ? event->number + 1 : next_number;
  return event;
}

EventReading& EventFiles::at(const std::filesystem::path& file, std::uint64_t skip_events) {
  const auto [place, added] = files_.try_emplace(std::filesystem::weakly_canonical(file));
  EventReading& reading = place->second.reading;
  if (added) {
    place->second.name = file.string();
    reading.events = open_event_file(file, reader_);
    while (reading.next_number < skip_events) {
      TESSERA_CHECK_KIND(ErrorKind::missing, reading.next().has_value(),
                         "simulate: expected more than the {} events to skip, got {} events in {}",
                         skip_events, reading.next_number, file.string());
    }
  }
  return reading;
}

std::map<std::string, std::uint64_t> EventFiles::next_numbers() const {
  std::map<std::string, std::uint64_t> numbers;
  for (const auto& [path, file] : files_) {
    numbers[file.name] = file.reading.next_number;
  }
  return numbers;
}

std::uint64_t content_key(const Event& event) {
  std::vector<double> values;
  values.reserve(event.particles.size() * 10);
  for (const Particle& p : event.particles) {
    values.insert(values.end(), {static_cast<double>(p.pid), static_cast<double>(p.status), p.p4.px,
                                 p.p4.py, p.p4.pz, p.p4.e, p.m, p.vx, p.vy, p.vz});
  }
  return hash_key(std::as_bytes(std::span(values)));
}

}  // namespace tessera
