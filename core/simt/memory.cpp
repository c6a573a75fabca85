#include "core/simt/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

constexpr std::size_t kAlign = 256;
constexpr std::size_t kRedZone = 256;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kArenaBytes = std::size_t{64} << 30;  // reserved, not touched
constexpr std::size_t kQuarantineBytes = std::size_t{4} << 20;
// Changing the rights of a page costs about 0.1 us, a launch 10 us: beyond this size the arena is
// closed after one launch in 32 only.
constexpr std::size_t kCheapToClose = std::size_t{2} << 20;
constexpr int kSeldom = 32;

struct Block {
  std::byte* base;  // red zone, data, red zone
  std::size_t bytes;
  std::size_t capacity;  // of base, red zones included
  bool live;
};

struct Registry {
  std::mutex mutex;
  std::byte* arena = nullptr;
  std::size_t used = 0;  // bytes of the arena ever given out
  int open = 0;          // launches that hold the arena open
  int launches = 0;
  bool left_open = false;
  std::map<const std::byte*, Block> blocks;      // by the start of the leading red zone
  std::multimap<std::size_t, std::byte*> spare;  // by capacity
  std::deque<const std::byte*> quarantine;
  std::size_t quarantined = 0;
  std::size_t live = 0, most = kArenaBytes;  // bytes of live allocations, and how many there may be
  const char* fault = nullptr;
};

Registry& registry() {
  static Registry* r = [] {
    auto* fresh = new Registry;  // lives to the end: tensors of static duration free into it
    void* p =
        ::mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TESSERA_CHECK_KIND(ErrorKind::resource, p != MAP_FAILED,
                       "simt memory: expected {} bytes of address space, got none", kArenaBytes);
    fresh->arena = static_cast<std::byte*>(p);
    return fresh;
  }();
  return *r;
}

struct sigaction previous_handler {};

// Says which allocation the host touched, then lets the fault take its course. Only
// async-signal-safe calls; the registry is read without its lock if this thread holds it.
void report_host_access(int /*signal*/, siginfo_t* info, void* /*context*/) {
  Registry& r = registry();
  const auto* p = static_cast<const std::byte*>(info->si_addr);
  if (p >= r.arena && p < r.arena + kArenaBytes) {
    const simt::Allocation a =
        r.mutex.try_lock() ? (r.mutex.unlock(), simt::find_allocation(p)) : simt::Allocation{};
    char text[160];
    const int n = std::snprintf(text, sizeof(text),
                                "simt: host access to device memory, byte %td of an allocation of "
                                "%zu bytes; copy it with to(cpu)\n",
                                a.data == nullptr ? p - r.arena : p - a.data, a.bytes);
    static_cast<void>(::write(STDERR_FILENO, text, static_cast<std::size_t>(n)) < 0);
  }
  ::sigaction(SIGSEGV, &previous_handler, nullptr);  // the instruction runs again
}

void watch_host_access() {
  static const bool done = [] {
    struct sigaction action {};
    action.sa_sigaction = report_host_access;
    action.sa_flags = SA_SIGINFO;
    return ::sigaction(SIGSEGV, &action, &previous_handler) == 0;
  }();
  static_cast<void>(done);
}

void protect(std::byte* begin, std::size_t bytes, int rights) {
  const auto first = reinterpret_cast<std::uintptr_t>(begin) / kPage * kPage;
  const auto last = (reinterpret_cast<std::uintptr_t>(begin) + bytes + kPage - 1) / kPage * kPage;
  const int code = ::mprotect(reinterpret_cast<void*>(first), last - first, rights);
  TESSERA_CHECK_KIND(ErrorKind::resource, code == 0,
                     "simt memory: expected to change the rights of {} bytes, got error {}", bytes,
                     code);
}

// Opens a piece of the arena to the host. The registry's lock is held meanwhile.
class Opened {
 public:
  Opened(Registry& r, const void* data, std::size_t bytes)
      : begin_(static_cast<std::byte*>(const_cast<void*>(data))), bytes_(bytes) {
    closes_ = r.open == 0 && !r.left_open && begin_ >= r.arena && begin_ < r.arena + kArenaBytes &&
              bytes > 0;
    if (closes_) {
      protect(begin_, bytes_, PROT_READ | PROT_WRITE);
    }
  }
  ~Opened() {
    if (closes_) {
      protect(begin_, bytes_, PROT_NONE);
    }
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

 private:
  std::byte* begin_;
  std::size_t bytes_;
  bool closes_ = false;
};

std::size_t round_up(std::size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
std::size_t total(std::size_t bytes) { return round_up(bytes) + 2 * kRedZone; }

void poison(std::byte* data, std::size_t bytes) {
  for (std::size_t i = 0; i + 4 <= bytes; i += 4) {
    std::memcpy(data + i, &simt::kPoison, 4);
  }
}

bool is_poison(const std::byte* data, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (data[i] != static_cast<std::byte>(i % 2 == 0 ? 0xA1 : 0x7F)) {
      return false;
    }
  }
  return true;
}

// Everything around the data of a block still holds poison.
bool red_zones_whole(const Block& b) {
  return is_poison(b.base, kRedZone) &&
         (b.bytes % 2 != 0 ||
          is_poison(b.base + kRedZone + b.bytes, total(b.bytes) - kRedZone - b.bytes));
}

void release_oldest(Registry& r) {
  const auto it = r.blocks.find(r.quarantine.front());
  r.quarantine.pop_front();
  r.quarantined -= it->second.capacity;
  r.spare.emplace(it->second.capacity, it->second.base);
  r.blocks.erase(it);
}

// The smallest spare block that fits without wasting half of it, or fresh pages.
Block take_block(Registry& r, std::size_t bytes) {
  const std::size_t wanted = total(bytes);
  const auto found = r.spare.lower_bound(wanted);
  if (found != r.spare.end() && found->first <= 2 * wanted) {
    const Block b{found->second, bytes, found->first, true};
    r.spare.erase(found);
    return b;
  }
  TESSERA_CHECK_KIND(ErrorKind::resource, wanted <= kArenaBytes - r.used,
                     "simt_allocate: expected {} bytes of memory, got none", bytes);
  const Block b{r.arena + r.used, bytes, wanted, true};
  r.used += wanted;
  return b;
}

}  // namespace

void* simt_allocate(std::size_t bytes) {
  Registry& r = registry();
  watch_host_access();
  const std::lock_guard lock(r.mutex);
  TESSERA_CHECK_KIND(ErrorKind::resource, bytes <= r.most && r.live <= r.most - bytes,
                     "simt_allocate: expected {} bytes of memory, {} of {} are taken", bytes,
                     r.live, r.most);
  const Block b = take_block(r, bytes);
  r.live += bytes;
  const Opened open(r, b.base, b.capacity);
  if (r.open > 0 || r.left_open) {  // fresh pages of an arena that was opened before
    protect(b.base, b.capacity, PROT_READ | PROT_WRITE);
  }
  poison(b.base, b.capacity);
  r.blocks[b.base] = b;
  return b.base + kRedZone;
}

void simt_free(void* data) noexcept {
  if (data == nullptr) {
    return;
  }
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.blocks.find(static_cast<std::byte*>(data) - kRedZone);
  if (it == r.blocks.end() || !it->second.live) {
    r.fault = it == r.blocks.end() ? "free of an address that is no allocation" : "double free";
    return;
  }
  Block& b = it->second;
  const Opened open(r, b.base, b.capacity);
  if (!red_zones_whole(b)) {
    r.fault = "write into a red zone, found at free";
  }
  b.live = false;
  r.live -= b.bytes;
  poison(b.base, b.capacity);
  r.quarantine.push_back(b.base);
  r.quarantined += b.capacity;
  while (r.quarantined > kQuarantineBytes) {
    release_oldest(r);
  }
}

void simt_copy(void* target, const void* source, std::size_t bytes) {
  if (bytes == 0) {
    return;
  }
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const Opened open_target(r, target, bytes);
  const Opened open_source(r, source, bytes);
  std::memmove(target, source, bytes);
}

namespace simt {

DeviceMemoryOpen::DeviceMemoryOpen() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (r.open++ == 0 && !r.left_open && r.used > 0) {
    protect(r.arena, r.used, PROT_READ | PROT_WRITE);
  }
}

DeviceMemoryOpen::~DeviceMemoryOpen() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (--r.open > 0 || r.used == 0) {
    return;
  }
  r.left_open = r.used > kCheapToClose && ++r.launches % kSeldom != 0;
  if (!r.left_open) {
    protect(r.arena, r.used, PROT_NONE);
  }
}

Allocation find_allocation(const void* address) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto* p = static_cast<const std::byte*>(address);
  auto it = r.blocks.upper_bound(p);
  if (it == r.blocks.begin()) {
    return {};
  }
  const Block& b = std::prev(it)->second;
  if (p >= b.base + b.capacity) {
    return {};
  }
  return {b.base + kRedZone, b.bytes, b.live};
}

void remember_memory_fault(const char* fault) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.fault = fault;
}

const char* take_memory_fault() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return std::exchange(r.fault, nullptr);
}

void poison_memory(void* data, std::size_t bytes) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const Opened open(r, data, bytes);
  poison(static_cast<std::byte*>(data), bytes);
}

MemoryLimit::MemoryLimit(std::size_t bytes) : previous_(registry().most) {
  registry().most = bytes;
}
MemoryLimit::~MemoryLimit() { registry().most = previous_; }

std::size_t live_bytes() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return r.live;
}

std::size_t live_allocations() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return static_cast<std::size_t>(
      std::ranges::count_if(r.blocks, [](const auto& b) { return b.second.live; }));
}

}  // namespace simt
}  // namespace tessera
