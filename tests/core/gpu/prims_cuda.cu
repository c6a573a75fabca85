// One kernel per primitive, compiled to PTX by prims_test.cmake, which reads the mnemonics.
#include "core/gpu/prim.cuh"

namespace tessera::TESSERA_GPU_NS {

extern "C" {
__global__ void p_sync_block() { sync_block(); }
__global__ void p_bar_sync() { bar_sync(1, 64); }
__global__ void p_bar_arrive() { bar_arrive(1, 64); }
__global__ void p_sync_warp() { sync_warp(); }
__global__ void p_shfl_xor(float* p) { *p = shfl_xor(*p, 1); }
__global__ void p_shfl_down(float* p) { *p = shfl_down(*p, 1); }
__global__ void p_shfl_up(float* p) { *p = shfl_up(*p, 1); }
__global__ void p_shfl_idx(float* p) { *p = shfl_idx(*p, 1); }
__global__ void p_ballot(unsigned* p) { *p = ballot(*p != 0); }
__global__ void p_reduce_add(int* p) { *p = reduce_add(*p); }
__global__ void p_reduce_min(int* p) { *p = reduce_min(*p); }
__global__ void p_reduce_max(int* p) { *p = reduce_max(*p); }
__global__ void p_any(unsigned* p) { *p = any(*p != 0); }
__global__ void p_all(unsigned* p) { *p = all(*p != 0); }
__global__ void p_match_any(unsigned* p) { *p = match_any(*p); }
__global__ void p_sync_block_count(int* p) { *p = sync_block_count(*p != 0); }
__global__ void p_sync_block_and(int* p) { *p = sync_block_and(*p != 0); }
__global__ void p_sync_block_or(int* p) { *p = sync_block_or(*p != 0); }
__global__ void p_atomic_add_u64(std::uint64_t* p) { p[1] = atomic_add(p, p[2]); }
__global__ void p_atomic_add_s32(int* p) { p[1] = atomic_add(p, 3); }
__global__ void p_atomic_max(unsigned* p) { p[1] = atomic_max(p, 3U); }
__global__ void p_atomic_min(unsigned* p) { p[1] = atomic_min(p, 3U); }
__global__ void p_atomic_exchange(unsigned* p) { p[1] = atomic_exchange(p, 3U); }
__global__ void p_atomic_cas(unsigned* p) { p[1] = atomic_cas(p, 1U, 3U); }
__global__ void p_load_acquire(unsigned* p) { p[1] = load_acquire(p); }
__global__ void p_store_release(unsigned* p) { store_release(p, 3U); }
__global__ void p_pack_bf16x2(unsigned* q, const float* p) { *q = pack_bf16x2(p[0], p[1]); }
__global__ void p_ldg(Float4* p, const Float4* q) { stg(p, ldg(q)); }
__global__ void p_fma(float* p) { *p = fma(p[1], p[2], p[3]); }
__global__ void p_add(float* p) { *p = add(p[1], p[2]); }
__global__ void p_max(float* p) { *p = max(p[1], p[2]); }
__global__ void p_min(float* p) { *p = min(p[1], p[2]); }
__global__ void p_rsqrt(float* p) { *p = rsqrt(p[1]); }
__global__ void p_rcp(float* p) { *p = rcp(p[1]); }
__global__ void p_ex2(float* p) { *p = ex2(p[1]); }
__global__ void p_lg2(float* p) { *p = lg2(p[1]); }
__global__ void p_atomic_add(unsigned* p) { p[1] = atomic_add(p, 3U); }
__global__ void p_fence(int* p) {
  p[0] = 1;
  fence();
  p[1] = 2;
}
__global__ void p_mma(float* p, unsigned* q) {
  Acc<16, 8> acc{{p[0], p[1], p[2], p[3]}};
  const std::uint32_t a[4] = {q[0], q[1], q[2], q[3]};
  const std::uint32_t b[2] = {q[4], q[5]};
  mma_m16n8k16(acc, a, b);
  p[0] = acc.c[0];
}
__global__ void p_mma_f16(float* p, unsigned* q) {
  Acc<16, 8> acc{{p[0], p[1], p[2], p[3]}};
  const std::uint32_t a[4] = {q[0], q[1], q[2], q[3]};
  const std::uint32_t b[2] = {q[4], q[5]};
  mma_m16n8k16_f16(acc, a, b);
  p[0] = acc.c[0];
}
__global__ void p_mma_k8(float* p, unsigned* q) {
  Acc<16, 8> acc{{p[0], p[1], p[2], p[3]}};
  const std::uint32_t a[2] = {q[0], q[1]};
  mma_m16n8k8(acc, a, q[2]);
  p[0] = acc.c[0];
}
__global__ void p_mma_tf32(float* p, unsigned* q) {
  Acc<16, 8> acc{{p[0], p[1], p[2], p[3]}};
  const std::uint32_t a[4] = {q[0], q[1], q[2], q[3]};
  const std::uint32_t b[2] = {q[4], q[5]};
  mma_m16n8k8_tf32(acc, a, b);
  p[0] = acc.c[0];
}
struct Smem {
  alignas(16) float tile[128];
};
__global__ void p_ldmatrix_x4(unsigned* q) {
  TESSERA_SMEM(Smem, s);
  std::uint32_t r[4];
  ldmatrix_x4(r, s.tile);
  *q = r[0] + r[1] + r[2] + r[3];
}
__global__ void p_ldmatrix_x2_trans(unsigned* q) {
  TESSERA_SMEM(Smem, s);
  std::uint32_t r[2];
  ldmatrix_x2_trans(r, s.tile);
  *q = r[0] + r[1];
}
__global__ void p_ldmatrix_x1(unsigned* q) {
  TESSERA_SMEM(Smem, s);
  *q = ldmatrix_x1(s.tile);
}
__global__ void p_ldmatrix_x2(unsigned* q) {
  TESSERA_SMEM(Smem, s);
  std::uint32_t r[2];
  ldmatrix_x2(r, s.tile);
  *q = r[0] + r[1];
}
__global__ void p_ldmatrix_x4_trans(unsigned* q) {
  TESSERA_SMEM(Smem, s);
  std::uint32_t r[4];
  ldmatrix_x4_trans(r, s.tile);
  *q = r[0] + r[1] + r[2] + r[3];
}
__global__ void p_cp_async(const float* p, unsigned n) {
  TESSERA_SMEM(Smem, s);
  cp_async<16>(s.tile, p, n);
  cp_async<4>(s.tile + 8, p + 8, n);
  cp_async_commit();
  cp_async_wait<1>();
}
}

}  // namespace tessera::TESSERA_GPU_NS
