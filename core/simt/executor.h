// The simt device: runs a CUDA kernel on the host, one fiber for each CUDA thread, and finds its
// faults. Read by device units, so no fmt here. Tests steer it with ScheduleGuard and read
// last_launch().
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

namespace tessera::simt {

using Where = std::source_location;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

/// In which order blocks and threads run; results must not depend on it.
enum class Order : std::uint8_t { forward, reverse, random };
struct Schedule {
  Order order = Order::forward;
  std::uint64_t seed = 0;
};
/// The schedule of the next launch, and of what streams do: forward, or random with
/// TESSERA_SIMT_SEED where that is set.
Schedule schedule();
/// Changes the schedule for a scope.
class ScheduleGuard {
 public:
  explicit ScheduleGuard(Schedule next);
  ~ScheduleGuard();
  ScheduleGuard(const ScheduleGuard&) = delete;
  ScheduleGuard& operator=(const ScheduleGuard&) = delete;

 private:
  Schedule previous_;
};

/// For a scope ex2, lg2, rsqrt and rcp are off by up to 2 ulp, a function of value and seed, as the
/// hardware's may be, and mma cuts sums off where it else rounds them, as tensor cores do; with
/// seed 0 neither. TESSERA_SIMT_NOISE=<seed> does it for the whole program.
class Noise {
 public:
  explicit Noise(std::uint64_t seed);
  ~Noise();
  Noise(const Noise&) = delete;
  Noise& operator=(const Noise&) = delete;

 private:
  std::uint64_t previous_;
};

/// Counters of one launch. A sector is 32 bytes; lanes of a warp at one call of ldg or stg share
/// sectors. An atomic counts as a write.
struct LaunchStats {
  std::uint64_t bytes_read = 0, bytes_written = 0;      ///< asked for by lanes, global memory
  std::uint64_t sectors_read = 0, sectors_written = 0;  ///< after coalescing within a warp
  /// Sectors at their first touch in the launch: what DRAM cannot be spared.
  std::uint64_t unique_sectors_read = 0, unique_sectors_written = 0;
  std::uint64_t barriers = 0;           ///< block and named barriers that completed
  std::uint64_t collectives = 0;        ///< whole-warp operations
  std::uint64_t switches = 0;           ///< of fibers
  std::uint64_t mma = 0;                ///< instructions of a warp, all shapes
  std::uint64_t mma_k8 = 0;             ///< those of m16n8k8 on bf16: half the work
  std::uint64_t exponentials = 0;       ///< ex2 of a lane
  std::uint64_t special_functions = 0;  ///< lg2, rsqrt and rcp of a lane
  std::uint64_t extrema = 0;            ///< max and min of a lane
  std::uint64_t fused = 0;              ///< fma of a lane
  std::uint64_t atomics = 0;            ///< of a lane, global memory
  std::uint64_t async_bytes = 0;        ///< read by cp.async
  /// Of shared memory, and how few there could have been; 0 unless counted (BankCounting).
  std::uint64_t wavefronts = 0, wavefronts_ideal = 0;
};
/// Counters of the last launch that ended well on this thread.
const LaunchStats& last_launch();
/// One line a kernel over all launches of this program so far. TESSERA_SIMT_REPORT=1 writes it to
/// standard error at the end and counts wavefronts.
std::string report();

/// Counts wavefronts of shared memory for a scope: each access of each lane is kept until its block
/// ends.
class BankCounting {
 public:
  BankCounting();
  ~BankCounting();
  BankCounting(const BankCounting&) = delete;
  BankCounting& operator=(const BankCounting&) = delete;
};

/// What launch() hands over: name for messages, geometry, and the bytes of the kernel's Smem.
struct Geometry {
  const char* name;
  Dim3 grid, block;
  std::size_t smem_bytes;
  bool smem_opt_in = false;     ///< the attribute that shared memory above 48 KiB needs
  void* stream = nullptr;       ///< where it is queued (core/simt/stream.h)
  const void* entry = nullptr;  ///< the kernel's code, by which tests find its symbol
};
/// Runs every thread of the grid; body(arguments) is one thread. Throws Error: usage for a geometry
/// that no GPU takes, internal for a fault of the kernel (race, deadlock, stray access), naming
/// kernel, block, threads, lines and schedule. Returns when the launch is queued, the arguments
/// copied; in the default stream and forward order that is when all blocks are done.
void execute(const Geometry& geometry, void (*body)(const void*), const void* arguments,
             std::size_t argument_bytes);

// ---- what prim.cuh calls from inside a kernel ----

struct ThreadPlace {
  Dim3 thread, block, block_dim, grid_dim;
  int lane, warp;
};
ThreadPlace place();
/// The block's dynamic shared memory; `bytes` is sizeof(Smem) and must equal the launch's.
void* shared_memory(std::size_t bytes, Where where);

/// Barrier `id` over `threads` threads (0: the whole block). predicate feeds the reductions.
struct BarrierResult {
  int count;
  bool all, any;
};
BarrierResult barrier_sync(int id, int threads, bool predicate, Where where);
void barrier_arrive(int id, int threads, Where where);

/// A whole-warp operation: parks until every lane of `mask` is here, then `combine` runs once over
/// the lanes' operands. `orders` tells whether it also orders memory (sync_warp does, a shuffle
/// does not).
using Combine = void (*)(void* const* operands, std::uint32_t mask);
void warp_collective(const char* name, std::uint32_t mask, void* operand, Combine combine,
                     bool orders, Where where);

/// Global memory: checked, counted, then copied. Width 1, 2, 4, 8 or 16 bytes, aligned.
void load_global(void* target, const void* source, unsigned bytes, Where where);
void store_global(void* target, const void* source, unsigned bytes, Where where);
/// Asynchronous copies into shared memory: `source_bytes` are copied, the rest up to `bytes` is
/// zero. They land by schedule: in forward and reverse order at the covering wait, at random at
/// issue or at the wait. Until then the target holds NaN and counts as unwritten.
void copy_async(void* target, const void* source, unsigned bytes, unsigned source_bytes,
                Where where);
void copy_async_commit();
/// Lands all but the last `pending` committed groups.
void copy_async_wait(int pending, Where where);

/// mma with f32 accumulators: a lane's registers as the PTX ISA numbers them; k8 uses the first
/// ones, except tf32 with all four of a and both of b.
enum class MmaShape : std::uint8_t { m16n8k16_bf16, m16n8k16_f16, m16n8k8_bf16, m16n8k8_tf32 };
struct MmaOperand {
  std::uint32_t a[4], b[2];
  float c[4];
};
void mma(MmaShape shape, MmaOperand& operand, Where where);
/// ldmatrix: `count` 8x8 tiles of 16-bit elements; lane l gives the address of row l % 8 of tile l
/// / 8.
void load_matrix(std::uint32_t* registers, const void* row, int count, bool transposed,
                 Where where);

/// Atomics on global memory; the value before.
std::uint32_t atomic_add_u32(std::uint32_t* target, std::uint32_t v, Where where);
std::uint64_t atomic_add_u64(std::uint64_t* target, std::uint64_t v, Where where);
std::uint32_t atomic_max_u32(std::uint32_t* target, std::uint32_t v, Where where);
std::uint32_t atomic_min_u32(std::uint32_t* target, std::uint32_t v, Where where);
std::uint32_t atomic_exchange_u32(std::uint32_t* target, std::uint32_t v, Where where);
std::uint32_t atomic_cas_u32(std::uint32_t* target, std::uint32_t expected, std::uint32_t v,
                             Where where);

/// Order between blocks. What a thread wrote or saw before a fence is visible to a thread of
/// another block that fences after an atomic on a flag which the first one changed after its fence;
/// acquire and release join the two steps.
void fence_device(Where where);
std::uint32_t load_acquire_u32(const std::uint32_t* source, Where where);
void store_release_u32(std::uint32_t* target, std::uint32_t v, Where where);

/// Counts an instruction of this lane: count(&LaunchStats::exponentials).
void count(std::uint64_t LaunchStats::*counter);
/// The value of an approximate function as this run has it: exact, or off by up to 2 ulp (Noise).
float approximate(float exact);

}  // namespace tessera::simt
