// Kernels of known content, which pin the reader of machine code: what it must count and what it
// must find fault with. Never run.
#include "core/gpu/prim.cuh"

namespace tessera::TESSERA_GPU_NS {

struct PinSmem {
  alignas(16) float tile[256];
};

extern "C" {

// 5 + 2 + 1 mma, 3 ldmatrix, 2 cp.async in one group.
__global__ void pin_tensor(float* out, const float* in) {
  TESSERA_SMEM(PinSmem, s);
  cp_async<16>(&s.tile[4 * lane()], in + 4 * lane());
  cp_async<16>(&s.tile[4 * lane() + 128], in + 4 * lane() + 128);
  cp_async_commit();
  cp_async_wait<0>();
  sync_block();
  std::uint32_t a[4], more[4], b[2];
  ldmatrix_x4(a, &s.tile[4 * lane()]);
  ldmatrix_x4_trans(more, &s.tile[4 * lane()]);
  ldmatrix_x2(b, &s.tile[4 * lane()]);
  const std::uint32_t half[2] = {more[0], more[1]};
  Acc<16, 8> acc{};
  mma_m16n8k16(acc, a, b);
  mma_m16n8k16(acc, more, b);
  mma_m16n8k16(acc, a, half);
  mma_m16n8k16(acc, more, half);
  mma_m16n8k16(acc, a, b);
  mma_m16n8k16_f16(acc, a, b);
  mma_m16n8k16_f16(acc, more, b);
  mma_m16n8k8(acc, half, b[0]);
  for (int i = 0; i < 4; ++i) {
    stg(out + 4 * lane() + i, acc.c[i]);
  }
}

// 4 ex2, 2 rsqrt, 1 rcp, 1 lg2; 3 max, 2 min; 2 loads, 1 store.
__global__ void pin_arithmetic(float* out, const float* in) {
  const float x = ldg(in + lane());
  const float y = ldg(in + lane() + 32);
  float v = ex2(ex2(x)) + ex2(ex2(y)) + rsqrt(x) + rsqrt(y) + rcp(x) + lg2(y);
  v = max(max(max(v, x), y), 3.0F);
  stg(out + lane(), min(min(v, 9.0F), x + y));
}

// One product, one sum, one fma of doubles, which no kernel of ours may hold.
__global__ void pin_double(double* out) { *out = ::fma(out[1] * out[2] + out[3], out[4], out[5]); }

// An array that must live in local memory.
__global__ void pin_local(float* out, int n) {
  float v[64];
  for (int i = 0; i < 64; ++i) {
    v[i] = out[i];
  }
  out[0] = v[n] + v[n + 1];
  v[n + 2] = out[1];
  out[2] = v[n + 3];
}

// A floating-point atomic, which no kernel of ours may hold.
__global__ void pin_atomic(float* out) { out[1] = atomicAdd(out, 1.0F); }
}

}  // namespace tessera::TESSERA_GPU_NS
