#include "core/storage.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "core/check.h"
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/memory.h"
#endif
#ifdef TESSERA_BUILD_CUDA
#include "core/gpu/runtime.h"
#endif

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
  void* p = std::aligned_alloc(alignment, round_up(bytes, alignment));
  TESSERA_CHECK_KIND(ErrorKind::resource, p != nullptr,
                     "memory: {} bytes requested on cpu, none given", bytes);
  if (alignment == kSlabAlignment) {
    madvise(p, round_up(bytes, alignment), MADV_HUGEPAGE);  // advice: failure costs speed only
  }
  return static_cast<std::byte*>(p);
}

std::byte* device_allocate(std::size_t bytes, Device device) {
  switch (device.type) {
    case DeviceType::cpu:
      return heap_allocate(bytes, kAlignment);
    case DeviceType::simt:
#ifdef TESSERA_BUILD_SIMT
      return static_cast<std::byte*>(simt_allocate(bytes));
#endif
      break;
    case DeviceType::cuda:
#ifdef TESSERA_BUILD_CUDA
      return static_cast<std::byte*>(cuda_allocate(bytes));
#endif
      break;
  }
  TESSERA_FAIL(ErrorKind::usage, "memory: this build has no device {}", name(device.type));
}

void device_free(std::byte* data, Device device) {
  switch (device.type) {
    case DeviceType::cpu:
      std::free(data);
      return;
    case DeviceType::simt:
#ifdef TESSERA_BUILD_SIMT
      simt_free(data);
#endif
      return;
    case DeviceType::cuda:
#ifdef TESSERA_BUILD_CUDA
      cuda_free(data);
#endif
      return;
  }
}

// The arena a storage came from is remembered in front of its bytes, so that Storage stays small.
struct ArenaHeader {
  StepArena* arena;
};

}  // namespace

Storage::Storage(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  if (device.type == DeviceType::cpu && current_arena != nullptr) {
    std::byte* p = current_arena->allocate(bytes + kAlignment);
    reinterpret_cast<ArenaHeader*>(p)->arena = current_arena;
    data_ = p + kAlignment;
    from_arena_ = true;
  } else {
    data_ = device_allocate(bytes == 0 ? 1 : bytes, device);
  }
}

Storage::~Storage() {
  if (from_arena_) {
    reinterpret_cast<ArenaHeader*>(data_ - kAlignment)->arena->release();
  } else {
    device_free(data_, device_);
  }
}

StepArena::~StepArena() {
  for (const Slab& slab : slabs_) {
    std::free(slab.data);
  }
}

std::byte* StepArena::allocate(std::size_t bytes) {
  bytes = round_up(bytes, kAlignment);
  while (slab_ < slabs_.size() && offset_ + bytes > slabs_[slab_].bytes) {
    ++slab_;
    offset_ = 0;
  }
  if (slab_ == slabs_.size()) {
    const std::size_t size = round_up(bytes > kSlabBytes ? bytes : kSlabBytes, kSlabAlignment);
    slabs_.push_back({heap_allocate(size, kSlabAlignment), size});
    offset_ = 0;
  }
  std::byte* p = slabs_[slab_].data + offset_;
  offset_ += bytes;
  ++live_;
  return p;
}

void StepArena::reset() {
  TESSERA_CHECK_KIND(ErrorKind::internal, live_ == 0,
                     "step arena: reset with {} tensors of the step alive", live_);
  slab_ = 0;
  offset_ = 0;
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
