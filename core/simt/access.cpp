// Every access of kernel code: is it allowed there, was the memory written, is it ordered after the
// others.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/simt/launch_state.h"

extern "C" {
// Bounds of the program's own image, from the linker: constants and tables that kernels read.
extern const char __executable_start;  // NOLINT
extern const char end;                 // NOLINT
}

namespace tessera::simt {
namespace {

constexpr std::size_t kStackBytes = std::size_t{64} << 10;
constexpr std::size_t kSharedRedZone = 4096;

// A sanitizer build replaces the hooks, so plain writes to shared memory go unseen there.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSeesPlainWrites = false;
#else
constexpr bool kSeesPlainWrites = true;
#endif

bool inside(const std::byte* p, std::size_t n, const void* begin, std::size_t bytes) {
  const auto* b = static_cast<const std::byte*>(begin);
  return p >= b && p + n <= b + bytes;
}

// Offset of an instruction in the program, for addr2line -e <program>. The text outlives the fiber
// that fails.
const std::string& code(const void* pc) {
  static thread_local std::string text;
  text = pc == nullptr
             ? std::string("ldg/stg")
             : fmt::format(
                   "program offset {:#x}",
                   static_cast<std::size_t>(static_cast<const char*>(pc) - &__executable_start));
  return text;
}

}  // namespace

Stamp Launch::now() const {
  const auto grid_thread = block_number_ * static_cast<std::uint32_t>(block_threads_) +
                           static_cast<std::uint32_t>(current_->id);
  return {grid_thread + 1, order_.epoch(), order_.clock(current_->id), current_->where.line()};
}

bool Launch::before(const Stamp& s) const {
  const std::uint32_t other = s.thread - 1;
  const auto n = static_cast<std::uint32_t>(block_threads_);
  const std::uint32_t here = other - block_number_ * n;  // no division: this runs at each access
  if (here < n) {
    return order_.ordered(current_->id, static_cast<int>(here), s.epoch, s.clock);
  }
  const auto found = acquired_.find(other / n);
  return found != acquired_.end() &&
         std::any_of(found->second.begin(), found->second.end(), [&](const Acquired& a) {
           return a.what->covers(other % n, s.epoch, s.clock) && before(a.by);
         });
}

void Launch::fence() {
  Thread& t = *current_;
  t.fenced = std::make_shared<const Published>(order_.publish(t.id, block_number_));
  const Stamp here = now();
  for (auto& what : t.observed) {
    acquired_[what->block].push_back({here, std::move(what)});
  }
  t.observed.clear();
}

// An atomic takes part in the chain of writes at its flag: it hands on what its thread has fenced
// and sees what was handed on before.
void Launch::meet_at(const void* flag) {
  Thread& t = *current_;
  auto& chain = released_[flag];
  for (const auto& what : chain) {
    if (what->block != block_number_) {
      t.observed.push_back(what);
    }
  }
  if (t.fenced != nullptr) {
    chain.push_back(t.fenced);
  }
}

void Launch::acquire(const void* flag) {
  const Stamp here = now();
  for (const auto& what : released_[flag]) {
    acquired_[what->block].push_back({here, what});
  }
}

void Launch::release(const void* flag) {
  released_[flag] = {
      std::make_shared<const Published>(order_.publish(current_->id, block_number_))};
}

const std::string& Launch::describe(std::uint32_t grid_thread, std::uint32_t line) const {
  const auto n = static_cast<std::uint32_t>(block_threads_);
  const std::uint32_t t = (grid_thread - 1) % n;
  static thread_local std::string text;
  text = fmt::format("thread {} (warp {} lane {}) of block {}, after line {}", t, t / 32, t % 32,
                     (grid_thread - 1) / n, line);
  return text;
}

void Launch::check_race(Cell& cell, std::uint32_t run, bool write, bool atomic, const char* space,
                        std::size_t offset, const void* pc) {
  if (cell.run != run) {
    cell = Cell{};
    cell.run = run;
  }
  const Stamp* other = nullptr;
  if (cell.writer.thread != 0 && !(atomic && cell.atomic) && !before(cell.writer)) {
    other = &cell.writer;
  }
  for (const Stamp& r : cell.reader) {
    if (write && !atomic && r.thread != 0 && !before(r)) {
      other = &r;
    }
  }
  if (other != nullptr) {
    fail(fmt::format("race on {} at byte {}: {} here ({}), {} by {}, without a barrier between",
                     space, offset, write ? "write" : "read", code(pc),
                     other == &cell.writer ? "write" : "read",
                     describe(other->thread, other->line)));
  }
  const Stamp me = now();
  if (write) {
    cell.writer = me;
    cell.atomic = atomic;
  } else {
    // Keep the last reader of each of two warps.
    const std::uint32_t warp = (me.thread - 1) / 32;
    if (cell.reader[0].thread != 0 && (cell.reader[0].thread - 1) / 32 != warp) {
      cell.reader[1] = cell.reader[0];
    }
    cell.reader[0] = me;
  }
}

void Launch::access_shared(const std::byte* p, std::size_t bytes, bool write, bool atomic,
                           const void* pc) {
  const auto offset = static_cast<std::size_t>(p - shared_);
  if (p < shared_ || offset + bytes > geometry_.smem_bytes) {
    fail(fmt::format("{} of {} bytes at byte {} of shared memory, which has {} ({})",
                     write ? "write" : "read", bytes, p - shared_, geometry_.smem_bytes, code(pc)));
  }
  if (pc != nullptr && t_bank_scopes > 0) {  // an instruction of the kernel, not the copy engine
    count_banks(p, static_cast<unsigned>(bytes), pc);
  }
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    if (write) {
      shared_written_[i] = 1;
    } else if (kSeesPlainWrites && shared_written_[i] == 0) {
      fail(fmt::format("read of unwritten shared memory at byte {} ({})", i, code(pc)));
    }
  }
  for (std::size_t g = offset / 2; g <= (offset + bytes - 1) / 2; ++g) {
    check_race(shared_cells_[g], block_run_, write, atomic, "shared memory", g * 2, pc);
  }
}

Allocation Launch::find(const std::byte* p) {
  if (cached_.data == nullptr || !inside(p, 1, cached_.data, cached_.bytes)) {
    cached_ = find_allocation(p);
  }
  return cached_;
}

// The host writes unseen, so unwritten memory is known by its poison, a pattern no computation
// yields.
void Launch::require_written(const std::byte* p, std::size_t bytes, const void* pc) {
  const Allocation a = find(p);
  const auto offset = static_cast<std::size_t>(p - a.data);
  for (std::size_t w = offset / 4 * 4; w < offset + bytes && w + 4 <= a.bytes; w += 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, a.data + w, 4);
    if (word == kPoison) {
      fail(fmt::format("read of device memory never written, byte {} of {} ({})", offset, a.bytes,
                       code(pc)));
    }
  }
}

bool Launch::access_global(const std::byte* p, std::size_t bytes, bool write, bool atomic,
                           const void* pc) {
  const Allocation a = find(p);
  if (a.data == nullptr) {
    return false;
  }
  const char* verb = write ? "write" : "read";
  if (!a.live) {
    fail(fmt::format("{} of freed device memory, byte {} of {} ({})", verb, p - a.data, a.bytes,
                     code(pc)));
  }
  if (!inside(p, bytes, a.data, a.bytes)) {
    fail(fmt::format("{} of {} bytes at byte {} of a device allocation of {} bytes ({})", verb,
                     bytes, p - a.data, a.bytes, code(pc)));
  }
  const auto offset = static_cast<std::size_t>(p - a.data);
  if (!write) {
    require_written(p, bytes, pc);
  }
  ShadowPages& pages = global_cells_[a.data];
  if (pages.empty()) {
    pages.resize(a.bytes / 2 / kShadowPage + 1);
  }
  for (std::size_t g = offset / 2; g <= (offset + bytes - 1) / 2; ++g) {
    auto& page = pages[g / kShadowPage];
    if (page == nullptr) {
      page = std::make_unique<Cell[]>(kShadowPage);
    }
    check_race(page[g % kShadowPage], 1, write, atomic, "device memory", g * 2, pc);
  }
  return true;
}

// The thread's own stack is free; the stack of another is a fault.
bool Launch::access_stack(const std::byte* p, std::size_t bytes) {
  if (inside(p, bytes, current_->stack, kStackBytes)) {
    return true;
  }
  for (const Thread& t : threads_) {
    if (inside(p, 1, t.stack, kStackBytes)) {
      fail(fmt::format("access to a local variable of thread {}", t.id));
    }
  }
  return false;
}

void Launch::access(const void* address, std::size_t bytes, bool write, bool atomic,
                    const void* pc) {
  const auto* p = static_cast<const std::byte*>(address);
  if (inside(p, bytes, current_->stack, kStackBytes)) {
    return;
  }
  if (p + kSharedRedZone >= shared_ && p < shared_ + geometry_.smem_bytes + kSharedRedZone) {
    access_shared(p, bytes, write, atomic, pc);
  } else if (access_global(p, bytes, write, atomic, pc) || access_stack(p, bytes) ||
             (!write && inside(p, bytes, arguments_, argument_bytes_)) ||
             (!write && inside(p, bytes, &__executable_start,
                               static_cast<std::size_t>(&end - &__executable_start)))) {
    return;
  } else {
    fail(fmt::format("{} of {} bytes of host memory ({})", write ? "write" : "read", bytes,
                     code(pc)));
  }
}

void Launch::count_banks(const std::byte* p, unsigned bytes, const void* site) {
  if (t_bank_scopes > 0) {
    banks_.touch(current_->place.warp, current_->place.lane, static_cast<std::size_t>(p - shared_),
                 bytes, site);
  }
}

void Launch::count_global(const void* address, unsigned bytes, bool write, Where where) {
  const ThreadPlace& p = current_->place;
  if (write) {
    stats.bytes_written += bytes;
    stats.unique_sectors_written += sectors_written_.add(address, bytes);
    writes_.touch(p.warp, p.lane, address, bytes, where);
  } else {
    stats.bytes_read += bytes;
    stats.unique_sectors_read += sectors_read_.add(address, bytes);
    reads_.touch(p.warp, p.lane, address, bytes, where);
  }
}

void* Launch::shared(std::size_t bytes, Where where) {
  current_->where = where;
  if (bytes != geometry_.smem_bytes) {
    fail(fmt::format("the kernel's Smem has {} bytes, the launch gave {}", bytes,
                     geometry_.smem_bytes));
  }
  return shared_;
}

// ---- entry points of prim.cuh ----

ThreadPlace place() { return t_launch->current().place; }
void* shared_memory(std::size_t bytes, Where where) { return t_launch->shared(bytes, where); }
BarrierResult barrier_sync(int id, int threads, bool predicate, Where where) {
  return t_launch->barrier(id, threads, predicate, true, where);
}
void barrier_arrive(int id, int threads, Where where) {
  t_launch->barrier(id, threads, false, false, where);
}
void warp_collective(const char* name, std::uint32_t mask, void* operand, Combine combine,
                     bool orders, Where where) {
  t_launch->collective(name, mask, operand, combine, orders, where);
}

namespace {
// Checks shared by ldg, stg and the atomics.
void touch_global(const void* address, unsigned bytes, bool write, bool atomic, Where where) {
  Launch& launch = *t_launch;
  launch.current().where = where;
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) {
    launch.fail(fmt::format("misaligned {} of {} bytes", write ? "write" : "read", bytes));
  }
  launch.count_global(address, bytes, write, where);
  launch.access(address, bytes, write, atomic, nullptr);
}
}  // namespace

void load_global(void* target, const void* source, unsigned bytes, Where where) {
  touch_global(source, bytes, false, false, where);
  std::memcpy(target, source, bytes);
}
void store_global(void* target, const void* source, unsigned bytes, Where where) {
  touch_global(target, bytes, true, false, where);
  std::memcpy(target, source, bytes);
}

namespace {
// One atomic: `change` makes the new value of the old one; returns the old.
template <class T, class F>
T atomic(T* target, Where where, F change) {
  touch_global(target, sizeof(T), true, true, where);
  t_launch->require_written(reinterpret_cast<const std::byte*>(target), sizeof(T), nullptr);
  t_launch->meet_at(target);
  ++t_launch->stats.atomics;
  const T old = *target;
  *target = change(old);
  return old;
}
}  // namespace

std::uint32_t atomic_add_u32(std::uint32_t* target, std::uint32_t v, Where where) {
  return atomic(target, where, [v](std::uint32_t old) { return old + v; });
}
std::uint64_t atomic_add_u64(std::uint64_t* target, std::uint64_t v, Where where) {
  return atomic(target, where, [v](std::uint64_t old) { return old + v; });
}
std::uint32_t atomic_max_u32(std::uint32_t* target, std::uint32_t v, Where where) {
  return atomic(target, where, [v](std::uint32_t old) { return std::max(old, v); });
}
std::uint32_t atomic_min_u32(std::uint32_t* target, std::uint32_t v, Where where) {
  return atomic(target, where, [v](std::uint32_t old) { return std::min(old, v); });
}
std::uint32_t atomic_exchange_u32(std::uint32_t* target, std::uint32_t v, Where where) {
  return atomic(target, where, [v](std::uint32_t) { return v; });
}
std::uint32_t atomic_cas_u32(std::uint32_t* target, std::uint32_t expected, std::uint32_t v,
                             Where where) {
  return atomic(target, where, [=](std::uint32_t old) { return old == expected ? v : old; });
}

void fence_device(Where where) {
  t_launch->current().where = where;
  t_launch->fence();
}
std::uint32_t load_acquire_u32(const std::uint32_t* source, Where where) {
  touch_global(source, 4, false, true, where);
  t_launch->acquire(source);
  return *source;
}
void store_release_u32(std::uint32_t* target, std::uint32_t v, Where where) {
  touch_global(target, 4, true, true, where);
  t_launch->release(target);
  *target = v;
}

}  // namespace tessera::simt
