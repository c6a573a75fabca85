// Vector quantisation: nearest code, distance and argmin fused, so rows x codes is never stored.
// Canonical score, the same bits on every device: s = -h_k, then s = fma(x_d, e_d, s) for d
// ascending; the largest wins, ties to the smallest index, a NaN row gives index 0. Up to 64
// dimensions tensor cores find the codes that can win (coarse.cuh, refine.cuh, nearest.cuh); of
// these, where they are more than one, and where they are too many of all codes, the canonical
// score decides (exact.cuh).
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/vq/codebook.cuh"
#include "kernels/vq/exact.cuh"
#include "kernels/vq/nearest.cuh"
#include "kernels/vq/vq_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

// A thread per code. fma and not a product and a sum: the score's bits are the same everywhere.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    prepare_kernel(View<const float, 2> codes, View<float, 2> codes_t, View<float, 1> half_norm) {
  const std::int64_t k = global_thread();
  if (k >= codes.shape[0]) {
    return;
  }
  float sum = 0;
  for (std::int64_t d = 0; d < codes.shape[1]; ++d) {
    const float e = ldg(&codes(k, d));
    stg(&codes_t(d, k), e);
    sum = fma(e, e, sum);
  }
  stg(half_norm.data + k, fma(0.5F, sum, 0.0F));
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    effective_kernel(View<const float, 2> codebook, View<const float, 1> scale,
                     View<const float, 1> bias, float affine_lr, View<float, 2> out) {
  const std::int64_t at = global_thread();
  const std::int64_t k = at / out.shape[1];
  const std::int64_t d = at % out.shape[1];
  if (k < out.shape[0]) {
    stg(&out(k, d), (1 + affine_lr * ldg(scale.data + d)) * ldg(&codebook(k, d)) +
                        affine_lr * ldg(bias.data + d));
  }
}

struct BlockSmem {
  float sum[kThreads / 32];
};

// The sum over the block in thread 0: warps by halves, then in order.
TESSERA_DEVICE float sum_over_block(float v, BlockSmem& s) {
  v = sum_over_warp(v);
  if (lane() == 0) {
    s.sum[warp()] = v;
  }
  sync_block();
  float total = 0;
  if (linear_thread() == 0) {
    for (const float part : s.sum) {
      total += part;
    }
  }
  return total;
}

// Gather, straight-through output and the distance in one pass over z; a partial sum a block.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    quantize_kernel(View<const float, 2> z, View<const std::int32_t, 1> codes,
                    View<const float, 2> codebook, View<float, 2> q, View<float, 1> partials) {
  TESSERA_SMEM(BlockSmem, s);
  const std::int64_t n = z.size();
  const std::int64_t begin = block_idx().x * kVqBlock;
  float squares = 0;
  for (std::int64_t at = begin + linear_thread(); at < begin + kVqBlock; at += kThreads) {
    if (at < n) {
      const std::int64_t i = at / z.shape[1];
      const std::int64_t d = at % z.shape[1];
      const float e = ldg(&codebook(ldg(codes.data + i), d));
      const float r = ldg(&z(i, d)) - e;
      stg(&q(i, d), e);
      squares = fma(r, r, squares);
    }
  }
  const float total = sum_over_block(squares, s);
  if (linear_thread() == 0) {
    stg(partials.data + block_idx().x, total);
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    backward_kernel(View<const float, 2> dq, View<const float, 1> dloss, View<const float, 2> z,
                    View<const float, 2> q, VqSlopes slopes, View<float, 2> dz,
                    View<float, 2> dcode) {
  const std::int64_t at = global_thread();
  const std::int64_t i = at / z.shape[1];
  const std::int64_t d = at % z.shape[1];
  if (i >= z.shape[0]) {
    return;
  }
  const float unit = dloss.shape[0] > 0 ? ldg(dloss.data) * slopes.unit : 0.0F;
  const float up = dq.shape[0] > 0 ? ldg(&dq(i, d)) : 0.0F;
  const float slope = unit * (ldg(&z(i, d)) - ldg(&q(i, d)));
  stg(&dz(i, d), up + (1 - slopes.beta) * slope);
  stg(&dcode(i, d), slopes.nu * up - slopes.beta * slope);
}

// A block owns a column: thread t adds codes t, t + 256, ... .
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    codebook_backward_kernel(View<const float, 2> sums, View<const float, 2> codebook,
                             View<const float, 1> scale, float affine_lr, View<float, 2> de,
                             View<float, 1> ds, View<float, 1> db) {
  TESSERA_SMEM(BlockSmem, s);
  const std::int64_t d = block_idx().x;
  const float slope = 1 + affine_lr * ldg(scale.data + d);
  float scale_sum = 0;
  float bias_sum = 0;
  for (std::int64_t k = linear_thread(); k < sums.shape[0]; k += kThreads) {
    const float g = ldg(&sums(k, d));
    stg(&de(k, d), slope * g);
    scale_sum = fma(g, ldg(&codebook(k, d)), scale_sum);
    bias_sum += g;
  }
  const float all_scale = sum_over_block(scale_sum, s);
  sync_block();  // the partial sums may be overwritten
  const float all_bias = sum_over_block(bias_sum, s);
  if (linear_thread() == 0) {
    stg(ds.data + d, affine_lr * all_scale);
    stg(db.data + d, affine_lr * all_bias);
  }
}

void scan(ScanList list, View<const float, 2> x, View<const float, 2> codes_t,
          View<const float, 1> half_norms, View<std::int32_t, 1> codes, Stream stream) {
  constexpr unsigned kMost = 1024;  // blocks; they take turns where the list is longer
  const unsigned blocks = blocks_for(x.shape[0], kScanRows);
  launch(scan_kernel,
         {"vq_scan", {blocks < kMost ? blocks : kMost}, {kScanThreads}, sizeof(ScanSmem), stream},
         x, codes_t, half_norms, list, codes);
}

template <class P>
void search_rows(View<const float, 2> x, View<const float, 2> codes_t,
                 View<const float, 1> half_norms, View<std::int32_t, 1> codes,
                 std::int32_t* scratch, Stream stream) {
  const VqScratch at(x.shape[0], codes_t.shape[1], x.shape[1]);
  auto* floats = reinterpret_cast<float*>(scratch);
  auto* words = reinterpret_cast<std::uint32_t*>(scratch);
  const auto padded = static_cast<int>(at.codes);
  launch(pack_kernel<typename P::Layout>,
         {"vq_pack", {blocks_for(padded, kThreads)}, {kThreads}, sizeof(PackSmem), stream}, codes_t,
         half_norms, padded,
         CodebookOut{words + at.coarse, floats + at.start, floats + at.exact, floats + at.largest,
                     floats + at.rest, scratch});
  launch(nearest_kernel<P>,
         {"vq_nearest", {blocks_for(x.shape[0], kRows)}, {kThreads}, sizeof(SearchSmem<P>), stream},
         x, half_norms,
         Search{words + at.coarse, floats + at.start, floats + at.exact, floats + at.largest,
                floats + at.rest, words, scratch + at.list, padded / 8},
         codes);
}

LaunchConfig elements_config(const char* name, std::int64_t n, Stream stream) {
  return {name, {blocks_for(n, kThreads)}, {kThreads}, 0, stream};
}

}  // namespace

void vq_nearest(View<const float, 2> x, View<const float, 2> codes_t,
                View<const float, 1> half_norms, View<std::int32_t, 1> codes,
                View<std::int32_t, 1> scratch, Stream stream) {
  const std::int64_t dims = x.shape[1];
  if (x.shape[0] == 0) {
    return;
  }
  if (dims > VqScratch::kWidest) {
    scan({nullptr, nullptr}, x, codes_t, half_norms, codes, stream);
    return;
  }
  using Whole = Plan<4, Bf16, 8>;
  const bool whole = codes_t.shape[1] <= Whole::kWholeCodes;
  const auto search = dims <= 4    ? search_rows<Plan<1, Split>>
                      : dims <= 8  ? search_rows<Plan<1, Tf32>>
                      : dims <= 16 ? search_rows<Plan<1, Bf16>>
                      : dims <= 32 ? search_rows<Plan<2, Bf16>>
                      : whole      ? search_rows<Whole>
                                   : search_rows<Plan<4, Bf16>>;
  search(x, codes_t, half_norms, codes, scratch.data, stream);
  const VqScratch at(x.shape[0], codes_t.shape[1], dims);
  scan({scratch.data + at.list, scratch.data + VqScratch::kScanned}, x, codes_t, half_norms, codes,
       stream);
}

void vq_prepare(View<const float, 2> codes, View<float, 2> codes_t, View<float, 1> half_norm,
                Stream stream) {
  launch(prepare_kernel, elements_config("vq_prepare", codes.shape[0], stream), codes, codes_t,
         half_norm);
}

void vq_effective(View<const float, 2> codebook, View<const float, 1> scale,
                  View<const float, 1> bias, float affine_lr, View<float, 2> out, Stream stream) {
  if (out.size() > 0) {
    launch(effective_kernel, elements_config("vq_effective", out.size(), stream), codebook, scale,
           bias, affine_lr, out);
  }
}

void vq_quantize(View<const float, 2> z, View<const std::int32_t, 1> codes,
                 View<const float, 2> codebook, View<float, 2> q, View<float, 1> partials,
                 Stream stream) {
  if (z.size() > 0) {
    launch(quantize_kernel,
           {"vq_quantize", {blocks_for(z.size(), kVqBlock)}, {kThreads}, sizeof(BlockSmem), stream},
           z, codes, codebook, q, partials);
  }
}

void vq_backward(View<const float, 2> dq, View<const float, 1> dloss, View<const float, 2> z,
                 View<const float, 2> q, VqSlopes slopes, View<float, 2> dz, View<float, 2> dcode,
                 Stream stream) {
  if (z.size() > 0) {
    launch(backward_kernel, elements_config("vq_backward", z.size(), stream), dq, dloss, z, q,
           slopes, dz, dcode);
  }
}

void vq_codebook_backward(View<const float, 2> sums, View<const float, 2> codebook,
                          View<const float, 1> scale, float affine_lr, View<float, 2> de,
                          View<float, 1> ds, View<float, 1> db, Stream stream) {
  if (sums.shape[1] > 0) {
    launch(codebook_backward_kernel,
           {"vq_codebook_backward",
            {static_cast<unsigned>(sums.shape[1])},
            {kThreads},
            sizeof(BlockSmem),
            stream},
           sums, codebook, scale, affine_lr, de, ds, db);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
