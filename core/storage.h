// Storage: one buffer on one device, its version counter, and the step arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "core/device.h"

namespace tessera {

/// Between which values the integers of a buffer lie (core/indices.h).
struct Bounds {
  std::int32_t least, most;
};

/// Who asked for a tensor: the line of the op that makes it.
using Where = std::source_location;

class GraphMemory;

/// A reference-counted buffer, 64-byte aligned, freed or given back when the last handle goes.
/// Memory of a device is given out and taken back in the order of the stream that was current when
/// it was made; where another one is current at its end, that one's work so far is waited for.
class Storage {
 public:
  /// Throws Error(resource) with the memory plan of a device that has no room.
  explicit Storage(std::size_t bytes, Device device, const Where& where = Where::current());
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] Device device() const { return device_; }
  /// Whether the work that was to write it was recorded and then never queued.
  [[nodiscard]] bool lost() const;
  /// Counts writes; a backward that meets a changed saved tensor throws.
  [[nodiscard]] std::uint64_t version() const { return version_; }
  void bump_version() { ++version_; }
  /// What is known of the values as long as the version is the same.
  [[nodiscard]] std::optional<Bounds> bounds() const {
    return bounds_version_ == version_ ? bounds_ : std::nullopt;
  }
  void mark_bounds(Bounds bounds) {
    bounds_ = bounds;
    bounds_version_ = version_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  Stream stream_{};                     // of a device's memory
  std::shared_ptr<GraphMemory> graph_;  // where the memory lies, if made in a recording
  std::uint64_t version_ = 0, bounds_version_ = 0;
  std::optional<Bounds> bounds_;
  bool from_arena_ = false;
};

/// What lives on a device beyond the cpu, in words: bytes and tensors in all, then the lines that
/// made them, the largest first.
std::string memory_plan(Device device);

/// Memory of an arena, aligned to huge pages.
struct Slab {
  std::byte* data;
  std::size_t bytes;
};

/// Allocator for the tensors of one training step: 2 MiB-aligned slabs with huge pages advised,
/// touched once, reset after the step. First touch of 40 MB costs 18 ms in 4 KiB pages and nothing
/// when reused. A block that is given back within the step serves the next tensor of its size
/// class, while it is in the caches: eight classes a power of two, so that batches of varying
/// length share them.
class StepArena {
 public:
  StepArena() = default;
  ~StepArena();
  StepArena(const StepArena&) = delete;
  StepArena& operator=(const StepArena&) = delete;

  std::byte* allocate(std::size_t bytes);
  /// Gives back what allocate() of the same arena gave.
  static void release(std::byte* data);
  /// Makes all memory free again. Throws Error(internal) while a tensor of the step is alive.
  void reset();
  /// Bytes in slabs, the high-water mark of the steps so far.
  [[nodiscard]] std::size_t capacity() const;

 private:
  struct Block;
  std::byte* carve(std::size_t bytes);

  std::vector<Slab> slabs_;
  std::size_t slab_ = 0;        // current slab
  std::size_t offset_ = 0;      // first free byte in it
  std::vector<Block*> free_{};  // of each size class, the last given back first
  std::int64_t live_ = 0;
};

/// While alive, cpu tensors made by this thread come from `arena`. A tensor that must outlive the
/// step is made outside of it or cloned under a NoArena.
class ArenaScope {
 public:
  explicit ArenaScope(StepArena& arena);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  StepArena* previous_;
};

/// While alive, tensors come from the heap even inside an ArenaScope.
class NoArena {
 public:
  NoArena();
  ~NoArena();
  NoArena(const NoArena&) = delete;
  NoArena& operator=(const NoArena&) = delete;

 private:
  StepArena* previous_;
};

}  // namespace tessera
