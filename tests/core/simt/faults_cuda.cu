#include "core/gpu/warp.cuh"
#include "tests/core/simt/faults.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

struct Smem {
  float tile[64];
};

// y[i] = x[i] + x[partner] through shared memory; the partner sits in the other warp.
template <bool broken>
TESSERA_GLOBAL void missing_block_barrier(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  s.tile[i] = ldg(x.data + i);
  if (!broken) {
    sync_block();
  }
  stg(y.data + i, s.tile[63 - i] + s.tile[i]);
}

// The partner sits in the same warp; a shuffle between does not order memory.
template <bool broken>
TESSERA_GLOBAL void missing_warp_sync(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  s.tile[i] = ldg(x.data + i);
  const float own = shfl_xor(s.tile[i], 0);
  if (!broken) {
    sync_warp();
  }
  stg(y.data + i, s.tile[i ^ 1] + own);
}

template <bool broken>
TESSERA_GLOBAL void divergent_barrier(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  if (!broken || i < 32) {
    sync_block();
  }
  stg(y.data + i, 2 * ldg(x.data + i));
  if (broken && i >= 32) {
    shfl_xor(0, 1);
    sync_block();
  }
}

template <bool broken>
TESSERA_GLOBAL void early_return(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  if (broken && i == 40) {
    return;
  }
  sync_block();
  stg(y.data + i, 2 * ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void wrong_mask(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  sync_warp(broken && lane() == 7 ? 0xfffffffeU : kFullMask);
  stg(y.data + i, 2 * ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void exited_lane(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  if (broken && lane() == 31) {
    return;
  }
  stg(y.data + i, shfl_xor(ldg(x.data + i), 1));
}

template <bool broken>
TESSERA_GLOBAL void divergent_shuffle(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  float v = ldg(x.data + i);
  if (broken && lane() < 16) {
    v = shfl_xor(v, 1);
  } else {
    v = shfl_down(v, 1);
  }
  stg(y.data + i, v);
}

template <bool broken>
TESSERA_GLOBAL void shared_overflow(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  s.tile[i + (broken ? 1 : 0)] = ldg(x.data + i);
  sync_block();
  stg(y.data + i, s.tile[i + (broken ? 1 : 0)]);
}

template <bool broken>
TESSERA_GLOBAL void global_past_end(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  stg(y.data + i, ldg(x.data + i + (broken ? 1 : 0)));
}

template <bool broken>
TESSERA_GLOBAL void red_zone_write(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  stg(y.data + i - (broken ? 1 : 0), ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void unwritten_shared(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  if (!broken || i < 60) {
    s.tile[i] = ldg(x.data + i);
  }
  sync_block();
  stg(y.data + i, s.tile[63 - i]);
}

// y is freshly allocated: its old value must not be read.
template <bool broken>
TESSERA_GLOBAL void unwritten_global(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  const float old = broken ? ldg(y.data + i) : 0.0F;
  stg(y.data + i, old + ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void two_blocks_one_word(View<const float, 1> x, View<float, 1> y) {
  const int block = static_cast<int>(block_idx().x);
  const int i = linear_thread() + (broken ? 0 : 32 * block);
  stg(y.data + i, ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void plain_read(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  stg(y.data + i, ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void misaligned_load(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  if (i < 15) {
    const auto v = ldg(reinterpret_cast<const Float4*>(x.data + 4 * i + (broken ? 1 : 0)));
    stg(y.data + i, v.x);
  }
}

// Plain C++ on device memory is seen by the hooks, which also check its bounds.
template <bool broken>
TESSERA_GLOBAL void plain_global_write(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  y(i + (broken ? 128 : 0)) = x(i);
}

template <bool broken>
TESSERA_GLOBAL void named_barrier_count(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  bar_sync(1, broken && i >= 32 ? 32 : 64);
  stg(y.data + i, ldg(x.data + i));
}

// Two committed groups; the reader needs both.
template <bool broken, bool any_wait>
TESSERA_GLOBAL void async_copy(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  if (i < 32) {
    cp_async<4>(&s.tile[i], x.data + i);
    cp_async_commit();
    cp_async<4>(&s.tile[i + 32], x.data + i + 32, i == 31 ? 0 : 4);
    cp_async_commit();
  }
  if (!broken) {
    cp_async_wait<0>();
  } else if (any_wait) {
    cp_async_wait<1>();
  }
  sync_block();
  stg(y.data + i, s.tile[63 - i]);
}

template <bool broken>
TESSERA_GLOBAL void divergent_mma(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  Acc<16, 8> acc{};
  const std::uint32_t a[4] = {};
  const std::uint32_t b[2] = {};
  if (!broken || lane() != 3) {
    mma_m16n8k16(acc, a, b);
  }
  stg(y.data + i, acc.c[0] + ldg(x.data + i));
}

template <bool broken>
TESSERA_GLOBAL void ldmatrix_off_by_one(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);  // 8 rows of 16 bytes are 32 floats; two tiles fill it
  const int i = linear_thread();
  s.tile[i] = ldg(x.data + i);
  sync_block();
  std::uint32_t r[2];
  ldmatrix_x2(r, &s.tile[4 * (lane() & 15) + (broken ? 4 : 0)]);
  stg(y.data + i, static_cast<float>(r[0] & 1U));
}

// The block that draws the last ticket adds what both left in y and puts the ticket back.
template <bool release, bool acquire>
TESSERA_GLOBAL void last_block(View<const float, 1> x, View<float, 1> y) {
  auto* ticket = reinterpret_cast<std::uint32_t*>(y.data + 64);
  const float sum = sum_over_warp(ldg(x.data + 32 * block_idx().x + lane()));
  if (lane() != 0) {
    return;
  }
  stg(y.data + block_idx().x, sum);
  if (release) {
    fence();
  }
  if (atomic_add(ticket, 1U) == grid_dim().x - 1) {
    if (acquire) {
      fence();
    }
    stg(y.data + 2, ldg(y.data) + ldg(y.data + 1));
    stg(ticket, 0U);
  }
}

// One buffer, filled twice: the second copy may start when all have read the first.
template <bool broken>
TESSERA_GLOBAL void early_async_refill(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    cp_async<4>(&s.tile[i], x.data + i);
    cp_async_commit();
    cp_async_wait<0>();
    sync_block();
    sum += s.tile[63 - i];
    if (!broken) {
      sync_block();
    }
  }
  stg(y.data + i, sum);
}

template <bool divergent, int shift>
TESSERA_GLOBAL void load_tile(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  s.tile[i] = ldg(x.data + i);
  sync_block();
  std::uint32_t r[2] = {};
  if (!divergent || lane() < 16) {
    ldmatrix_x2(r, &s.tile[4 * (lane() & 7) + shift]);
  }
  stg(y.data + i, static_cast<float>(r[0] & 1U));
}

// Two shapes of mma at one point of the program.
template <bool broken>
TESSERA_GLOBAL void mixed_mma(View<const float, 1> x, View<float, 1> y) {
  const int i = linear_thread();
  Acc<16, 8> acc{};
  const std::uint32_t a[4] = {};
  const std::uint32_t narrow[2] = {};
  if (broken && lane() % 2 == 0) {
    mma_m16n8k8(acc, narrow, 0);
  } else {
    mma_m16n8k16(acc, a, narrow);
  }
  stg(y.data + i, acc.c[0] + ldg(x.data + i));
}

using PlainKernel = void (*)(View<const float, 1>, View<float, 1>);

template <bool broken>
PlainKernel kernel_of(Fault fault) {
  switch (fault) {
    case Fault::missing_block_barrier:
      return missing_block_barrier<broken>;
    case Fault::missing_warp_sync:
      return missing_warp_sync<broken>;
    case Fault::divergent_barrier:
      return divergent_barrier<broken>;
    case Fault::early_return:
      return early_return<broken>;
    case Fault::wrong_mask:
      return wrong_mask<broken>;
    case Fault::exited_lane:
      return exited_lane<broken>;
    case Fault::divergent_shuffle:
      return divergent_shuffle<broken>;
    case Fault::shared_overflow:
      return shared_overflow<broken>;
    case Fault::global_past_end:
      return global_past_end<broken>;
    case Fault::red_zone_write:
      return red_zone_write<broken>;
    case Fault::unwritten_shared:
      return unwritten_shared<broken>;
    case Fault::unwritten_global:
      return unwritten_global<broken>;
    case Fault::two_blocks_one_word:
      return two_blocks_one_word<broken>;
    case Fault::host_pointer:
      return plain_read<broken>;
    case Fault::misaligned_load:
      return misaligned_load<broken>;
    case Fault::plain_global_write:
      return plain_global_write<broken>;
    case Fault::named_barrier_count:
      return named_barrier_count<broken>;
    case Fault::missing_async_wait:
      return async_copy<broken, false>;
    case Fault::wrong_async_wait:
      return async_copy<broken, true>;
    case Fault::divergent_mma:
      return divergent_mma<broken>;
    case Fault::ldmatrix_off_by_one:
      return ldmatrix_off_by_one<broken>;
    case Fault::missing_release:
      return last_block<!broken, true>;
    case Fault::missing_acquire:
      return last_block<true, !broken>;
    case Fault::unset_ticket:
      return last_block<true, true>;
    case Fault::early_async_refill:
      return early_async_refill<broken>;
    case Fault::divergent_ldmatrix:
      return load_tile<broken, 0>;
    case Fault::misaligned_ldmatrix:
      return load_tile < false, broken ? 1 : 0 > ;
    case Fault::mixed_mma:
      return mixed_mma<broken>;
    case Fault::wrong_smem_bytes:
      return missing_block_barrier<false>;
  }
  return nullptr;
}

TESSERA_GLOBAL void warp_sums_kernel(View<const float, 1> x, View<float, 1> y) {
  float v = ldg(x.data + linear_thread());
  for (int step = 16; step > 0; step /= 2) {
    v += shfl_xor(v, step);
  }
  stg(y.data + linear_thread(), v);
}

TESSERA_GLOBAL void reverse_kernel(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  const std::int64_t n = x.shape[0];
  const std::int64_t at = static_cast<std::int64_t>(block_idx().x) * 64;
  if (at + i < n) {
    s.tile[i] = ldg(x.data + at + i);
  }
  sync_block();
  const std::int64_t here = n - at < 64 ? n - at : 64;
  if (i < here) {
    stg(y.data + n - at - here + i, s.tile[here - 1 - i]);
  }
}

TESSERA_GLOBAL void votes_kernel(View<const float, 1> x, View<float, 1> y) {
  const bool positive = ldg(x.data + linear_thread()) > 0;
  const int count = sync_block_count(positive);
  const bool every = sync_block_and(positive);
  const bool some = sync_block_or(positive);
  const std::uint32_t bits = ballot(positive);
  if (linear_thread() == 0) {
    stg(y.data, static_cast<float>(count));
    stg(y.data + 1, every ? 1.0F : 0.0F);
    stg(y.data + 2, some ? 1.0F : 0.0F);
    stg(y.data + 3, static_cast<float>(bits & 0xffU));
  }
}

TESSERA_GLOBAL void strided_copy_kernel(View<const float, 1> x, View<float, 1> y, int stride) {
  const int i = linear_thread();
  stg(y.data + i, ldg(x.data + i * stride));
}

TESSERA_GLOBAL void count_threads_kernel(View<std::int32_t, 1> total) { atomic_add(total.data, 1); }

TESSERA_GLOBAL void named_handover_kernel(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(Smem, s);
  const int i = linear_thread();
  if (warp() == 0) {
    s.tile[i] = ldg(x.data + i);
    s.tile[i + 32] = ldg(x.data + i + 32);
    bar_arrive(2, 64);
  } else {
    bar_sync(2, 64);
    stg(y.data + i - 32, 2 * s.tile[i - 32]);
    stg(y.data + i, 2 * s.tile[i]);
  }
}

struct TileSmem {
  alignas(16) std::uint16_t a[16][16];
  alignas(16) std::uint16_t b[16][8];
};

TESSERA_GLOBAL void tile_product_kernel(View<const std::uint16_t, 1> a,
                                        View<const std::uint16_t, 1> b, View<float, 1> c) {
  TESSERA_SMEM(TileSmem, s);
  const int l = lane();
  cp_async<16>(&s.a[l / 2][l % 2 * 8], a.data + 8 * l);
  if (l < 16) {
    cp_async<16>(&s.b[l][0], b.data + 8 * l);
  }
  cp_async_commit();
  cp_async_wait<0>();
  sync_block();
  std::uint32_t fa[4];
  std::uint32_t fb[2];
  ldmatrix_x4(
      fa, &s.a[l % 16][l / 16 * 8]);  // tiles: rows 0-7, 8-15 of the left half, then of the right
  ldmatrix_x2_trans(fb, &s.b[l % 16][0]);
  Acc<16, 8> acc{};
  mma_m16n8k16(acc, fa, fb);
  for (int i = 0; i < 4; ++i) {
    const int row = l / 4 + (i >= 2 ? 8 : 0);
    stg(c.data + row * 8 + l % 4 * 2 + i % 2, acc.c[i]);
  }
}

}  // namespace

void run_fault(Fault fault, bool broken, View<const float, 1> x, View<float, 1> y) {
  const bool two_blocks = fault == Fault::two_blocks_one_word || fault == Fault::missing_release ||
                          fault == Fault::missing_acquire || fault == Fault::unset_ticket;
  const LaunchConfig config{"planted",
                            {two_blocks ? 2U : 1U},
                            {two_blocks ? 32U : 64U},
                            sizeof(Smem) + (broken && fault == Fault::wrong_smem_bytes ? 4 : 0)};
  launch(broken ? kernel_of<true>(fault) : kernel_of<false>(fault), config, x, y);
}

void warp_sums(View<const float, 1> x, View<float, 1> y) {
  launch(warp_sums_kernel, {"warp_sums", {1}, {64}}, x, y);
}
void reverse(View<const float, 1> x, View<float, 1> y) {
  const auto blocks = static_cast<unsigned>((x.shape[0] + 63) / 64);
  launch(reverse_kernel, {"reverse", {blocks}, {64}, sizeof(Smem)}, x, y);
}
void votes(View<const float, 1> x, View<float, 1> y) {
  launch(votes_kernel, {"votes", {1}, {64}}, x, y);
}
void strided_copy(View<const float, 1> x, View<float, 1> y, int stride) {
  launch(strided_copy_kernel, {"strided_copy", {1}, {32}}, x, y, stride);
}
void count_threads(View<std::int32_t, 1> total) {
  launch(count_threads_kernel, {"count_threads", {4}, {32}}, total);
}
void named_handover(View<const float, 1> x, View<float, 1> y) {
  launch(named_handover_kernel, {"named_handover", {1}, {64}, sizeof(Smem)}, x, y);
}

void tile_product(View<const std::uint16_t, 1> a, View<const std::uint16_t, 1> b,
                  View<float, 1> c) {
  launch(tile_product_kernel, {"tile_product", {1}, {32}, sizeof(TileSmem)}, a, b, c);
}

}  // namespace tessera::TESSERA_GPU_NS
