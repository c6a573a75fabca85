// Heap allocations of this process, all threads together. Included by one file of a test program:
// it replaces malloc there; under a sanitizer, whose malloc stays, its hook counts.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TESSERA_HEAP_HOOK 1
// g++ 12 ships the function in its libraries, not the header allocator_interface.h that declares
// it.
extern "C" int __sanitizer_install_malloc_and_free_hooks(  // NOLINT
    void (*malloc_hook)(const volatile void*, std::size_t),
    void (*free_hook)(const volatile void*));
#endif

namespace tessera::heap_count {

/// The hook of the thread sanitizer is not told of aligned_alloc.
#ifdef __SANITIZE_THREAD__
inline constexpr bool kCountsAligned = false;
#else
inline constexpr bool kCountsAligned = true;
#endif

struct Count {
  std::int64_t allocations = 0, bytes = 0, largest = 0;
};

inline std::atomic<std::int64_t> allocations{0}, bytes{0}, largest{0};

inline void note(std::size_t size) {
  const auto n = static_cast<std::int64_t>(size);
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(n, std::memory_order_relaxed);
  std::int64_t before = largest.load(std::memory_order_relaxed);
  while (n > before && !largest.compare_exchange_weak(before, n, std::memory_order_relaxed)) {
  }
}

/// Counts from its construction on; one at a time.
class Watch {
 public:
  Watch() { largest = 0; }
  [[nodiscard]] Count count() const {
    return {allocations.load() - allocations_, bytes.load() - bytes_, largest.load()};
  }

 private:
  std::int64_t allocations_ = allocations.load(), bytes_ = bytes.load();
};

#ifdef TESSERA_HEAP_HOOK
inline const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t size) { note(size); }, [](const volatile void*) {});
#endif

}  // namespace tessera::heap_count

#ifndef TESSERA_HEAP_HOOK
// glibc's own names for what the replaced functions do; free stays as it is.
extern "C" {
void* __libc_malloc(std::size_t size);                           // NOLINT
void* __libc_calloc(std::size_t count, std::size_t size);        // NOLINT
void* __libc_realloc(void* old, std::size_t size);               // NOLINT
void* __libc_memalign(std::size_t alignment, std::size_t size);  // NOLINT

void* malloc(std::size_t size) {
  tessera::heap_count::note(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  tessera::heap_count::note(count * size);
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  tessera::heap_count::note(size);
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  tessera::heap_count::note(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  *out = aligned_alloc(alignment, size);
  return *out == nullptr ? ENOMEM : 0;
}
}
#endif
