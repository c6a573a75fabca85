// Events out of files that several sources of a simulation read one after the other.
#pragma once

#include <map>
#include <utility>

#include "train/simulation/particles.h"

namespace tessera {

/// Events of a generator or file, and the number of the first one that was not read.
struct EventReading {
  std::unique_ptr<EventSource> events = {};
  std::uint64_t next_number = 0;

  /// The next event, or nothing at the end.
  std::optional<Event> next();
};

/// The event files of a run. Each is opened once, so that its sources share its events.
class EventFiles {
 public:
  /// `reader`: the program that reads HepMC3 files, see open_event_file().
  explicit EventFiles(std::vector<std::string> reader = {}) : reader_(std::move(reader)) {}
  /// The file where its last reader stopped; at first behind `skip_events` events. Throws
  /// Error(missing) for a file that does not exist or holds no more than those.
  EventReading& at(const std::filesystem::path& file, std::uint64_t skip_events);
  /// By the name that a file was first asked for by: the first event that was not read.
  [[nodiscard]] std::map<std::string, std::uint64_t> next_numbers() const;

 private:
  struct File {
    std::string name;
    EventReading reading;
  };
  std::vector<std::string> reader_;
  std::map<std::filesystem::path, File> files_;
};

/// A number of an event's particles, whatever the event's place in a file.
std::uint64_t content_key(const Event& event);

}  // namespace tessera
