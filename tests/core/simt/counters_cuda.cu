#include "core/gpu/warp.cuh"
#include "tests/core/simt/counters.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

TESSERA_GLOBAL void read_again_kernel(int passes, View<const float, 1> x, View<float, 1> y) {
  float first = 0;
  for (int pass = 0; pass < passes; ++pass) {
    for (std::int64_t i = linear_thread(); i < x.shape[0]; i += 64) {
      const float v = ldg(x.data + i);
      first += pass == 0 ? v : 0.0F;
    }
  }
  first = sum_over_warp(first);
  if (linear_thread() == 0) {
    stg(y.data + block_idx().x, first);
  }
}

TESSERA_GLOBAL void in_place_kernel(int passes, View<float, 1> y) {
  for (int pass = 0; pass < passes; ++pass) {
    stg(y.data + lane(), ldg(y.data + lane()) + 1.0F);
  }
}

TESSERA_GLOBAL void arithmetic_kernel(int n, View<float, 1> y) {
  float v = 1.0F;
  for (int i = 0; i < n; ++i) {
    v += lg2(v);
    v += rsqrt(v) + rsqrt(v + 1.0F);
    v += rcp(v) + rcp(v + 1.0F) + rcp(v + 2.0F);
    v = max(max(max(max(v, 1.0F), 2.0F), 3.0F), 4.0F);
    v = min(min(min(min(min(v, 9.0F), 8.0F), 7.0F), 6.0F), 5.0F);
    v = fma(fma(fma(fma(fma(fma(v, v, 1.0F), v, 1.0F), v, 1.0F), v, 1.0F), v, 1.0F), v, 1.0F);
    v = ex2(-v) + ex2(v - 1e9F) + ex2(0) + ex2(1) + ex2(2) + ex2(3) + ex2(4);
  }
  stg(y.data + lane(), v);
}

TESSERA_GLOBAL void tensor_shapes_kernel(int n, View<float, 1> y) {
  Acc<16, 8> acc{};
  const std::uint32_t four[4] = {}, two[2] = {};
  for (int i = 0; i < n; ++i) {
    mma_m16n8k16(acc, four, two);
  }
  for (int i = 0; i < 2 * n; ++i) {
    mma_m16n8k16_f16(acc, four, two);
  }
  for (int i = 0; i < 3 * n; ++i) {
    mma_m16n8k8(acc, two, 0U);
  }
  for (int i = 0; i < 4 * n; ++i) {
    mma_m16n8k8_tf32(acc, four, two);
  }
  stg(y.data + lane(), acc.c[0]);
}

struct CopySmem {
  alignas(16) float row[128];
};

TESSERA_GLOBAL void copy_in_kernel(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(CopySmem, s);
  cp_async<16>(&s.row[4 * lane()], x.data + 4 * lane(), lane() % 2 == 0 ? 16 : 8);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) {
    stg(y.data + 4 * lane() + i, s.row[4 * lane() + i]);
  }
}

}  // namespace

void read_again(int blocks, int passes, View<const float, 1> x, View<float, 1> y) {
  launch(read_again_kernel, {"read_again", {static_cast<unsigned>(blocks)}, {64}}, passes, x, y);
}
void in_place(int passes, View<float, 1> y) {
  launch(in_place_kernel, {"in_place", {1}, {32}}, passes, y);
}
void arithmetic(int n, View<float, 1> y) {
  launch(arithmetic_kernel, {"arithmetic", {1}, {32}}, n, y);
}
void tensor_shapes(int n, View<float, 1> y) {
  launch(tensor_shapes_kernel, {"tensor_shapes", {1}, {32}}, n, y);
}
void copy_in(View<const float, 1> x, View<float, 1> y) {
  launch(copy_in_kernel, {"copy_in", {1}, {32}, sizeof(CopySmem)}, x, y);
}

}  // namespace tessera::TESSERA_GPU_NS
