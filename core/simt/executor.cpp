#include "core/simt/executor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "core/check.h"
#include "core/simt/launch_state.h"
#include "core/simt/report.h"
#include "core/simt/stream.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace tessera::simt {

namespace ctx = boost::context::detail;

thread_local Launch* t_launch = nullptr;

namespace {

constexpr std::size_t kStackBytes = std::size_t{64} << 10;
constexpr std::size_t kGuardBytes = std::size_t{4} << 10;
constexpr std::size_t kSharedRedZone = 4096;
constexpr std::size_t kSharedLimit = std::size_t{227} << 10;
constexpr std::size_t kSharedWithoutOptIn = std::size_t{48} << 10;

thread_local LaunchStats t_last;

Schedule first_schedule() {
  const char* seed = std::getenv("TESSERA_SIMT_SEED");
  return seed == nullptr ? Schedule{} : Schedule{Order::random, std::strtoull(seed, nullptr, 10)};
}

thread_local Schedule t_schedule = first_schedule();

// Stacks with a guard page below, kept for the life of the thread.
class StackPool {
 public:
  std::byte* get(std::size_t i) {
    while (stacks_.size() <= i) {
      void* p = ::mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      TESSERA_CHECK_KIND(ErrorKind::resource, p != MAP_FAILED,
                         "simt launch: expected memory for {} fiber stacks, got none", i + 1);
      ::mprotect(p, kGuardBytes, PROT_NONE);
      stacks_.push_back(static_cast<std::byte*>(p) + kGuardBytes);
    }
    return stacks_[i];
  }
  StackPool() = default;
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  ~StackPool() {
    for (std::byte* s : stacks_) {
      ::munmap(s - kGuardBytes, kStackBytes + kGuardBytes);
    }
  }

 private:
  std::vector<std::byte*> stacks_;
};
thread_local StackPool t_stacks;

// AddressSanitizer keeps one shadow stack per fiber and must hear of each switch. Who leaves keeps
// its shadow in `fake` until it returns; null gives the shadow back, for a fiber that never runs
// again.
struct SanitizerSwitch {
#if defined(__SANITIZE_ADDRESS__)
  static inline thread_local const void* host_bottom = nullptr;
  static inline thread_local std::size_t host_size = 0;
  static void to_fiber(void** fake, const std::byte* stack) {
    __sanitizer_start_switch_fiber(fake, stack, kStackBytes);
  }
  static void to_host(void** fake) { __sanitizer_start_switch_fiber(fake, host_bottom, host_size); }
  static void in_fiber(void* fake) {
    __sanitizer_finish_switch_fiber(fake, &host_bottom, &host_size);
  }
  static void in_host(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
  static void clean(std::byte* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
#else
  static void to_fiber(void** /*fake*/, const std::byte* /*stack*/) {}
  static void to_host(void** /*fake*/) {}
  static void in_fiber(void* /*fake*/) {}
  static void in_host(void* /*fake*/) {}
  static void clean(std::byte* /*stack*/) {}
#endif
};

std::size_t volume(Dim3 d) { return std::size_t{d.x} * d.y * d.z; }

Dim3 place_of(std::size_t i, Dim3 extent) {
  return {static_cast<unsigned>(i % extent.x), static_cast<unsigned>(i / extent.x % extent.y),
          static_cast<unsigned>(i / extent.x / extent.y)};
}

// What any GPU would refuse.
void check_geometry(const Geometry& g, std::size_t argument_bytes) {
  const std::size_t threads = volume(g.block);
  TESSERA_CHECK(threads >= 32 && threads <= 1024 && threads % 32 == 0,
                "{}: block must be a multiple of 32 up to 1024 threads, got ({}, {}, {})", g.name,
                g.block.x, g.block.y, g.block.z);
  TESSERA_CHECK(
      volume(g.grid) >= 1 && g.grid.x <= 0x7fffffffU && g.grid.y <= 65535 && g.grid.z <= 65535,
      "{}: grid must be at least 1 and at most (2^31 - 1, 65535, 65535), got ({}, {}, {})", g.name,
      g.grid.x, g.grid.y, g.grid.z);
  TESSERA_CHECK(g.smem_bytes <= kSharedLimit, "{}: shared memory must be at most {} bytes, got {}",
                g.name, kSharedLimit, g.smem_bytes);
  TESSERA_CHECK(g.smem_bytes <= kSharedWithoutOptIn || g.smem_opt_in,
                "{}: {} bytes of shared memory need the opt-in attribute, which is missing", g.name,
                g.smem_bytes);
  TESSERA_CHECK(argument_bytes <= 4096, "{}: arguments must be at most 4096 bytes, got {}", g.name,
                argument_bytes);
}

}  // namespace

Schedule schedule() { return t_schedule; }
ScheduleGuard::ScheduleGuard(Schedule next) : previous_(t_schedule) { t_schedule = next; }
ScheduleGuard::~ScheduleGuard() { t_schedule = previous_; }
const LaunchStats& last_launch() { return t_last; }

namespace {
void run_now(const Geometry& geometry, Schedule order, void (*body)(const void*),
             const void* arguments, std::size_t argument_bytes) {
  TESSERA_CHECK_KIND(ErrorKind::internal, t_launch == nullptr,
                     "{}: a kernel may not launch another", geometry.name);
  if (const char* fault = take_memory_fault()) {
    TESSERA_FAIL(ErrorKind::internal, "simt memory: {} (noticed before launch of {})", fault,
                 geometry.name);
  }
  const DeviceMemoryOpen open;
  Launch launch(geometry, order, body, arguments, argument_bytes);
  launch.run();
  t_last = launch.stats;
  add_to_report(geometry, launch.stats);
}
}  // namespace

void execute(const Geometry& geometry, void (*body)(const void*), const void* arguments,
             std::size_t argument_bytes) {
  check_geometry(geometry, argument_bytes);
  const auto* bytes = static_cast<const std::byte*>(arguments);
  enqueue(geometry.stream,
          [geometry, order = t_schedule, body,
           copy = std::vector<std::byte>(bytes, bytes + argument_bytes)] {
            run_now(geometry, order, body, copy.data(), copy.size());
          });
}

Launch::Launch(const Geometry& geometry, Schedule schedule, void (*body)(const void*),
               const void* arguments, std::size_t argument_bytes)
    : geometry_(geometry),
      schedule_(schedule),
      body_(body),
      arguments_(arguments),
      argument_bytes_(argument_bytes),
      random_(schedule.seed),
      block_threads_(static_cast<int>(volume(geometry.block))),
      threads_(volume(geometry.block)),
      warps_(volume(geometry.block) / 32) {
  shared_storage_ = std::make_unique<std::byte[]>(geometry.smem_bytes + 2 * kSharedRedZone + 1024);
  auto at = reinterpret_cast<std::uintptr_t>(shared_storage_.get()) + kSharedRedZone;
  shared_ = reinterpret_cast<std::byte*>((at + 1023) / 1024 * 1024);
  shared_cells_.resize((geometry.smem_bytes + 1) / 2);
  shared_written_.resize(geometry.smem_bytes);
}

void Launch::run() {
  std::vector<std::uint32_t> blocks(volume(geometry_.grid));
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = static_cast<std::uint32_t>(i);
  }
  if (schedule_.order == Order::reverse) {
    std::reverse(blocks.begin(), blocks.end());
  } else if (schedule_.order == Order::random) {
    std::shuffle(blocks.begin(), blocks.end(), random_);
  }
  for (const std::uint32_t b : blocks) {
    block_number_ = b;
    ++block_run_;
    run_block();
  }
}

struct FiberEntry {
  [[noreturn]] static void enter(ctx::transfer_t from) {
    SanitizerSwitch::in_fiber(nullptr);
    auto* launch = static_cast<Launch*>(from.data);
    launch->scheduler_ = from.fctx;
    try {
      launch->body_(launch->arguments_);
      launch->finish_current();
    } catch (const std::exception& e) {
      launch->fail(fmt::format("exception inside the kernel: {}", e.what()));
    }
    leave(*launch, nullptr);
    std::terminate();  // a finished fiber is never resumed
  }
  // Back to the scheduler; returns when the thread is stepped again.
  static void leave(Launch& launch, void** fake) {
    SanitizerSwitch::to_host(fake);
    const ctx::transfer_t from = ctx::jump_fcontext(launch.scheduler_, nullptr);
    SanitizerSwitch::in_fiber(fake != nullptr ? *fake : nullptr);
    launch.scheduler_ = from.fctx;
  }
};

void Launch::start_threads() {
  for (int i = 0; i < block_threads_; ++i) {
    Thread& t = threads_[static_cast<std::size_t>(i)];
    t.id = i;
    t.stack = t_stacks.get(static_cast<std::size_t>(i));
    SanitizerSwitch::clean(t.stack);
    t.context = ctx::make_fcontext(t.stack + kStackBytes, kStackBytes, &FiberEntry::enter);
    t.place = {place_of(static_cast<std::size_t>(i), geometry_.block),
               place_of(block_number_, geometry_.grid),
               geometry_.block,
               geometry_.grid,
               i % 32,
               i / 32};
    t.run = Run::ready;
    t.waits_for = "";
    t.copies.clear();
    t.group = 0;
    t.fenced = nullptr;
    t.observed.clear();
    t.where = Where{};
    ready_.push_back(i);
  }
  if (schedule_.order == Order::reverse) {
    std::reverse(ready_.begin(), ready_.end());
  }
}

void Launch::run_block() {
  std::memset(shared_, 0xFF, geometry_.smem_bytes);  // NaN in bf16 and f32
  std::fill(shared_written_.begin(), shared_written_.end(), std::uint8_t{0});
  std::fill(warps_.begin(), warps_.end(), Rendezvous{});
  barriers_ = {};
  order_.reset(block_threads_);
  acquired_.clear();
  live_ = block_threads_;
  ready_.clear();
  ready_head_ = 0;
  start_threads();
  while (live_ > 0) {
    Thread* t = next();
    if (t == nullptr) {
      throw_fault(deadlock_report());
    }
    step(*t);
    if (!fault_.empty()) {
      throw_fault(fault_);
    }
  }
  stats.sectors_read += reads_.take();
  stats.sectors_written += writes_.take();
  const BankTraffic::Wavefronts w = banks_.take();
  stats.wavefronts += w.taken;
  stats.wavefronts_ideal += w.ideal;
}

void Launch::step(Thread& thread) {
  ++stats.switches;
  current_ = &thread;
  t_launch = this;
  void* fake = nullptr;
  SanitizerSwitch::to_fiber(&fake, thread.stack);
  const ctx::transfer_t from = ctx::jump_fcontext(thread.context, this);
  SanitizerSwitch::in_host(fake);
  thread.context = from.fctx;
  t_launch = nullptr;
}

// First in, first out in forward and reverse order. At random: any ready thread, or for odd seeds
// one of the last 32, so that a warp runs far ahead of the others.
Thread* Launch::next() {
  if (ready_head_ == ready_.size()) {
    return nullptr;
  }
  if (schedule_.order != Order::random) {
    const int i = ready_[ready_head_++];
    if (ready_head_ == ready_.size()) {
      ready_.clear();
      ready_head_ = 0;
    }
    return &threads_[static_cast<std::size_t>(i)];
  }
  const std::size_t n = ready_.size();
  const std::size_t window = schedule_.seed % 2 == 1 ? std::min<std::size_t>(n, 32) : n;
  const std::size_t pick = n - 1 - random_() % window;
  std::swap(ready_[pick], ready_.back());
  const int i = ready_.back();
  ready_.pop_back();
  return &threads_[static_cast<std::size_t>(i)];
}

void Launch::make_ready(int thread) {
  threads_[static_cast<std::size_t>(thread)].run = Run::ready;
  ready_.push_back(thread);
}

void Launch::park(const char* what, Where where) {
  current_->run = Run::parked;
  current_->waits_for = what;
  current_->where = where;
  void* fake = nullptr;
  FiberEntry::leave(*this, &fake);
}

void Launch::finish_current() {
  check_exit(*current_);
  current_->run = Run::done;
  --live_;
}

void Launch::fail(std::string&& text) {
  // Nothing on this stack is ever destroyed, so the text is moved out and no other string may be
  // alive.
  const ThreadPlace& p = current_->place;
  fault_ = std::move(text);
  fault_ += fmt::format("; thread ({}, {}, {}) of block ({}, {}, {}), warp {} lane {}", p.thread.x,
                        p.thread.y, p.thread.z, p.block.x, p.block.y, p.block.z, p.warp, p.lane);
  if (current_->where.line() != 0) {
    fault_ += fmt::format(", last primitive at {}:{}", current_->where.file_name(),
                          current_->where.line());
  }
  FiberEntry::leave(*this, nullptr);
  std::terminate();  // a failed launch steps no thread again
}

std::string Launch::schedule_text() const {
  switch (schedule_.order) {
    case Order::forward:
      return "forward";
    case Order::reverse:
      return "reverse";
    case Order::random:
      break;
  }
  return fmt::format("TESSERA_SIMT_SEED={}", schedule_.seed);
}

void Launch::throw_fault(const std::string& text) {
  TESSERA_FAIL(ErrorKind::internal, "{}: {} [grid ({}, {}, {}), block ({}, {}, {}), schedule {}]",
               geometry_.name, text, geometry_.grid.x, geometry_.grid.y, geometry_.grid.z,
               geometry_.block.x, geometry_.block.y, geometry_.block.z, schedule_text());
}

// Where every warp stands; lanes in the same place are named once.
std::string Launch::deadlock_report() const {
  const Dim3 b = place_of(block_number_, geometry_.grid);
  std::string text = fmt::format("deadlock, nothing can run in block ({}, {}, {}):", b.x, b.y, b.z);
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    std::vector<std::pair<std::string, std::uint32_t>> places;
    for (std::size_t l = 0; l < 32; ++l) {
      const Thread& t = threads_[w * 32 + l];
      const std::string at = t.run == Run::done ? "exited"
                                                : fmt::format("{} at {}:{}", t.waits_for,
                                                              t.where.file_name(), t.where.line());
      const auto it =
          std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == at; });
      if (it == places.end()) {
        places.emplace_back(at, 1U << l);
      } else {
        it->second |= 1U << l;
      }
    }
    for (const auto& [at, lanes] : places) {
      text += fmt::format(" warp {} lanes {:#010x} {};", w, lanes, at);
    }
  }
  return text;
}

}  // namespace tessera::simt
