// Layer norm over rows of f32 or bf16; parameters, statistics and sums are f32. One warp owns a row
// and keeps it in registers, four neighbouring elements at a time: x is read once, the variance is
// the mean of squared deviations (never E[x^2] - m^2), ten shuffles a row. Traffic with elements of
// e bytes: 2 e T d + 8 T bytes forward, 3 e T d + 8 T backward; 4 e T d + 8 T each way where two
// rows are added first. Forward a warp takes four rows in turn with weight and bias in registers;
// read again for each row, they would be two thirds of what L2 delivers. dweight and dbias: each
// block sums 256 rows, warp by warp in row order, then a second kernel adds the blocks' partials in
// a fixed order; so the bits depend on the problem alone.
#include "core/gpu/quad.cuh"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/layernorm/layernorm_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr int kRowsPerBlock = 256;  // kLayerNormBlock: one partial sum each
constexpr int kMaxQuads = 8;        // of a row per lane
constexpr int kRowsPerWarp = 4;     // forward
constexpr int kWidest = 128 * kMaxQuads;

// Of element 0 of the lane's quad q of a row.
TESSERA_DEVICE int column_of(int q) { return 128 * q + 4 * lane(); }

template <int kQuads, class T>
TESSERA_DEVICE void load_row(Quad (&v)[kQuads], const T* row, std::int64_t d, bool aligned) {
  TESSERA_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    v[q] = load_quad(row + column_of(q), d - column_of(q), aligned);
  }
}

// Adds a row to v, as it is in memory then, and writes the sum there.
template <int kQuads, class T>
TESSERA_DEVICE void add_row(Quad (&v)[kQuads], const T* added, T* sum, std::int64_t d,
                            bool aligned) {
  TESSERA_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    const int c = column_of(q);
    const Quad other = load_quad(added + c, d - c, aligned);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      v[q].x[e] = static_cast<float>(T(v[q].x[e] + other.x[e]));
    }
    store_quad(sum + c, v[q], d - c, aligned);
  }
}

/// Mean and 1 / sigma of the row that the warp holds; v becomes its deviations.
struct Moments {
  float mean, rstd;
};
template <int kQuads>
TESSERA_DEVICE Moments center(Quad (&v)[kQuads], std::int64_t d, float epsilon) {
  float sum = 0;
  TESSERA_UNROLL
  for (int i = 0; i < 4 * kQuads; ++i) {
    sum += v[i / 4].x[i % 4];
  }
  const float m = sum_over_warp(sum) / static_cast<float>(d);
  float squares = 0;
  TESSERA_UNROLL
  for (int i = 0; i < 4 * kQuads; ++i) {
    float& x = v[i / 4].x[i % 4];
    x = column_of(i / 4) + i % 4 < d ? x - m : 0.0F;
    squares = fma(x, x, squares);
  }
  return {m, rsqrt(sum_over_warp(squares) / static_cast<float>(d) + epsilon)};
}

// Lane k keeps the moments of the warp's k-th row: they leave in one store. kAdds: a residual takes
// registers, at 256 columns those of one block in four of a multiprocessor.
template <class T, int kQuads, bool kAdds>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const T, 2> x, LayerNormResidual<T> residual, View<const float, 1> weight,
                   View<const float, 1> bias, float epsilon, View<T, 2> y, View<float, 1> mean,
                   View<float, 1> rstd) {
  const std::int64_t d = x.shape[1];
  const std::int64_t begin =
      (static_cast<std::int64_t>(block_idx().x) * kWarps + warp()) * kRowsPerWarp;
  const auto rows = static_cast<int>(
      begin + kRowsPerWarp < x.shape[0] ? kRowsPerWarp : x.shape[0] - begin);  // <= 0: none
  const bool aligned = quads_are_aligned(x) && quads_are_aligned(y) && quads_are_aligned(weight) &&
                       quads_are_aligned(bias) && quads_are_aligned(residual.added) &&
                       quads_are_aligned(residual.sum);
  // Kept over the rows, unless 64 more registers would leave one block a multiprocessor.
  constexpr bool kKeep = kQuads < kMaxQuads;
  Quad scale[kKeep ? kQuads : 1];
  Quad shift[kKeep ? kQuads : 1];
  if constexpr (kKeep) {
    load_row(scale, weight.data, d, aligned);
    load_row(shift, bias.data, d, aligned);
  }
  Moments kept{};
  TESSERA_KEEP_ROLLED
  for (int k = 0; k < rows; ++k) {
    Quad v[kQuads];
    load_row(v, x.row(begin + k), d, aligned);
    if constexpr (kAdds) {
      add_row(v, residual.added.row(begin + k), residual.sum.row(begin + k), d, aligned);
    }
    const Moments row = center(v, d, epsilon);
    TESSERA_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      const int c = column_of(q);
      const Quad slope = kKeep ? scale[kKeep ? q : 0] : load_quad(weight.data + c, d - c, aligned);
      const Quad start = kKeep ? shift[kKeep ? q : 0] : load_quad(bias.data + c, d - c, aligned);
      TESSERA_UNROLL
      for (int e = 0; e < 4; ++e) {
        v[q].x[e] = fma(v[q].x[e] * row.rstd, slope.x[e], start.x[e]);
      }
      store_quad(y.row(begin + k) + c, v[q], d - c, aligned);
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
// As wide as the row: at 64 KiB for every width it, not the registers, would bound the blocks that
// a multiprocessor holds.
template <int kQuads>
struct BackwardSmem {
  float weight[kWarps][128 * kQuads];
  float bias[kWarps][128 * kQuads];
};

// The lane's i-th element lies at 32 i + lane, where no two lanes meet in a bank; its column.
TESSERA_DEVICE int column_at(int place) {
  return place / 128 * 128 + 4 * (place % 32) + place / 32 % 4;
}

/// What a lane adds up for the parameters.
template <int kQuads>
struct ParameterSums {
  Quad weight[kQuads] = {};
  Quad bias[kQuads] = {};
};

// A row: v goes from x to xhat, up from dy to dx.
template <int kQuads>
TESSERA_DEVICE void backward_row(Quad (&v)[kQuads], Quad (&up)[kQuads], const Quad (&scale)[kQuads],
                                 float m, float r, std::int64_t d, ParameterSums<kQuads>& sums) {
  float sum_g = 0;
  float sum_gx = 0;
  TESSERA_UNROLL
  for (int i = 0; i < 4 * kQuads; ++i) {
    const int q = i / 4;
    float& xhat = v[q].x[i % 4];
    float& g = up[q].x[i % 4];
    xhat = column_of(q) + i % 4 < d ? (xhat - m) * r : 0.0F;
    sums.weight[q].x[i % 4] = fma(g, xhat, sums.weight[q].x[i % 4]);
    sums.bias[q].x[i % 4] += g;
    g *= scale[q].x[i % 4];
    sum_g += g;
    sum_gx = fma(g, xhat, sum_gx);
  }
  sum_g = sum_over_warp(sum_g) / static_cast<float>(d);
  sum_gx = sum_over_warp(sum_gx) / static_cast<float>(d);
  TESSERA_UNROLL
  for (int i = 0; i < 4 * kQuads; ++i) {
    float& g = up[i / 4].x[i % 4];
    g = r * (g - sum_g - v[i / 4].x[i % 4] * sum_gx);
  }
}

template <int kQuads, class T>
TESSERA_DEVICE void add_to(Quad (&v)[kQuads], const T* row, std::int64_t d, bool aligned) {
  TESSERA_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    const Quad other = load_quad(row + column_of(q), d - column_of(q), aligned);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      v[q].x[e] += other.x[e];
    }
  }
}

// The lanes' sums over the warps of the block, in order.
template <int kQuads>
TESSERA_DEVICE void store_partials(BackwardSmem<kQuads>& s, const ParameterSums<kQuads>& sums,
                                   std::int64_t d, View<float, 3> partials) {
  TESSERA_UNROLL
  for (int i = 0; i < 4 * kQuads; ++i) {
    s.weight[warp()][32 * i + lane()] = sums.weight[i / 4].x[i % 4];
    s.bias[warp()][32 * i + lane()] = sums.bias[i / 4].x[i % 4];
  }
  sync_block();
  const std::int64_t block = block_idx().x;
  for (int place = linear_thread(); place < 128 * kQuads; place += 32 * kWarps) {
    const int c = column_at(place);
    float sum_weight = 0;
    float sum_bias = 0;
    for (int w = 0; w < kWarps; ++w) {
      sum_weight += s.weight[w][place];
      sum_bias += s.bias[w][place];
    }
    if (c < d) {
      stg(&partials(0, block, c), sum_weight);
      stg(&partials(1, block, c), sum_bias);
    }
  }
}

template <class T, int kQuads, bool kAdds>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps, kQuads == 2 ? 3 : 1)
    backward_kernel(View<const T, 2> dy, View<const T, 2> dsum, View<const T, 2> x,
                    View<const float, 1> weight, View<const float, 1> mean,
                    View<const float, 1> rstd, View<T, 2> dx, View<float, 3> partials) {
  using Smem = BackwardSmem<kQuads>;
  TESSERA_SMEM(Smem, s);
  const std::int64_t rows = x.shape[0];
  const std::int64_t d = x.shape[1];
  const std::int64_t begin = static_cast<std::int64_t>(block_idx().x) * kRowsPerBlock;
  const std::int64_t end = begin + kRowsPerBlock < rows ? begin + kRowsPerBlock : rows;
  const bool aligned = quads_are_aligned(dy) && quads_are_aligned(dsum) && quads_are_aligned(x) &&
                       quads_are_aligned(dx) && quads_are_aligned(weight);
  Quad scale[kQuads];
  load_row(scale, weight.data, d, aligned);
  ParameterSums<kQuads> sums;
  for (std::int64_t row = begin + warp(); row < end; row += kWarps) {
    Quad v[kQuads];
    Quad up[kQuads];
    load_row(v, x.row(row), d, aligned);
    load_row(up, dy.row(row), d, aligned);
    backward_row(v, up, scale, ldg(mean.data + row), ldg(rstd.data + row), d, sums);
    if constexpr (kAdds) {
      add_to(up, dsum.row(row), d, aligned);
    }
    TESSERA_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      store_quad(dx.row(row) + column_of(q), up[q], d - column_of(q), aligned);
    }
  }
  store_partials(s, sums, d, partials);
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

// Calls body with the number of quads per lane as a constant: 1, 2, 4 or 8.
template <class Body>
void with_quads(std::int64_t d, Body body) {
  if (d <= 128) {
    body(std::integral_constant<int, 1>{});
  } else if (d <= 256) {
    body(std::integral_constant<int, 2>{});
  } else if (d <= 512) {
    body(std::integral_constant<int, 4>{});
  } else if (d <= kWidest) {
    body(std::integral_constant<int, kMaxQuads>{});
  } else {
    tessera::detail::throw_no_kernel("layer_norm of rows wider than 1024", kDevice);
  }
}

template <class T>
void forward(View<const T, 2> x, const LayerNormResidual<T>& residual, View<const float, 1> weight,
             View<const float, 1> bias, float epsilon, View<T, 2> y, View<float, 1> mean,
             View<float, 1> rstd, Stream stream) {
  if (x.shape[0] == 0) {
    return;
  }
  const LaunchConfig config{"layernorm_forward",
                            {blocks_for(x.shape[0], kWarps * kRowsPerWarp)},
                            {32 * kWarps},
                            0,
                            stream};
  with_quads(x.shape[1], [&](auto quads) {
    const auto kernel = residual.added.data != nullptr ? forward_kernel<T, quads.value, true>
                                                       : forward_kernel<T, quads.value, false>;
    launch(kernel, config, x, residual, weight, bias, epsilon, y, mean, rstd);
  });
}

template <class T>
void backward(View<const T, 2> dy, View<const T, 2> dsum, View<const T, 2> x,
              View<const float, 1> weight, View<const float, 1> mean, View<const float, 1> rstd,
              View<T, 2> dx, View<float, 3> partials, Stream stream) {
  if (x.shape[0] == 0) {
    return;
  }
  with_quads(x.shape[1], [&](auto quads) {
    const LaunchConfig config{"layernorm_backward",
                              {blocks_for(x.shape[0], kRowsPerBlock)},
                              {32 * kWarps},
                              sizeof(BackwardSmem<quads.value>),
                              stream};
    const auto kernel = dsum.data != nullptr ? backward_kernel<T, quads.value, true>
                                             : backward_kernel<T, quads.value, false>;
    launch(kernel, config, dy, dsum, x, weight, mean, rstd, dx, partials);
  });
}

}  // namespace

void layernorm_forward(View<const float, 2> x, LayerNormResidual<float> residual,
                       View<const float, 1> weight, View<const float, 1> bias, float epsilon,
                       View<float, 2> y, View<float, 1> mean, View<float, 1> rstd, Stream stream) {
  forward(x, residual, weight, bias, epsilon, y, mean, rstd, stream);
}

void layernorm_forward_bf16(View<const bf16, 2> x, LayerNormResidual<bf16> residual,
                            View<const float, 1> weight, View<const float, 1> bias, float epsilon,
                            View<bf16, 2> y, View<float, 1> mean, View<float, 1> rstd,
                            Stream stream) {
  forward(x, residual, weight, bias, epsilon, y, mean, rstd, stream);
}

void layernorm_backward(View<const float, 2> dy, View<const float, 2> dsum, View<const float, 2> x,
                        View<const float, 1> weight, View<const float, 1> mean,
                        View<const float, 1> rstd, View<float, 2> dx, View<float, 3> partials,
                        Stream stream) {
  backward(dy, dsum, x, weight, mean, rstd, dx, partials, stream);
}

void layernorm_backward_bf16(View<const bf16, 2> dy, View<const bf16, 2> dsum,
                             View<const bf16, 2> x, View<const float, 1> weight,
                             View<const float, 1> mean, View<const float, 1> rstd, View<bf16, 2> dx,
                             View<float, 3> partials, Stream stream) {
  backward(dy, dsum, x, weight, mean, rstd, dx, partials, stream);
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
