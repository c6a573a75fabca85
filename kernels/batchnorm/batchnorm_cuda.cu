// Batch norm over columns, f32. Column sums: a block adds 256 rows of 32 columns, a warp every
// eighth row, the warps in order; then a thread per column adds the blocks in order, with the
// rounding of each addition carried along, so that the number of blocks costs no digits. Statistics
// take deviations from the first row, then from the mean that this gives: two passes, as on the
// cpu. Traffic: x is read three times forward, dy and x twice backward.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/batchnorm/batchnorm_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

struct ColumnSmem {
  float sums[kWarps][32], products[kWarps][32];
};

// partials (0 and 1, block, column): sums of d and d d or, where `other` has rows, of other and
// d other; d = x - origin.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    column_kernel(View<const float, 2> x, const float* origin, View<const float, 2> other,
                  View<float, 3> partials) {
  TESSERA_SMEM(ColumnSmem, s);
  const auto blocks = static_cast<unsigned>(partials.shape[1]);
  const std::int64_t block = block_idx().x % blocks;
  const std::int64_t column = static_cast<std::int64_t>(block_idx().x / blocks) * 32 + lane();
  const std::int64_t begin = block * kBatchNormBlock;
  const std::int64_t end =
      begin + kBatchNormBlock < x.shape[0] ? begin + kBatchNormBlock : x.shape[0];
  const bool there = column < x.shape[1];
  const float at = there ? ldg(origin + column) : 0.0F;
  float sum = 0;
  float product = 0;
  for (std::int64_t row = begin + warp(); there && row < end; row += kWarps) {
    const float d = ldg(&x(row, column)) - at;
    const float factor = other.data == nullptr ? d : ldg(&other(row, column));
    sum += factor;
    product = fma(d, factor, product);
  }
  s.sums[warp()][lane()] = sum;
  s.products[warp()][lane()] = product;
  sync_block();
  if (warp() == 0 && there) {
    float all = 0;
    float all_products = 0;
    for (int w = 0; w < kWarps; ++w) {
      all += s.sums[w][lane()];
      all_products += s.products[w][lane()];
    }
    stg(&partials(0, block, column), all);
    stg(&partials(1, block, column), all_products);
  }
}

// The sum over blocks; `lost` collects what each addition rounds away (Knuth's two-sum).
TESSERA_DEVICE float total(const View<float, 3>& partials, std::int64_t which,
                           std::int64_t column) {
  float sum = 0;
  float lost = 0;
  for (std::int64_t b = 0; b < partials.shape[1]; ++b) {
    const float next = ldg(&partials(which, b, column));
    const float grown = add(sum, next);
    const float added = add(grown, -sum);
    lost += add(add(sum, -add(grown, -added)), add(next, -added));
    sum = grown;
  }
  return sum + lost;
}

// mean = origin + <d>; variance = <d d> - <d>^2, small where the origin is near the mean.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    statistics_kernel(View<float, 3> partials, const float* origin, float rows, View<float, 1> mean,
                      View<float, 1> variance) {
  const std::int64_t c = global_thread();
  if (c < mean.shape[0]) {
    const float shift = total(partials, 0, c) / rows;
    const float squares = total(partials, 1, c) / rows;
    stg(mean.data + c, ldg(origin + c) + shift);
    stg(variance.data + c, squares - shift * shift);
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    inverse_kernel(View<const float, 1> variance, float eps, View<float, 1> rstd) {
  const std::int64_t c = global_thread();
  if (c < rstd.shape[0]) {
    stg(rstd.data + c, rsqrt(ldg(variance.data + c) + eps));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    forward_kernel(View<const float, 2> x, View<const float, 1> mean, View<const float, 1> rstd,
                   View<const float, 1> weight, View<const float, 1> bias, View<float, 2> y) {
  const auto [i, c] = matrix_place(global_thread(), x.shape[1]);
  if (i < x.shape[0]) {
    const float slope = ldg(weight.data + c) * ldg(rstd.data + c);
    stg(&y(i, c), fma(ldg(&x(i, c)) - ldg(mean.data + c), slope, ldg(bias.data + c)));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    parameter_kernel(View<float, 3> partials, View<const float, 1> rstd, View<float, 1> dweight,
                     View<float, 1> dbias) {
  const std::int64_t c = global_thread();
  if (c < dbias.shape[0]) {
    stg(dbias.data + c, total(partials, 0, c));
    stg(dweight.data + c, ldg(rstd.data + c) * total(partials, 1, c));
  }
}

// dx = weight rstd (dy - dbias / N - (x - mean) rstd dweight / N)
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    backward_kernel(View<const float, 2> dy, View<const float, 2> x, View<const float, 1> mean,
                    View<const float, 1> rstd, View<const float, 1> weight,
                    View<const float, 1> dweight, View<const float, 1> dbias, View<float, 2> dx) {
  const auto [i, c] = matrix_place(global_thread(), x.shape[1]);
  if (i < x.shape[0]) {
    const auto n = static_cast<float>(x.shape[0]);
    const float r = ldg(rstd.data + c);
    const float tilt = r * ldg(dweight.data + c) / n;
    const float g = ldg(&dy(i, c)) - ldg(dbias.data + c) / n;
    const float d = ldg(&x(i, c)) - ldg(mean.data + c);
    stg(&dx(i, c), ldg(weight.data + c) * r * fma(-d, tilt, g));
  }
}

void add_columns(View<const float, 2> x, const float* origin, View<const float, 2> other,
                 View<float, 3> partials, Stream stream) {
  const auto blocks = static_cast<unsigned>(partials.shape[1]);
  if (x.size() > 0) {
    launch(column_kernel,
           {"batchnorm_columns",
            {blocks * blocks_for(x.shape[1], 32)},
            {kThreads},
            sizeof(ColumnSmem),
            stream},
           x, origin, other, partials);
  }
}

LaunchConfig config_for(const char* name, std::int64_t n, Stream stream) {
  return {name, {blocks_for(n, kThreads)}, {kThreads}, 0, stream};
}

}  // namespace

void batchnorm_statistics(View<const float, 2> x, View<float, 3> partials, View<float, 1> mean,
                          View<float, 1> variance, Stream stream) {
  if (x.size() == 0) {
    return;
  }
  const LaunchConfig config = config_for("batchnorm_statistics", mean.shape[0], stream);
  const auto rows = static_cast<float>(x.shape[0]);
  const float* first_row = x.data;
  add_columns(x, first_row, {}, partials, stream);
  launch(statistics_kernel, config, partials, first_row, rows, mean, variance);
  add_columns(x, mean.data, {}, partials, stream);
  launch(statistics_kernel, config, partials, mean.data, rows, mean, variance);
}

void batchnorm_inverse(View<const float, 1> variance, float eps, View<float, 1> rstd,
                       Stream stream) {
  if (rstd.shape[0] > 0) {
    launch(inverse_kernel, config_for("batchnorm_inverse", rstd.shape[0], stream), variance, eps,
           rstd);
  }
}

void batchnorm_forward(View<const float, 2> x, View<const float, 1> mean, View<const float, 1> rstd,
                       View<const float, 1> weight, View<const float, 1> bias, View<float, 2> y,
                       Stream stream) {
  if (x.size() > 0) {
    launch(forward_kernel, config_for("batchnorm_forward", x.size(), stream), x, mean, rstd, weight,
           bias, y);
  }
}

void batchnorm_backward(View<const float, 2> dy, View<const float, 2> x, View<const float, 1> mean,
                        View<const float, 1> rstd, View<const float, 1> weight,
                        View<float, 3> partials, View<float, 2> dx, View<float, 1> dweight,
                        View<float, 1> dbias, Stream stream) {
  add_columns(x, mean.data, dy, partials, stream);
  if (dbias.shape[0] > 0) {
    launch(parameter_kernel, config_for("batchnorm_parameters", dbias.shape[0], stream), partials,
           rstd, dweight, dbias);
  }
  if (x.size() > 0) {
    launch(backward_kernel, config_for("batchnorm_backward", x.size(), stream), dy, x, mean, rstd,
           weight, dweight, dbias, dx);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
