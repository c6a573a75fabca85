#include "core/storage.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#include "core/check.h"
#include "core/device_calls.h"
#include "core/graph_memory.h"
#include "core/simd_level.h"

namespace tessera {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSlabAlignment = std::size_t{2} << 20;
constexpr std::size_t kSlabBytes = std::size_t{32} << 20;

thread_local StepArena* current_arena = nullptr;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

std::byte* heap_allocate(std::size_t bytes, std::size_t alignment) {
  (void)simd_level();  // what no kernel runs before
  void* p = std::aligned_alloc(alignment, round_up(bytes, alignment));
  TESSERA_CHECK_KIND(ErrorKind::resource, p != nullptr,
                     "memory: {} bytes requested on cpu, none given", bytes);
  if (alignment == kSlabAlignment) {
    madvise(p, round_up(bytes, alignment), MADV_HUGEPAGE);  // advice: failure costs speed only
  }
  return static_cast<std::byte*>(p);
}

/// Live buffers of devices and who made them.
struct DeviceBuffers {
  struct Entry {
    Device device;
    std::size_t bytes;
    Where where;
  };
  std::mutex mutex;
  std::unordered_map<const Storage*, Entry> live;
};

DeviceBuffers& device_buffers() {
  static auto* all = new DeviceBuffers;  // lives to the end: tensors of static duration leave it
  return *all;
}

std::byte* device_allocate(std::size_t bytes, Device device) {
  return static_cast<std::byte*>(
      device_calls(device).allocate(bytes, current_stream(device).handle));
}

// allocate(), whose Error(resource) becomes one that says who asked and what lives there.
template <class Allocate>
std::byte* or_tell(Allocate allocate, std::size_t bytes, Device device, const Where& where) {
  try {
    return allocate();
  } catch (const Error& e) {
    TESSERA_CHECK_KIND(e.kind(), e.kind() != ErrorKind::resource,
                       "memory: {} bytes requested on {} by {}:{}, no room; {}", bytes,
                       name(device.type), where.file_name(), where.line(), memory_plan(device));
    throw;
  }
}

// A second try once frees that are still queued are done.
std::byte* device_allocate_or_tell(std::size_t bytes, Device device, const Where& where) {
  try {
    return device_allocate(bytes, device);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::resource) {
      throw;
    }
  }
  count_device_wait();
  device_calls(device).reclaim();
  return or_tell([&] { return device_allocate(bytes, device); }, bytes, device, where);
}

// The stream that the memory came in, if it is still there, behind what the current one did with
// it.
Stream behind_current(Device device, Stream stream) {
  const Stream now = current_stream(device);
  const Stream home = alive(stream) ? stream : now;
  queue_behind(device, home, now);
  return home;
}

/// Slabs of arenas that are gone, for the next: an evaluation between steps would otherwise fault
/// all its pages in again, a quarter of its time.
class SlabStore {
 public:
  SlabStore() = default;
  SlabStore(const SlabStore&) = delete;
  SlabStore& operator=(const SlabStore&) = delete;
  // At least `bytes`; the last one given.
  Slab take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = slabs_.size(); i-- > 0;) {
      if (slabs_[i].bytes >= bytes) {
        const Slab slab = slabs_[i];
        slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(i));
        return slab;
      }
    }
    const std::size_t size = round_up(std::max(bytes, kSlabBytes), kSlabAlignment);
    return {heap_allocate(size, kSlabAlignment), size};
  }
  void give(const std::vector<Slab>& slabs) {
    const std::lock_guard lock(mutex_);
    for (const Slab& slab : slabs) {
      ASAN_UNPOISON_MEMORY_REGION(slab.data, slab.bytes);
      slabs_.push_back(slab);
    }
  }
  ~SlabStore() {
    for (const Slab& slab : slabs_) {
      std::free(slab.data);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<Slab> slabs_;
};

SlabStore& slab_store() {
  static SlabStore store;
  return store;
}

/// Blocks of the arena are `lines << shift` cache lines, lines 9 to 16, or fewer than 9 lines.
struct SizeClass {
  std::size_t index, bytes;
};

SizeClass size_class(std::size_t bytes) {
  const std::size_t lines = std::max<std::size_t>(1, round_up(bytes, kAlignment) / kAlignment);
  const int width = static_cast<int>(std::bit_width(lines - 1));
  const int shift = std::max(0, width - 4);
  const std::size_t rounded = round_up(lines, std::size_t{1} << shift);
  return {8 * static_cast<std::size_t>(shift) + (rounded >> shift), rounded * kAlignment};
}

}  // namespace

Storage::Storage(std::size_t bytes, Device device, const Where& where)
    : bytes_(bytes), device_(device) {
  const std::size_t room = bytes == 0 ? 1 : bytes;
  if (device.type == DeviceType::cpu) {
    from_arena_ = current_arena != nullptr;
    data_ = from_arena_ ? current_arena->allocate(bytes) : heap_allocate(room, kAlignment);
    return;
  }
  stream_ = current_stream(device);
  graph_ = graph_memory(device);
  data_ = graph_ ? or_tell([&] { return graph_->allocate(room); }, room, device, where)
                 : device_allocate_or_tell(room, device, where);
  DeviceBuffers& all = device_buffers();
  const std::lock_guard lock(all.mutex);
  all.live.emplace(this, DeviceBuffers::Entry{device, bytes, where});
}

Storage::~Storage() {
  if (from_arena_) {
    StepArena::release(data_);
    return;
  }
  if (device_.type == DeviceType::cpu) {
    std::free(data_);
    return;
  }
  {
    DeviceBuffers& all = device_buffers();
    const std::lock_guard lock(all.mutex);
    all.live.erase(this);
  }
  const auto& recording = graph_memory(device_);
  if (graph_) {
    if (!recording) {
      behind_current(device_, stream_);
    }
    graph_->release(data_);
  } else if (recording) {
    recording->adopt(data_, stream_);
  } else {
    device_calls(device_).free(data_, behind_current(device_, stream_).handle);
  }
}

bool Storage::lost() const { return graph_ && graph_->lost(); }

std::string memory_plan(Device device) {
  struct Line {
    std::string place;
    std::size_t bytes = 0, tensors = 0;
  };
  std::map<std::string, Line> by_place;
  Line total;
  {
    DeviceBuffers& all = device_buffers();
    const std::lock_guard lock(all.mutex);
    for (const auto& [storage, entry] : all.live) {
      if (entry.device == device) {
        const std::string place = fmt::format("{}:{}", entry.where.file_name(), entry.where.line());
        Line& line = by_place[place];
        line.place = place;
        for (Line* l : {&line, &total}) {
          l->bytes += entry.bytes;
          ++l->tensors;
        }
      }
    }
  }
  std::vector<Line> lines;
  for (auto& [place, line] : by_place) {
    lines.push_back(std::move(line));
  }
  std::ranges::stable_sort(lines, std::ranges::greater{}, &Line::bytes);
  std::string text = fmt::format("live there: {} bytes in {} tensors", total.bytes, total.tensors);
  constexpr std::size_t kLines = 12;
  for (std::size_t i = 0; i < std::min(kLines, lines.size()); ++i) {
    text += fmt::format("{} {} bytes in {} of {}", i == 0 ? ":" : ",", lines[i].bytes,
                        lines[i].tensors, lines[i].place);
  }
  return text + (lines.size() > kLines ? ", ..." : "");
}

/// What stands in the cache line in front of each block.
struct StepArena::Block {
  StepArena* arena;
  Block* next;  // in the list of free blocks
  std::size_t size_class, bytes;
};

StepArena::~StepArena() { slab_store().give(slabs_); }

// New memory: the next bytes of a slab.
std::byte* StepArena::carve(std::size_t bytes) {
  while (slab_ < slabs_.size() && offset_ + bytes > slabs_[slab_].bytes) {
    ++slab_;
    offset_ = 0;
  }
  if (slab_ == slabs_.size()) {
    slabs_.push_back(slab_store().take(bytes));
    offset_ = 0;
  }
  std::byte* p = slabs_[slab_].data + offset_;
  offset_ += bytes;
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  return p;
}

std::byte* StepArena::allocate(std::size_t bytes) {
  static_assert(sizeof(Block) <= kAlignment);
  const SizeClass size = size_class(bytes);
  if (free_.size() <= size.index) {
    free_.resize(size.index + 1, nullptr);
  }
  Block*& head = free_[size.index];
  Block* block = head;
  if (block != nullptr) {
    head = block->next;
  } else {
    block = new (carve(size.bytes + kAlignment)) Block{this, nullptr, size.index, size.bytes};
  }
  ++live_;
  std::byte* data = reinterpret_cast<std::byte*>(block) + kAlignment;
  ASAN_UNPOISON_MEMORY_REGION(data, block->bytes);
  return data;
}

void StepArena::release(std::byte* data) {
  auto* block = reinterpret_cast<Block*>(data - kAlignment);
  StepArena& arena = *block->arena;
  ASAN_POISON_MEMORY_REGION(data, block->bytes);  // a view that outlives its tensor is caught
  block->next = arena.free_[block->size_class];
  arena.free_[block->size_class] = block;
  --arena.live_;
}

void StepArena::reset() {
  TESSERA_CHECK_KIND(ErrorKind::internal, live_ == 0,
                     "step arena: reset with {} tensors of the step alive", live_);
  slab_ = 0;
  offset_ = 0;
  std::ranges::fill(free_, nullptr);
}

std::size_t StepArena::capacity() const {
  std::size_t total = 0;
  for (const Slab& slab : slabs_) {
    total += slab.bytes;
  }
  return total;
}

ArenaScope::ArenaScope(StepArena& arena) : previous_(current_arena) { current_arena = &arena; }
ArenaScope::~ArenaScope() { current_arena = previous_; }
NoArena::NoArena() : previous_(current_arena) { current_arena = nullptr; }
NoArena::~NoArena() { current_arena = previous_; }

}  // namespace tessera
