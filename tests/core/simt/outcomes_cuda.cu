#include "core/gpu/warp.cuh"
#include "tests/core/simt/outcomes.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

template <int width>
TESSERA_GLOBAL void warp_sum_kernel(View<const float, 1> x, View<float, 1> y) {
  float v = ldg(x.data + linear_thread());
  for (int step = width / 2; step > 0; step /= 2) {
    v += shfl_xor<width>(v, step);
  }
  stg(y.data + linear_thread(), v);
}

// A warp per jet; half a warp holds a tile of 16 rows.
template <bool broken>
TESSERA_GLOBAL void masked_mean_kernel(View<const float, 1> x, View<const std::int32_t, 1> offsets,
                                       View<float, 1> y) {
  const auto jet = static_cast<std::int64_t>(block_idx().x);
  const std::int32_t begin = ldg(offsets.data + jet);
  const std::int32_t end = ldg(offsets.data + jet + 1);
  float sum = 0;
  for (std::int32_t tile = begin; tile < end; tile += 16) {
    const std::int32_t row = tile + lane();
    const bool inside = lane() < 16 && (broken ? row < x.shape[0] : row < end);
    sum += inside ? ldg(x.data + row) : 0.0F;
  }
  sum = sum_over_warp(sum);
  if (lane() == 0) {
    stg(y.data + jet, end > begin ? sum / static_cast<float>(end - begin) : 0.0F);
  }
}

template <bool broken>
TESSERA_GLOBAL void jet_sums_kernel(View<const float, 1> x, View<const std::int32_t, 1> offsets,
                                    View<float, 1> y) {
  float sum = 0;
  for (std::int64_t jet = 0; jet < y.shape[0]; ++jet) {
    if (!broken) {
      sum = 0;
    }
    for (std::int32_t row = ldg(offsets.data + jet) + lane(); row < ldg(offsets.data + jet + 1);
         row += 32) {
      sum += ldg(x.data + row);
    }
    const float total = sum_over_warp(sum);
    if (lane() == 0) {
      stg(y.data + jet, total);
    }
  }
}

template <bool broken>
TESSERA_GLOBAL void last_block_sum_kernel(View<const float, 1> x, View<float, 1> partials,
                                          View<std::uint32_t, 1> ticket, View<float, 1> total) {
  const float sum = sum_over_warp(ldg(x.data + 32 * block_idx().x + lane()));
  if (lane() != 0) {
    return;
  }
  stg(partials.data + block_idx().x, sum);
  fence();
  if (atomic_add(ticket.data, 1U) != grid_dim().x - 1) {
    return;
  }
  fence();
  float merged = 0;
  for (unsigned b = 0; b < grid_dim().x; ++b) {
    merged += ldg(partials.data + b);
  }
  stg(total.data, merged);
  if (!broken) {
    stg(ticket.data, 0U);
  }
}

template <bool broken>
TESSERA_GLOBAL void slot_sum_kernel(View<const float, 1> x, View<float, 1> slots,
                                    View<std::uint32_t, 1> ticket, View<float, 1> total) {
  const auto i = static_cast<std::uint32_t>(linear_thread());
  const std::uint32_t drawn = atomic_add(ticket.data, 1U);
  stg(slots.data + (broken ? drawn : i), ldg(x.data + i));
  sync_block();
  if (i == 0) {
    float merged = 0;
    for (unsigned s = 0; s < block_dim().x; ++s) {
      merged += ldg(slots.data + s);
    }
    stg(total.data, merged);
    stg(ticket.data, 0U);
  }
}

TESSERA_GLOBAL void scale_kernel(float factor, View<const float, 1> x, View<float, 1> y) {
  stg(y.data + linear_thread(), factor * ldg(x.data + linear_thread()));
}

template <int width>
struct TransposeSmem {
  float tile[32][width];
};

template <int width>
TESSERA_GLOBAL void transpose_kernel(View<const float, 1> x, View<float, 1> y) {
  TESSERA_SMEM(TransposeSmem<width>, s);
  for (int row = warp(); row < 32; row += 4) {
    s.tile[row][lane()] = ldg(x.data + 32 * row + lane());
  }
  sync_block();
  for (int row = warp(); row < 32; row += 4) {
    stg(y.data + 32 * row + lane(), s.tile[lane()][row]);
  }
}

TESSERA_GLOBAL void spread_kernel(int stride, View<const float, 1> x, View<float, 1> y) {
  stg(y.data + stride * lane(), ldg(x.data + lane()));
}

TESSERA_GLOBAL void tensor_work_kernel(int repeats, View<float, 1> y) {
  Acc<16, 8> acc{};
  const std::uint32_t a[4] = {};
  const std::uint32_t b[2] = {};
  float power = 0;
  for (int i = 0; i < repeats; ++i) {
    mma_m16n8k16(acc, a, b);
    power += ex2(static_cast<float>(-i));
  }
  stg(y.data + lane(), acc.c[0] + power);
}

unsigned blocks(std::int64_t n) { return static_cast<unsigned>(n); }

}  // namespace

void warp_sum(bool broken, View<const float, 1> x, View<float, 1> y) {
  launch(broken ? warp_sum_kernel<16> : warp_sum_kernel<32>, {"warp_sum", {1}, {64}}, x, y);
}
void masked_mean(bool broken, View<const float, 1> x, View<const std::int32_t, 1> offsets,
                 View<float, 1> y) {
  launch(broken ? masked_mean_kernel<true> : masked_mean_kernel<false>,
         {"masked_mean", {blocks(y.shape[0])}, {32}}, x, offsets, y);
}
void jet_sums(bool broken, View<const float, 1> x, View<const std::int32_t, 1> offsets,
              View<float, 1> y) {
  launch(broken ? jet_sums_kernel<true> : jet_sums_kernel<false>, {"jet_sums", {1}, {32}}, x,
         offsets, y);
}
void last_block_sum(bool broken, View<const float, 1> x, View<float, 1> partials,
                    View<std::uint32_t, 1> ticket, View<float, 1> total) {
  launch(broken ? last_block_sum_kernel<true> : last_block_sum_kernel<false>,
         {"last_block_sum", {blocks(partials.shape[0])}, {32}}, x, partials, ticket, total);
}
void slot_sum(bool broken, View<const float, 1> x, View<float, 1> slots,
              View<std::uint32_t, 1> ticket, View<float, 1> total) {
  launch(broken ? slot_sum_kernel<true> : slot_sum_kernel<false>,
         {"slot_sum", {1}, {blocks(x.shape[0])}}, x, slots, ticket, total);
}
void scale(float factor, View<const float, 1> x, View<float, 1> y, Stream stream) {
  launch(scale_kernel, {"scale", {1}, {blocks(x.shape[0])}, 0, stream}, factor, x, y);
}
void transpose(bool broken, View<const float, 1> x, View<float, 1> y) {
  if (broken) {
    launch(transpose_kernel<32>, {"transpose", {1}, {128}, sizeof(TransposeSmem<32>)}, x, y);
  } else {
    launch(transpose_kernel<33>, {"transpose", {1}, {128}, sizeof(TransposeSmem<33>)}, x, y);
  }
}
void spread(int stride, View<const float, 1> x, View<float, 1> y) {
  launch(spread_kernel, {"spread", {1}, {32}}, stride, x, y);
}
void tensor_work(int repeats, View<float, 1> y) {
  launch(tensor_work_kernel, {"tensor_work", {1}, {32}}, repeats, y);
}

}  // namespace tessera::TESSERA_GPU_NS
