// The state of the running launch: threads, barriers, schedule, shadow. Private to core/simt.
#pragma once

#include <array>
#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "core/simt/shadow.h"
#include "core/simt/traffic.h"

namespace tessera::simt {

enum class Run : std::uint8_t { ready, parked, done };

/// A cp.async on its way.
struct AsyncCopy {
  std::byte* target;
  const std::byte* source;
  unsigned bytes, source_bytes;
  int group;  // of its thread, counted by commits
};

struct Thread {
  boost::context::detail::fcontext_t context = nullptr;
  std::byte* stack = nullptr;  // lowest address
  ThreadPlace place{};
  int id = 0;  // within the block
  Run run = Run::ready;
  const char* waits_for = "";
  Where where;  // of the last primitive
  std::vector<AsyncCopy> copies;
  int group = 0;                                           // the next commit closes it
  std::shared_ptr<const Published> fenced;                 // by its last fence
  std::vector<std::shared_ptr<const Published>> observed;  // at atomics; a fence acquires them
  BarrierResult
      result{};  // of the last barrier: the next one may begin before this thread has read it
};

/// Lanes of one warp gathering for a collective.
struct Rendezvous {
  const char* name = nullptr;
  std::uint32_t mask = 0;
  std::uint32_t arrived = 0;
  std::array<void*, 32> operands{};
  Where where;
};

/// Writes of another block that a thread of the running one has acquired.
struct Acquired {
  Stamp by;
  std::shared_ptr<const Published> what;
};

struct Barrier {
  int expected = 0;
  int arrived = 0;
  std::vector<int> members, parked;
  int count = 0;
  bool all = true, any = false;
  Where where;
};

class Launch {
 public:
  Launch(const Geometry& geometry, Schedule schedule, void (*body)(const void*),
         const void* arguments, std::size_t argument_bytes);
  void run();

  /// Ends the launch: notes the text, leaves the fiber and never comes back. The unwinder cannot
  /// pass the access hooks (the compiler takes them for nothrow), so the host side throws.
  [[noreturn]] void fail(std::string&& text);
  void park(const char* what, Where where);
  void make_ready(int thread);
  Thread& current() { return *current_; }

  BarrierResult barrier(int id, int threads, bool predicate, bool wait, Where where);
  void collective(const char* name, std::uint32_t mask, void* operand, Combine combine, bool orders,
                  Where where);
  void* shared(std::size_t bytes, Where where);

  void start_copy(const AsyncCopy& copy);
  void commit_copies() { ++current_->group; }
  void land_copies(int pending);

  /// An access of kernel code found by a hook or made by ldg and stg.
  void access(const void* address, std::size_t bytes, bool write, bool atomic, const void* pc);
  void count_global(const void* address, unsigned bytes, bool write, Where where);
  void require_written(const std::byte* address, std::size_t bytes, const void* pc);
  void count_banks(const std::byte* address, unsigned bytes, const void* site);

  /// Order between blocks (PTX memory model, the patterns of its section "Release and acquire"):
  /// a fence before an atomic releases, a fence after one acquires.
  void fence();
  void meet_at(const void* flag);
  void acquire(const void* flag);
  void release(const void* flag);

  LaunchStats stats;

 private:
  friend struct FiberEntry;
  void run_block();
  void start_threads();
  void step(Thread& thread);
  void finish_current();
  Thread* next();
  [[noreturn]] void throw_fault(const std::string& text);
  std::string deadlock_report() const;
  const std::string& describe(std::uint32_t grid_thread, std::uint32_t line) const;
  std::string schedule_text() const;

  void open_barrier(Barrier& barrier, int id);
  void complete(Rendezvous& r, int warp, Combine combine, bool orders);
  void check_exit(const Thread& thread);

  void land(const AsyncCopy& copy);
  bool access_stack(const std::byte* address, std::size_t bytes);
  void access_shared(const std::byte* address, std::size_t bytes, bool write, bool atomic,
                     const void* pc);
  bool access_global(const std::byte* address, std::size_t bytes, bool write, bool atomic,
                     const void* pc);
  void check_race(Cell& cell, std::uint32_t run, bool write, bool atomic, const char* space,
                  std::size_t offset, const void* pc);
  [[nodiscard]] bool before(const Stamp& stamp) const;
  [[nodiscard]] Stamp now() const;
  Allocation find(const std::byte* address);

  Geometry geometry_;
  Schedule schedule_;
  void (*body_)(const void*);
  const void* arguments_;
  std::size_t argument_bytes_;
  std::mt19937_64 random_;

  int block_threads_;
  std::uint32_t block_number_ = 0;  // of the running block, x fastest
  std::uint32_t block_run_ = 0;
  std::vector<Thread> threads_;
  std::vector<int> ready_;
  std::size_t ready_head_ = 0;
  int live_ = 0;
  Thread* current_ = nullptr;
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  std::string fault_;

  std::vector<Rendezvous> warps_;
  std::array<Barrier, 16> barriers_;
  HappensBefore order_;

  std::unique_ptr<std::byte[]> shared_storage_;
  std::byte* shared_ = nullptr;
  std::vector<Cell> shared_cells_;
  std::vector<std::uint8_t> shared_written_;
  // By address of a flag what was released there; by block what the running block acquired of it.
  std::unordered_map<const void*, std::vector<std::shared_ptr<const Published>>> released_;
  std::unordered_map<std::uint32_t, std::vector<Acquired>> acquired_;
  // Shadow of an allocation, made page by page as the kernel touches it: a launch on a slice of a
  // large buffer must not pay for the whole.
  static constexpr std::size_t kShadowPage = 512;
  using ShadowPages = std::vector<std::unique_ptr<Cell[]>>;
  std::unordered_map<const std::byte*, ShadowPages> global_cells_;
  Allocation cached_{};
  Traffic reads_, writes_;
  SectorSet sectors_read_, sectors_written_;
  BankTraffic banks_;
};

/// Scopes of BankCounting; wavefronts are counted while there is one.
extern thread_local int t_bank_scopes;

/// The launch whose kernel code runs on this thread, or null: hooks return at once then.
extern thread_local Launch* t_launch;

/// Whether a Noise is in scope.
bool is_noisy();

}  // namespace tessera::simt
