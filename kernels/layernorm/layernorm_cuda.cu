// Layer norm over rows, f32. One warp owns a row and keeps it in registers: x is read once, the
// variance is the mean of squared deviations (never E[x^2] - m^2), ten shuffles a row. Traffic: 8 T
// d + 8 T bytes forward, 12 T d + 8 T backward. dweight and dbias: each block sums 256 rows, warp
// by warp in row order, then a second kernel adds the blocks' partials in order; so the bits depend
// on the problem alone.
#include "core/gpu/prim.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr int kRowsPerBlock = 256;  // kLayerNormBlock: one partial sum each
constexpr int kMaxItems = 32;       // values of a row per lane

TESSERA_DEVICE float warp_sum(float v) {
  for (int step = 16; step > 0; step /= 2) {
    v += shfl_xor(v, step);
  }
  return v;
}

template <int kItems>
TESSERA_DEVICE void load_row(float (&v)[kItems], const float* row, std::int64_t d) {
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const int c = 32 * i + lane();
    v[i] = c < d ? ldg(row + c) : 0.0F;
  }
}

template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const float, 2> x, View<const float, 1> weight, View<const float, 1> bias,
                   float epsilon, View<float, 2> y, View<float, 1> mean, View<float, 1> rstd) {
  const std::int64_t row = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  const std::int64_t d = x.shape[1];
  if (row >= x.shape[0]) {
    return;  // a whole warp, and no barrier follows
  }
  float v[kItems];  // (d / 32) per lane
  load_row(v, x.row(row), d);
  float sum = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    sum += v[i];
  }
  const float m = warp_sum(sum) / static_cast<float>(d);
  float squares = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    v[i] = 32 * i + lane() < d ? v[i] - m : 0.0F;
    squares = fma(v[i], v[i], squares);
  }
  const float r = rsqrt(warp_sum(squares) / static_cast<float>(d) + epsilon);
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const int c = 32 * i + lane();
    if (c < d) {
      stg(y.row(row) + c, fma(v[i] * r, ldg(weight.data + c), ldg(bias.data + c)));
    }
  }
  if (lane() == 0) {
    stg(mean.data + row, m);
    stg(rstd.data + row, r);
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
    sum_g = warp_sum(sum_g) / static_cast<float>(d);
    sum_gx = warp_sum(sum_gx) / static_cast<float>(d);
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

// A thread per column adds the partials (2, blocks, d) in block order.
TESSERA_GLOBAL void reduce_kernel(View<const float, 3> partials, View<float, 1> dweight,
                                  View<float, 1> dbias) {
  const std::int64_t c = static_cast<std::int64_t>(block_idx().x) * 128 + linear_thread();
  if (c >= dweight.shape[0]) {
    return;
  }
  float sum_weight = 0;
  float sum_bias = 0;
  for (std::int64_t b = 0; b < partials.shape[1]; ++b) {
    sum_weight += ldg(&partials(0, b, c));
    sum_bias += ldg(&partials(1, b, c));
  }
  stg(dweight.data + c, sum_weight);
  stg(dbias.data + c, sum_bias);
}

unsigned blocks_of(std::int64_t n, std::int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
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
  const LaunchConfig config{
      "layernorm_forward", {blocks_of(x.shape[0], kWarps)}, {32 * kWarps}, 0, stream};
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
                            {blocks_of(x.shape[0], kRowsPerBlock)},
                            {32 * kWarps},
                            sizeof(BackwardSmem),
                            stream};
  with_items(x.shape[1], [&](auto items) {
    launch(backward_kernel<items.value>, config, dy, x, weight, mean, rstd, dx, partials);
  });
}

void layernorm_reduce(View<const float, 3> partials, View<float, 1> dweight, View<float, 1> dbias,
                      Stream stream) {
  launch(reduce_kernel, {"layernorm_reduce", {blocks_of(dweight.shape[0], 128)}, {128}, 0, stream},
         partials, dweight, dbias);
}

}  // namespace tessera::TESSERA_GPU_NS
