#include "core/gpu/warp.cuh"
#include "tests/core/simt/semantics.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

struct Words {
  alignas(16) std::uint32_t word[128];
};

TESSERA_DEVICE float as_float(std::uint32_t w) { return std::bit_cast<float>(w); }
TESSERA_DEVICE std::uint32_t as_word(float x) { return std::bit_cast<std::uint32_t>(x); }

TESSERA_DEVICE std::uint32_t one_word(Prim prim, std::uint32_t v) {
  const auto s = static_cast<std::int32_t>(v);
  const float f = as_float(v);
  switch (prim) {
    case Prim::shfl_xor_8:
      return shfl_xor<8>(v, 5);
    case Prim::shfl_down_16:
      return shfl_down<16>(v, 3);
    case Prim::shfl_up_4:
      return shfl_up<4>(v, 1);
    case Prim::shfl_idx_8:
      return shfl_idx<8>(v, 6);
    case Prim::ballot:
      return ballot(s > 0);
    case Prim::any:
      return any(s == 7) ? 1U : 0U;
    case Prim::all:
      return all(s > -100) ? 1U : 0U;
    case Prim::reduce_add:
      return static_cast<std::uint32_t>(reduce_add(s));
    case Prim::reduce_min:
      return static_cast<std::uint32_t>(reduce_min(s));
    case Prim::reduce_max:
      return static_cast<std::uint32_t>(reduce_max(s));
    case Prim::match_any:
      return match_any(v);
    case Prim::pack_bf16x2:
      return pack_bf16x2(f, -f);
    case Prim::fma:
      return as_word(fma(f, f, -1.0F));
    case Prim::add:
      return as_word(add(f, 1.0F));
    case Prim::ex2:
      return as_word(ex2(f));
    case Prim::lg2:
      return as_word(lg2(f));
    case Prim::rsqrt:
      return as_word(rsqrt(f));
    case Prim::rcp:
      return as_word(rcp(f));
    case Prim::max:
      return as_word(max(f, shfl_xor(f, 1)));
    case Prim::min:
      return as_word(min(f, shfl_xor(f, 1)));
    default:
      return 0;
  }
}

TESSERA_DEVICE std::uint32_t one_atomic(Prim prim, std::uint32_t* at, std::uint32_t v) {
  switch (prim) {
    case Prim::atomic_add:
      return atomic_add(at, v);
    case Prim::atomic_add_signed:
      return static_cast<std::uint32_t>(
          atomic_add(reinterpret_cast<std::int32_t*>(at), static_cast<std::int32_t>(v)));
    case Prim::atomic_max:
      return atomic_max(at, v);
    case Prim::atomic_min:
      return atomic_min(at, v);
    case Prim::atomic_exchange:
      return atomic_exchange(at, v);
    default:
      return atomic_cas(at, 10U, v);
  }
}

TESSERA_GLOBAL void word_kernel(Prim prim, View<const std::uint32_t, 1> x,
                                View<std::uint32_t, 1> y) {
  stg(y.data + 4 * lane(), one_word(prim, ldg(x.data + lane())));
}

TESSERA_GLOBAL void atomic_kernel(Prim prim, View<const std::uint32_t, 1> x,
                                  View<std::uint32_t, 1> y) {
  stg(y.data + 4 * lane(), one_atomic(prim, y.data + 128, ldg(x.data + lane())));
}

// Lane l copies `bytes` at word 4 l, all of it but for odd lanes: those take half and zeros.
template <int bytes>
TESSERA_GLOBAL void copy_kernel(View<const std::uint32_t, 1> x, View<std::uint32_t, 1> y) {
  TESSERA_SMEM(Words, s);
  for (int i = 0; i < 4; ++i) {
    s.word[4 * lane() + i] = 99;
  }
  cp_async<bytes>(&s.word[4 * lane()], x.data + 4 * lane(), lane() % 2 == 0 ? bytes : bytes / 2);
  cp_async_commit();
  cp_async_wait<0>();
  sync_warp();
  for (int i = 0; i < 4; ++i) {
    stg(y.data + 4 * lane() + i, s.word[4 * lane() + i]);
  }
}

// x holds four 8x8 tiles of 16-bit elements, 4 words a row; lane l names row l % 8 of tile l / 8.
TESSERA_GLOBAL void matrix_kernel(Prim prim, View<const std::uint32_t, 1> x,
                                  View<std::uint32_t, 1> y) {
  TESSERA_SMEM(Words, s);
  for (int i = lane(); i < 128; i += 32) {
    s.word[i] = ldg(x.data + i);
  }
  sync_warp();
  const void* row = &s.word[4 * lane()];
  std::uint32_t four[4] = {};
  std::uint32_t two[2] = {};
  switch (prim) {
    case Prim::ldmatrix_x1:
      four[0] = ldmatrix_x1(row);
      break;
    case Prim::ldmatrix_x4:
      ldmatrix_x4(four, row);
      break;
    case Prim::ldmatrix_x4_trans:
      ldmatrix_x4_trans(four, row);
      break;
    case Prim::ldmatrix_x2:
      ldmatrix_x2(two, row);
      break;
    default:
      ldmatrix_x2_trans(two, row);
      break;
  }
  const bool pair = prim == Prim::ldmatrix_x2 || prim == Prim::ldmatrix_x2_trans;
  for (int i = 0; i < 4; ++i) {
    stg(y.data + 4 * lane() + i, pair ? (i < 2 ? two[i] : 0U) : four[i]);
  }
}

// Small integers in IEEE binary16.
TESSERA_DEVICE std::uint32_t half_bits(float x) {
  if (x == 0.0F) {
    return 0;
  }
  const std::uint32_t w = as_word(x);
  return (w >> 16 & 0x8000U) | ((w >> 23 & 255U) - 112U) << 10 | (w >> 13 & 1023U);
}

TESSERA_DEVICE std::uint32_t pack(Tile tile, float low, float high) {
  return tile == Tile::m16n8k16_f16 ? half_bits(low) | half_bits(high) << 16
                                    : pack_bf16x2(low, high);
}

// Registers by the fragment figures of the PTX ISA, "Matrix fragments for mma".
TESSERA_GLOBAL void mma_kernel(Tile tile, View<const float, 1> a, View<const float, 1> b,
                               View<const float, 1> c, View<float, 1> d) {
  const int group = lane() / 4;
  const int in_group = lane() % 4;
  const int k = tile == Tile::m16n8k16_bf16 || tile == Tile::m16n8k16_f16 ? 16 : 8;
  const auto at_a = [&](int row, int column) { return ldg(a.data + row * k + column); };
  const auto at_b = [&](int row, int column) { return ldg(b.data + row * 8 + column); };
  Acc<16, 8> acc;
  for (int i = 0; i < 4; ++i) {
    acc.c[i] = ldg(c.data + (group + i / 2 * 8) * 8 + in_group * 2 + i % 2);
  }
  if (tile == Tile::m16n8k8_tf32) {
    const std::uint32_t fa[4] = {as_word(at_a(group, in_group)), as_word(at_a(group + 8, in_group)),
                                 as_word(at_a(group, in_group + 4)),
                                 as_word(at_a(group + 8, in_group + 4))};
    const std::uint32_t fb[2] = {as_word(at_b(in_group, group)),
                                 as_word(at_b(in_group + 4, group))};
    mma_m16n8k8_tf32(acc, fa, fb);
  } else {
    std::uint32_t fa[4] = {};
    std::uint32_t fb[2] = {};
    for (int r = 0; r < k / 4; ++r) {
      const int row = group + r % 2 * 8;
      const int column = in_group * 2 + r / 2 * 8;
      fa[r] = pack(tile, at_a(row, column), at_a(row, column + 1));
    }
    for (int r = 0; r < k / 8; ++r) {
      const int row = in_group * 2 + r * 8;
      fb[r] = pack(tile, at_b(row, group), at_b(row + 1, group));
    }
    const std::uint32_t narrow[2] = {fa[0], fa[1]};
    if (tile == Tile::m16n8k16_bf16) {
      mma_m16n8k16(acc, fa, fb);
    } else if (tile == Tile::m16n8k16_f16) {
      mma_m16n8k16_f16(acc, fa, fb);
    } else {
      mma_m16n8k8(acc, narrow, fb[0]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    stg(d.data + (group + i / 2 * 8) * 8 + in_group * 2 + i % 2, acc.c[i]);
  }
}

TESSERA_GLOBAL void count_wide_kernel(View<std::uint64_t, 1> total) {
  atomic_add(total.data, static_cast<std::uint64_t>(global_thread()));
}

TESSERA_GLOBAL void hand_over_kernel(View<float, 1> value, View<std::uint32_t, 1> flag,
                                     View<float, 1> y) {
  if (lane() != 0) {
    return;
  }
  if (block_idx().x == 0) {
    stg(value.data, 42.0F);
    store_release(flag.data, 1U);
  } else {
    const bool up = load_acquire(flag.data) != 0;
    stg(y.data, up ? 1.0F : 0.0F);
    stg(y.data + 1, up ? ldg(value.data) : 0.0F);
  }
}

}  // namespace

void run_prim(Prim prim, View<const std::uint32_t, 1> x, View<std::uint32_t, 1> y) {
  const LaunchConfig plain{"prim", {1}, {32}};
  const LaunchConfig with_smem{"prim", {1}, {32}, sizeof(Words)};
  if (prim == Prim::cp_async_4) {
    launch(copy_kernel<4>, with_smem, x, y);
  } else if (prim == Prim::cp_async_8) {
    launch(copy_kernel<8>, with_smem, x, y);
  } else if (prim == Prim::cp_async_16) {
    launch(copy_kernel<16>, with_smem, x, y);
  } else if (prim >= Prim::ldmatrix_x1 && prim <= Prim::ldmatrix_x4_trans) {
    launch(matrix_kernel, with_smem, prim, x, y);
  } else if (prim >= Prim::atomic_add && prim <= Prim::atomic_cas) {
    launch(atomic_kernel, plain, prim, x, y);
  } else {
    launch(word_kernel, plain, prim, x, y);
  }
}

void run_mma_tile(Tile tile, View<const float, 1> a, View<const float, 1> b, View<const float, 1> c,
                  View<float, 1> d) {
  launch(mma_kernel, {"mma_tile", {1}, {32}}, tile, a, b, c, d);
}

void count_wide(View<std::uint64_t, 1> total) {
  launch(count_wide_kernel, {"count_wide", {2}, {32}}, total);
}

void hand_over(View<float, 1> value, View<std::uint32_t, 1> flag, View<float, 1> y) {
  launch(hand_over_kernel, {"hand_over", {2}, {32}}, value, flag, y);
}

}  // namespace tessera::TESSERA_GPU_NS
