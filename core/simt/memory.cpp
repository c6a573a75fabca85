#include "core/simt/memory.h"

#include <algorithm>
#include <cstdlib>
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
constexpr std::size_t kQuarantineBytes = std::size_t{16} << 20;

struct Block {
  std::byte* base;  // red zone, data, red zone
  std::size_t bytes;
  bool live;
};

struct Registry {
  std::mutex mutex;
  std::map<const std::byte*, Block> blocks;  // by the start of the leading red zone
  std::deque<const std::byte*> quarantine;
  std::size_t quarantined = 0;
  const char* fault = nullptr;
};

Registry& registry() {
  static Registry* r = new Registry;  // lives to the end: tensors of static duration free into it
  return *r;
}

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
  r.quarantined -= total(it->second.bytes);
  std::free(it->second.base);
  r.blocks.erase(it);
}

}  // namespace

void* simt_allocate(std::size_t bytes) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  auto* base = static_cast<std::byte*>(std::aligned_alloc(kAlign, total(bytes)));
  TESSERA_CHECK_KIND(ErrorKind::resource, base != nullptr,
                     "simt_allocate: expected {} bytes of memory, got none", bytes);
  poison(base, total(bytes));
  r.blocks[base] = Block{base, bytes, true};
  return base + kRedZone;
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
  if (!red_zones_whole(b)) {
    r.fault = "write into a red zone, found at free";
  }
  b.live = false;
  poison(b.base, total(b.bytes));
  r.quarantine.push_back(b.base);
  r.quarantined += total(b.bytes);
  while (r.quarantined > kQuarantineBytes) {
    release_oldest(r);
  }
}

void simt_copy(void* target, const void* source, std::size_t bytes) {
  if (bytes > 0) {
    std::memcpy(target, source, bytes);
  }
}

namespace simt {

Allocation find_allocation(const void* address) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto* p = static_cast<const std::byte*>(address);
  auto it = r.blocks.upper_bound(p);
  if (it == r.blocks.begin()) {
    return {};
  }
  const Block& b = std::prev(it)->second;
  if (p >= b.base + total(b.bytes)) {
    return {};
  }
  return {b.base + kRedZone, b.bytes, b.live};
}

const char* take_memory_fault() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return std::exchange(r.fault, nullptr);
}

}  // namespace simt
}  // namespace tessera
