// Memory of the simt device: every allocation has red zones, starts poisoned and is remembered
// after free. The host cannot reach it outside of copies: its pages have no rights then, and an
// access ends the program with a line that names the allocation. (With more than 2 MiB in use that
// holds after one launch in 32, for speed.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera {

/// At least `bytes` bytes aligned to 256; the content is the poison word, a signalling NaN in f32
/// and bf16.
void* simt_allocate(std::size_t bytes);
/// Checks the red zones and keeps the memory in quarantine for a while. Null is legal. An address
/// that simt_allocate did not give, or gave and took back, is remembered and reported by the next
/// launch.
void simt_free(void* data) noexcept;
/// Copies between any two of host and device; done when it returns.
void simt_copy(void* target, const void* source, std::size_t bytes);

namespace simt {

/// What freshly allocated device memory holds, 4-byte words.
inline constexpr std::uint32_t kPoison = 0x7FA17FA1U;

/// A live or freed allocation around an address; data == nullptr if there is none.
struct Allocation {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  bool live = false;
};
/// The allocation whose bytes or red zones hold the address.
Allocation find_allocation(const void* address);
/// Text of a fault noticed by simt_free since the last call, or null: double free, damaged red
/// zone.
const char* take_memory_fault();
/// Notes a fault for take_memory_fault(), where nothing can be thrown.
void remember_memory_fault(const char* fault);
/// Makes memory of an allocation hold the poison word again.
void poison_memory(void* data, std::size_t bytes);

/// For a scope device memory holds no more than `bytes` at a time, quarantine and red zones aside.
class MemoryLimit {
 public:
  explicit MemoryLimit(std::size_t bytes);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  std::size_t previous_;
};
/// Bytes of the allocations not freed yet.
std::size_t live_bytes();
/// Allocations not freed yet: a test that leaves more than it found leaks.
std::size_t live_allocations();

/// While alive, all device memory can be read and written: a running launch, or a test that damages
/// memory on purpose.
class DeviceMemoryOpen {
 public:
  DeviceMemoryOpen();
  ~DeviceMemoryOpen();
  DeviceMemoryOpen(const DeviceMemoryOpen&) = delete;
  DeviceMemoryOpen& operator=(const DeviceMemoryOpen&) = delete;
};

}  // namespace simt
}  // namespace tessera
