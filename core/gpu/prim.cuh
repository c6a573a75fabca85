// Every device primitive, with two bodies: PTX or intrinsic for nvcc, host for simt.
// Kernels contain no other device word, so one source serves both compilers.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/dtype.h"
#include "core/gpu/launch.cuh"

// simt carries the caller's file and line to its reports.
#if defined(__CUDACC__)
#define TESSERA_WHERE_ONLY
#define TESSERA_WHERE
#else
#define TESSERA_WHERE_ONLY Where where = Where::current()
#define TESSERA_WHERE , Where where = Where::current()
#endif

namespace tessera::TESSERA_GPU_NS {

inline constexpr std::uint32_t kFullMask = 0xffffffffU;

/// 16 bytes of f32, the widest access of a lane.
struct alignas(16) Float4 {
  float x, y, z, w;
};
struct alignas(8) Float2 {
  float x, y;
};

/// One lane's part of an f32 accumulator of mma: rows lane / 4 and + 8 (core/gpu/tile.cuh).
template <int kRows, int kColumns>
struct Acc;
template <>
struct Acc<16, 8> {
  float c[4];
};

#if defined(__CUDACC__)

// ---- block ----
TESSERA_DEVICE Dim3 thread_idx() { return {threadIdx.x, threadIdx.y, threadIdx.z}; }
TESSERA_DEVICE Dim3 block_idx() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
TESSERA_DEVICE Dim3 block_dim() { return {blockDim.x, blockDim.y, blockDim.z}; }
TESSERA_DEVICE Dim3 grid_dim() { return {gridDim.x, gridDim.y, gridDim.z}; }
TESSERA_DEVICE int linear_thread() {
  return static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
}
TESSERA_DEVICE int lane() { return linear_thread() & 31; }
TESSERA_DEVICE int warp() { return linear_thread() >> 5; }
TESSERA_DEVICE void sync_block() { __syncthreads(); }
TESSERA_DEVICE int sync_block_count(bool p) { return __syncthreads_count(p); }
TESSERA_DEVICE bool sync_block_and(bool p) { return __syncthreads_and(p) != 0; }
TESSERA_DEVICE bool sync_block_or(bool p) { return __syncthreads_or(p) != 0; }
// PTX ISA, bar: barrier{.cta}.sync a, b
TESSERA_DEVICE void bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
TESSERA_DEVICE void bar_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- warp ----
TESSERA_DEVICE void sync_warp(std::uint32_t mask = kFullMask) { __syncwarp(mask); }
template <int width = 32, class T>
TESSERA_DEVICE T shfl_xor(T v, int lane_mask) {
  return __shfl_xor_sync(kFullMask, v, lane_mask, width);
}
template <int width = 32, class T>
TESSERA_DEVICE T shfl_down(T v, unsigned delta) {
  return __shfl_down_sync(kFullMask, v, delta, width);
}
template <int width = 32, class T>
TESSERA_DEVICE T shfl_up(T v, unsigned delta) {
  return __shfl_up_sync(kFullMask, v, delta, width);
}
template <int width = 32, class T>
TESSERA_DEVICE T shfl_idx(T v, int source) {
  return __shfl_sync(kFullMask, v, source, width);
}
TESSERA_DEVICE std::uint32_t ballot(bool p) { return __ballot_sync(kFullMask, p); }
TESSERA_DEVICE bool any(bool p) { return __any_sync(kFullMask, p) != 0; }
TESSERA_DEVICE bool all(bool p) { return __all_sync(kFullMask, p) != 0; }
TESSERA_DEVICE std::int32_t reduce_add(std::int32_t v) { return __reduce_add_sync(kFullMask, v); }
TESSERA_DEVICE std::int32_t reduce_min(std::int32_t v) { return __reduce_min_sync(kFullMask, v); }
TESSERA_DEVICE std::int32_t reduce_max(std::int32_t v) { return __reduce_max_sync(kFullMask, v); }
TESSERA_DEVICE std::uint32_t match_any(std::uint32_t v) { return __match_any_sync(kFullMask, v); }

// ---- global memory ----
template <class V>
TESSERA_DEVICE V ldg(const V* p) {
  static_assert(sizeof(V) <= 16);
  return *p;
}
template <class V>
TESSERA_DEVICE void stg(V* p, V v) {
  static_assert(sizeof(V) <= 16);
  *p = v;
}
TESSERA_DEVICE void fence() { __threadfence(); }
TESSERA_DEVICE std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v) {
  return atomicAdd(p, v);
}
TESSERA_DEVICE std::int32_t atomic_add(std::int32_t* p, std::int32_t v) { return atomicAdd(p, v); }
TESSERA_DEVICE std::uint64_t atomic_add(std::uint64_t* p, std::uint64_t v) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(p), v);
}
TESSERA_DEVICE std::uint32_t atomic_max(std::uint32_t* p, std::uint32_t v) {
  return atomicMax(p, v);
}
TESSERA_DEVICE std::uint32_t atomic_min(std::uint32_t* p, std::uint32_t v) {
  return atomicMin(p, v);
}
TESSERA_DEVICE std::uint32_t atomic_exchange(std::uint32_t* p, std::uint32_t v) {
  return atomicExch(p, v);
}
TESSERA_DEVICE std::uint32_t atomic_cas(std::uint32_t* p, std::uint32_t expected, std::uint32_t v) {
  return atomicCAS(p, expected, v);
}
TESSERA_DEVICE std::uint32_t load_acquire(const std::uint32_t* p) {
  std::uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
TESSERA_DEVICE void store_release(std::uint32_t* p, std::uint32_t v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

// ---- tensor cores and asynchronous copies (PTX ISA: mma.sync, ldmatrix, cp.async) ----
TESSERA_DEVICE void mma_m16n8k16(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                                 const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
TESSERA_DEVICE void mma_m16n8k16_f16(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
TESSERA_DEVICE void mma_m16n8k8(Acc<16, 8>& d, const std::uint32_t (&a)[2], std::uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}
/// Operands are f32 words, of which the hardware reads 10 bits of the fraction.
TESSERA_DEVICE void mma_m16n8k8_tf32(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
TESSERA_DEVICE std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
TESSERA_DEVICE void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
TESSERA_DEVICE void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
TESSERA_DEVICE std::uint32_t ldmatrix_x1(const void* row) {
  std::uint32_t r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(shared_address(row))
               : "memory");
  return r;
}
TESSERA_DEVICE void ldmatrix_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
TESSERA_DEVICE void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
/// Copies source_bytes of `bytes` (4, 8 or 16) and fills the rest with zeros; the source is not
/// read when 0.
template <int bytes>
TESSERA_DEVICE void cp_async(void* target, const void* source, unsigned source_bytes = bytes) {
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)),
                 "l"(source), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(target)),
                 "l"(source), "n"(bytes), "r"(source_bytes)
                 : "memory");
  }
}
TESSERA_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
TESSERA_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- arithmetic: fused and rounded where the source says so; fma.rn and add.rn never flush ----
TESSERA_DEVICE float fma(float a, float b, float c) {
  float d;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(d) : "f"(a), "f"(b), "f"(c));
  return d;
}
TESSERA_DEVICE float add(float a, float b) {
  float d;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(d) : "f"(a), "f"(b));
  return d;
}
TESSERA_DEVICE float rsqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
TESSERA_DEVICE float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
TESSERA_DEVICE float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
TESSERA_DEVICE float lg2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// The larger, the smaller: one instruction, never flushed; a NaN loses, -0 < +0. (a > b ? a : b
/// would be two, since it must give b where a or b is NaN.)
TESSERA_DEVICE float max(float a, float b) {
  float d;
  asm("max.f32 %0, %1, %2;" : "=f"(d) : "f"(a), "f"(b));
  return d;
}
TESSERA_DEVICE float min(float a, float b) {
  float d;
  asm("min.f32 %0, %1, %2;" : "=f"(d) : "f"(a), "f"(b));
  return d;
}
/// Two bf16, rounded to nearest even; low in the lower half.
TESSERA_DEVICE std::uint32_t pack_bf16x2(float low, float high) {
  std::uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

#else

// ---- block ----
inline Dim3 thread_idx() { return place().thread; }
inline Dim3 block_idx() { return place().block; }
inline Dim3 block_dim() { return place().block_dim; }
inline Dim3 grid_dim() { return place().grid_dim; }
inline int lane() { return place().lane; }
inline int warp() { return place().warp; }
inline int linear_thread() { return place().warp * 32 + place().lane; }
inline void sync_block(TESSERA_WHERE_ONLY) { barrier_sync(0, 0, true, where); }
inline int sync_block_count(bool p TESSERA_WHERE) { return barrier_sync(0, 0, p, where).count; }
inline bool sync_block_and(bool p TESSERA_WHERE) { return barrier_sync(0, 0, p, where).all; }
inline bool sync_block_or(bool p TESSERA_WHERE) { return barrier_sync(0, 0, p, where).any; }
inline void bar_sync(int id, int threads TESSERA_WHERE) { barrier_sync(id, threads, true, where); }
inline void bar_arrive(int id, int threads TESSERA_WHERE) { barrier_arrive(id, threads, where); }

// ---- warp: each lane leaves its operand on its own stack, the last one to arrive works for all
// ----
namespace detail {

template <class T>
struct Shuffle {
  T in, out;
  int source;  // lane
};

// What CUDA leaves undefined: all bits set, NaN in f32.
template <class T>
T poisoned() {
  T v;
  __builtin_memset(&v, 0xFF, sizeof(T));
  return v;
}

template <class T>
T shuffle(const char* name, T v, int source, std::uint32_t mask, Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  Shuffle<T> operand{v, v, source};
  warp_collective(
      name, mask, &operand,
      [](void* const* lanes, std::uint32_t members) {
        for (int l = 0; l < 32; ++l) {
          if ((members >> l & 1U) != 0) {
            auto* o = static_cast<Shuffle<T>*>(lanes[l]);
            const auto s = static_cast<unsigned>(o->source);
            o->out =
                (members >> s & 1U) != 0 ? static_cast<Shuffle<T>*>(lanes[s])->in : poisoned<T>();
          }
        }
      },
      false, where);
  return operand.out;
}

struct Vote {
  std::int32_t in, add, min, max;
  std::uint32_t ballot;
};

inline Vote vote(const char* name, std::int32_t v, Where where) {
  Vote operand{v, 0, 0, 0, 0};
  warp_collective(
      name, kFullMask, &operand,
      [](void* const* lanes, std::uint32_t /*members*/) {
        Vote r = *static_cast<Vote*>(lanes[0]);
        for (int l = 0; l < 32; ++l) {
          const std::int32_t x = static_cast<Vote*>(lanes[l])->in;
          r.add = static_cast<std::int32_t>(static_cast<std::uint32_t>(r.add) +
                                            static_cast<std::uint32_t>(x));
          r.min = l == 0 || x < r.min ? x : r.min;
          r.max = l == 0 || x > r.max ? x : r.max;
          r.ballot |= (x != 0 ? 1U : 0U) << l;
        }
        for (int l = 0; l < 32; ++l) {
          *static_cast<Vote*>(lanes[l]) = r;
        }
      },
      false, where);
  return operand;
}

}  // namespace detail

inline void sync_warp(std::uint32_t mask = kFullMask TESSERA_WHERE) {
  warp_collective("sync_warp", mask, nullptr, nullptr, true, where);
}
template <int width = 32, class T>
T shfl_xor(T v, int lane_mask TESSERA_WHERE) {
  const int source = lane() ^ lane_mask;
  // CUDA lets xor read a lower segment, never a higher one.
  return detail::shuffle("shfl_xor", v,
                         (source & -width) > (lane() & -width) ? lane() : source & 31, kFullMask,
                         where);
}
template <int width = 32, class T>
T shfl_down(T v, unsigned delta TESSERA_WHERE) {
  const int source = lane() + static_cast<int>(delta);
  return detail::shuffle("shfl_down", v, (source & -width) != (lane() & -width) ? lane() : source,
                         kFullMask, where);
}
template <int width = 32, class T>
T shfl_up(T v, unsigned delta TESSERA_WHERE) {
  const int source = lane() - static_cast<int>(delta);
  return detail::shuffle("shfl_up", v, source < (lane() & -width) ? lane() : source, kFullMask,
                         where);
}
template <int width = 32, class T>
T shfl_idx(T v, int source TESSERA_WHERE) {
  return detail::shuffle("shfl_idx", v, (lane() & -width) | (source & (width - 1)), kFullMask,
                         where);
}
inline std::uint32_t ballot(bool p TESSERA_WHERE) {
  return detail::vote("ballot", p ? 1 : 0, where).ballot;
}
inline bool any(bool p TESSERA_WHERE) { return detail::vote("any", p ? 1 : 0, where).ballot != 0; }
inline bool all(bool p TESSERA_WHERE) {
  return detail::vote("all", p ? 1 : 0, where).ballot == kFullMask;
}
inline std::int32_t reduce_add(std::int32_t v TESSERA_WHERE) {
  return detail::vote("reduce_add", v, where).add;
}
inline std::int32_t reduce_min(std::int32_t v TESSERA_WHERE) {
  return detail::vote("reduce_min", v, where).min;
}
inline std::int32_t reduce_max(std::int32_t v TESSERA_WHERE) {
  return detail::vote("reduce_max", v, where).max;
}
/// The lanes that hold the same value as this one.
inline std::uint32_t match_any(std::uint32_t v TESSERA_WHERE) {
  struct Match {
    std::uint32_t in, equal;
  } operand{v, 0};
  warp_collective(
      "match_any", kFullMask, &operand,
      [](void* const* lanes, std::uint32_t /*members*/) {
        for (int l = 0; l < 32; ++l) {
          for (int other = 0; other < 32; ++other) {
            auto* o = static_cast<Match*>(lanes[l]);
            o->equal |= (static_cast<Match*>(lanes[other])->in == o->in ? 1U : 0U) << other;
          }
        }
      },
      false, where);
  return operand.equal;
}

// ---- global memory ----
template <class V>
V ldg(const V* p TESSERA_WHERE) {
  static_assert(sizeof(V) <= 16);
  V v;
  load_global(&v, p, sizeof(V), where);
  return v;
}
template <class V>
void stg(V* p, V v TESSERA_WHERE) {
  static_assert(sizeof(V) <= 16);
  store_global(p, &v, sizeof(V), where);
}
inline void fence(TESSERA_WHERE_ONLY) { fence_device(where); }
inline std::uint32_t load_acquire(const std::uint32_t* p TESSERA_WHERE) {
  return load_acquire_u32(p, where);
}
inline void store_release(std::uint32_t* p, std::uint32_t v TESSERA_WHERE) {
  store_release_u32(p, v, where);
}

inline std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v TESSERA_WHERE) {
  return atomic_add_u32(p, v, where);
}
inline std::int32_t atomic_add(std::int32_t* p, std::int32_t v TESSERA_WHERE) {
  return static_cast<std::int32_t>(
      atomic_add_u32(reinterpret_cast<std::uint32_t*>(p), static_cast<std::uint32_t>(v), where));
}
inline std::uint64_t atomic_add(std::uint64_t* p, std::uint64_t v TESSERA_WHERE) {
  return atomic_add_u64(p, v, where);
}
inline std::uint32_t atomic_max(std::uint32_t* p, std::uint32_t v TESSERA_WHERE) {
  return atomic_max_u32(p, v, where);
}
inline std::uint32_t atomic_min(std::uint32_t* p, std::uint32_t v TESSERA_WHERE) {
  return atomic_min_u32(p, v, where);
}
inline std::uint32_t atomic_exchange(std::uint32_t* p, std::uint32_t v TESSERA_WHERE) {
  return atomic_exchange_u32(p, v, where);
}
inline std::uint32_t atomic_cas(std::uint32_t* p, std::uint32_t expected,
                                std::uint32_t v TESSERA_WHERE) {
  return atomic_cas_u32(p, expected, v, where);
}

// ---- tensor cores and asynchronous copies ----
namespace detail {
inline void run_mma(MmaShape shape, MmaOperand o, Acc<16, 8>& d, Where where) {
  for (int i = 0; i < 4; ++i) {
    o.c[i] = d.c[i];
  }
  mma(shape, o, where);
  for (int i = 0; i < 4; ++i) {
    d.c[i] = o.c[i];
  }
}
}  // namespace detail

inline void mma_m16n8k16(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2] TESSERA_WHERE) {
  detail::run_mma(MmaShape::m16n8k16_bf16, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {}}, d, where);
}
inline void mma_m16n8k16_f16(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2] TESSERA_WHERE) {
  detail::run_mma(MmaShape::m16n8k16_f16, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {}}, d, where);
}
inline void mma_m16n8k8(Acc<16, 8>& d, const std::uint32_t (&a)[2], std::uint32_t b TESSERA_WHERE) {
  detail::run_mma(MmaShape::m16n8k8_bf16, {{a[0], a[1], 0, 0}, {b, 0}, {}}, d, where);
}
inline void mma_m16n8k8_tf32(Acc<16, 8>& d, const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2] TESSERA_WHERE) {
  detail::run_mma(MmaShape::m16n8k8_tf32, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {}}, d, where);
}
inline std::uint32_t ldmatrix_x1(const void* row TESSERA_WHERE) {
  std::uint32_t r = 0;
  load_matrix(&r, row, 1, false, where);
  return r;
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row TESSERA_WHERE) {
  load_matrix(r, row, 4, true, where);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row TESSERA_WHERE) {
  load_matrix(r, row, 4, false, where);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row TESSERA_WHERE) {
  load_matrix(r, row, 2, false, where);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row TESSERA_WHERE) {
  load_matrix(r, row, 2, true, where);
}
template <int bytes>
void cp_async(void* target, const void* source, unsigned source_bytes = bytes TESSERA_WHERE) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  copy_async(target, source, bytes, source_bytes, where);
}
inline void cp_async_commit() { copy_async_commit(); }
template <int pending>
void cp_async_wait(TESSERA_WHERE_ONLY) {
  copy_async_wait(pending, where);
}

// ---- arithmetic ----
inline float fma(float a, float b, float c) {
  count(&LaunchStats::fused);
  return __builtin_fmaf(a, b, c);
}
inline float add(float a, float b) { return a + b; }
inline float rsqrt(float x) {
  count(&LaunchStats::special_functions);
  return approximate(static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))));
}
inline float rcp(float x) {
  count(&LaunchStats::special_functions);
  return approximate(static_cast<float>(1.0 / static_cast<double>(x)));
}
inline float ex2(float x) {
  count(&LaunchStats::exponentials);
  return approximate(static_cast<float>(std::exp2(static_cast<double>(x))));
}
inline float lg2(float x) {
  count(&LaunchStats::special_functions);
  return approximate(static_cast<float>(std::log2(static_cast<double>(x))));
}
inline float max(float a, float b) {
  count(&LaunchStats::extrema);
  return a > b || b != b || (a == b && !__builtin_signbit(a)) ? a : b;
}
inline float min(float a, float b) {
  count(&LaunchStats::extrema);
  return a < b || b != b || (a == b && __builtin_signbit(a)) ? a : b;
}
inline std::uint32_t pack_bf16x2(float low, float high) {
  return bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16;
}

#endif

}  // namespace tessera::TESSERA_GPU_NS
