// Races and uninitialised reads: what each 2-byte granule of memory last saw, and who is ordered
// after whom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera::simt {

/// When and by whom: thread is its number in the grid + 1, epoch counts block barriers, clock the
/// thread's syncs.
struct Stamp {
  std::uint32_t thread = 0;
  std::uint32_t epoch = 0;
  std::uint32_t clock = 0;
  std::uint32_t line = 0;
};

struct Cell {
  std::uint32_t run = 0;  ///< the launch (global) or block run (shared) that the stamps belong to
  bool atomic = false;    ///< the last write was an atomic
  Stamp writer;
  Stamp reader[2];  ///< the last reader and the last one of another warp
};

/// What a thread of one block has made visible to other blocks by a fence or a release.
struct Published {
  std::uint32_t block = 0;
  std::uint32_t epoch = 0;
  std::vector<std::uint32_t> seen;  // by thread of the block: everything up to this clock
  [[nodiscard]] bool covers(std::uint32_t thread, std::uint32_t e, std::uint32_t clock) const {
    return e < epoch || seen[thread] >= clock;
  }
};

/// Who is ordered after whom inside a block: a vector clock for each thread. A block barrier is an
/// epoch.
class HappensBefore {
 public:
  void reset(int threads);
  void barrier() { ++epoch_; }
  /// The threads in `members` meet: each then sees all that any of them saw.
  void meet(const std::vector<int>& members);
  /// `sources` publish, `targets` see it: a named barrier with arrivals.
  void meet(const std::vector<int>& sources, const std::vector<int>& targets);
  /// What `thread` has done and seen so far; what it does later is not part of it.
  Published publish(int thread, std::uint32_t block);
  [[nodiscard]] std::uint32_t epoch() const { return epoch_; }
  [[nodiscard]] std::uint32_t clock(int thread) const {
    return clock_[static_cast<std::size_t>(thread)];
  }
  /// Whether an access by `other` of this block at (epoch, clock) lies before what `me` does now.
  [[nodiscard]] bool ordered(int me, int other, std::uint32_t epoch, std::uint32_t clock) const;

 private:
  int threads_ = 0;
  std::uint32_t epoch_ = 0;
  std::vector<std::uint32_t> clock_;
  // (threads, threads): row sees column up to this clock; empty until a part of the block meets
  std::vector<std::uint32_t> seen_;
};

}  // namespace tessera::simt
