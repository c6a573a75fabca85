// Layer norm over rows, f32. One warp owns a row and keeps it in registers: x is read once, the
// variance is the mean of squared deviations (never E[x^2] - m^2), ten shuffles a row. Traffic: 8 T
// d + 8 T bytes forward, 12 T d + 8 T backward. Forward a warp takes four rows in turn with weight
// and bias in registers; read again for each row, they would be two thirds of what L2 delivers.
// dweight and dbias: each block sums 256 rows, warp by warp in row order, then a second kernel adds
// the blocks' partials in a fixed order; so the bits depend on the problem alone.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr int kRowsPerBlock = 256;  // kLayerNormBlock: one partial sum each
constexpr int kMaxItems = 32;       // values of a row per lane
constexpr int kRowsPerWarp = 4;     // forward

template <int kItems>
TESSERA_DEVICE void load_row(float (&v)[kItems], const float* row, std::int64_t d) {
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const int c = 32 * i + lane();
    v[i] = c < d ? ldg(row + c) : 0.0F;
  }
}

/// Mean and 1 / sigma of the row that the warp holds; v becomes its deviations.
struct Moments {
  float mean, rstd;
};
template <int kItems>
TESSERA_DEVICE Moments center(float (&v)[kItems], std::int64_t d, float epsilon) {
  float sum = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    sum += v[i];
  }
  const float m = sum_over_warp(sum) / static_cast<float>(d);
  float squares = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    v[i] = 32 * i + lane() < d ? v[i] - m : 0.0F;
    squares = fma(v[i], v[i], squares);
  }
  return {m, rsqrt(sum_over_warp(squares) / static_cast<float>(d) + epsilon)};
}

// Lane k keeps the moments of the warp's k-th row: they leave in one store.
template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const float, 2> x, View<const float, 1> weight, View<const float, 1> bias,
                   float epsilon, View<float, 2> y, View<float, 1> mean, View<float, 1> rstd) {
  const std::int64_t d = x.shape[1];
  const std::int64_t begin =
      (static_cast<std::int64_t>(block_idx().x) * kWarps + warp()) * kRowsPerWarp;
  const auto rows = static_cast<int>(
      begin + kRowsPerWarp < x.shape[0] ? kRowsPerWarp : x.shape[0] - begin);  // <= 0: none
  // Kept over the rows, unless 64 more registers would leave one block a multiprocessor.
  constexpr bool kKeep = kItems < kMaxItems;
  float scale[kKeep ? kItems : 1];  // (d / 32) per lane
  float shift[kKeep ? kItems : 1];
  if constexpr (kKeep) {
    load_row(scale, weight.data, d);
    load_row(shift, bias.data, d);
  }
  Moments kept{};
  TESSERA_KEEP_ROLLED
  for (int k = 0; k < rows; ++k) {
    float v[kItems];
    load_row(v, x.row(begin + k), d);
    const Moments row = center(v, d, epsilon);
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      const int c = 32 * i + lane();
      if (c < d) {
        const float slope = kKeep ? scale[kKeep ? i : 0] : ldg(weight.data + c);
        const float start = kKeep ? shift[kKeep ? i : 0] : ldg(bias.data + c);
        stg(y.row(begin + k) + c, fma(v[i] * row.rstd, slope, start));
      }
    }
    kept = lane() == k ? row : kept;
  }
  if (lane() < rows) {
    stg(mean.data + begin + lane(), kept.mean);
    stg(rstd.data + begin + lane(), kept.rstd);
  }
}

// With xhat = (x - mean) rstd and g = dy weight:
//   dx = rstd (g - <g> - xhat <g xhat>), <.> the mean over the row;
//   dweight = sum_rows dy xhat, dbias = sum_rows dy.
struct BackwardSmem {
  float weight[kWarps][32 * kMaxItems];
  float bias[kWarps][32 * kMaxItems];
};

template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(View<const float, 2> dy, View<const float, 2> x, View<const float, 1> weight,
                    View<const float, 1> mean, View<const float, 1> rstd, View<float, 2> dx,
                    View<float, 3> partials) {
  TESSERA_SMEM(BackwardSmem, s);
  const std::int64_t rows = x.shape[0];
  const std::int64_t d = x.shape[1];
  const std::int64_t begin = static_cast<std::int64_t>(block_idx().x) * kRowsPerBlock;
  const std::int64_t end = begin + kRowsPerBlock < rows ? begin + kRowsPerBlock : rows;
  float scale[kItems];
  load_row(scale, weight.data, d);
  float dweight[kItems] = {};
  float dbias[kItems] = {};
  for (std::int64_t row = begin + warp(); row < end; row += kWarps) {
    float xhat[kItems];
    float g[kItems];
    load_row(xhat, x.row(row), d);
    load_row(g, dy.row(row), d);
    const float m = ldg(mean.data + row);
    const float r = ldg(rstd.data + row);
    float sum_g = 0;
    float sum_gx = 0;
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      xhat[i] = 32 * i + lane() < d ? (xhat[i] - m) * r : 0.0F;
      dweight[i] = fma(g[i], xhat[i], dweight[i]);
      dbias[i] += g[i];
      g[i] *= scale[i];
      sum_g += g[i];
      sum_gx = fma(g[i], xhat[i], sum_gx);
    }
    sum_g = sum_over_warp(sum_g) / static_cast<float>(d);
    sum_gx = sum_over_warp(sum_gx) / static_cast<float>(d);
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      const int c = 32 * i + lane();
      if (c < d) {
        stg(dx.row(row) + c, r * (g[i] - sum_g - xhat[i] * sum_gx));
      }
    }
  }
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    s.weight[warp()][32 * i + lane()] = dweight[i];
    s.bias[warp()][32 * i + lane()] = dbias[i];
  }
  sync_block();
  const std::int64_t block = block_idx().x;
  for (int c = linear_thread(); c < d; c += 32 * kWarps) {
    float sum_weight = 0;
    float sum_bias = 0;
    for (int w = 0; w < kWarps; ++w) {
      sum_weight += s.weight[w][c];
      sum_bias += s.bias[w][c];
    }
    stg(&partials(0, block, c), sum_weight);
    stg(&partials(1, block, c), sum_bias);
  }
}

// Partials (2, blocks, d): warp w of a block adds those of w, w + 32, ... for 32 columns, then the
// warps are added in order. One thread a column would walk 200 blocks by itself, latency by
// latency.
constexpr int kReduceWarps = 32;
struct ReduceSmem {
  float weight[kReduceWarps][32], bias[kReduceWarps][32];
};

TESSERA_GLOBAL void __launch_bounds__(32 * kReduceWarps)
    reduce_kernel(View<const float, 3> partials, View<float, 1> dweight, View<float, 1> dbias) {
  TESSERA_SMEM(ReduceSmem, s);
  const std::int64_t c = static_cast<std::int64_t>(block_idx().x) * 32 + lane();
  const bool inside = c < dweight.shape[0];
  float sum_weight = 0;
  float sum_bias = 0;
  for (std::int64_t b = warp(); inside && b < partials.shape[1]; b += kReduceWarps) {
    sum_weight += ldg(&partials(0, b, c));
    sum_bias += ldg(&partials(1, b, c));
  }
  s.weight[warp()][lane()] = sum_weight;
  s.bias[warp()][lane()] = sum_bias;
  sync_block();
  if (warp() != 0 || !inside) {
    return;
  }
  for (int w = 1; w < kReduceWarps; ++w) {
    sum_weight += s.weight[w][lane()];
    sum_bias += s.bias[w][lane()];
  }
  stg(dweight.data + c, sum_weight);
  stg(dbias.data + c, sum_bias);
}

// Calls body with the number of values per lane as a constant: 4, 8, 16 or 32.
template <class Body>
void with_items(std::int64_t d, Body body) {
  if (d <= 128) {
    body(std::integral_constant<int, 4>{});
  } else if (d <= 256) {
    body(std::integral_constant<int, 8>{});
  } else if (d <= 512) {
    body(std::integral_constant<int, 16>{});
  } else if (d <= 32 * kMaxItems) {
    body(std::integral_constant<int, kMaxItems>{});
  } else {
    tessera::detail::throw_no_kernel("layer_norm of rows wider than 1024", kDevice);
  }
}

}  // namespace

void layernorm_forward(View<const float, 2> x, View<const float, 1> weight,
                       View<const float, 1> bias, float epsilon, View<float, 2> y,
                       View<float, 1> mean, View<float, 1> rstd, Stream stream) {
  if (x.shape[0] == 0) {
    return;
  }
  const LaunchConfig config{"layernorm_forward",
                            {blocks_for(x.shape[0], kWarps * kRowsPerWarp)},
                            {32 * kWarps},
                            0,
                            stream};
  with_items(x.shape[1], [&](auto items) {
    launch(forward_kernel<items.value>, config, x, weight, bias, epsilon, y, mean, rstd);
  });
}

void layernorm_backward(View<const float, 2> dy, View<const float, 2> x,
                        View<const float, 1> weight, View<const float, 1> mean,
                        View<const float, 1> rstd, View<float, 2> dx, View<float, 3> partials,
                        Stream stream) {
  if (x.shape[0] == 0) {
    return;
  }
  const LaunchConfig config{"layernorm_backward",
                            {blocks_for(x.shape[0], kRowsPerBlock)},
                            {32 * kWarps},
                            sizeof(BackwardSmem),
                            stream};
  with_items(x.shape[1], [&](auto items) {
    launch(backward_kernel<items.value>, config, dy, x, weight, mean, rstd, dx, partials);
  });
}

void layernorm_reduce(View<const float, 3> partials, View<float, 1> dweight, View<float, 1> dbias,
                      Stream stream) {
  launch(reduce_kernel,
         {"layernorm_reduce",
          {blocks_for(dweight.shape[0], 32)},
          {32 * kReduceWarps},
          sizeof(ReduceSmem),
          stream},
         partials, dweight, dbias);
}

}  // namespace tessera::TESSERA_GPU_NS
