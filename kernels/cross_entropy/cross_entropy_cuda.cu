// Loss and slope of rows of logits, each read once and written once: a warp keeps a row of up to
// 1,024 classes in registers, a block of eight warps one of up to 8,192; beyond that a row is read
// twice. Maximum and sum grow together over what a thread reads, then over lanes, then over warps
// in order. The products around it are those of kernels/matmul, a chunk of rows at a time. Losses
// alone come from tiles of logits that are never stored (loss.cuh).
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/cross_entropy/loss.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;
constexpr float kNever = -__builtin_huge_valf();

/// A maximum and the sum of exp(x - top) under it.
struct ExpSum {
  float top = kNever, sum = 0;

  // Nothing but -inf so far has the shift 0, so that its exponentials are 0, not NaN.
  TESSERA_DEVICE float shift() const { return top == kNever ? 0.0F : top; }
  TESSERA_DEVICE void raise(float value) {
    const float before = top;
    top = max(before, value);
    sum *= exp(before - shift());
  }
  TESSERA_DEVICE void merge(float other_top, float other_sum) {
    raise(other_top);
    sum += other_sum * exp(other_top - shift());
  }
};

struct WideSmem {
  float top[kWarps], sum[kWarps];
};

TESSERA_DEVICE ExpSum over_warp(ExpSum mine) {
  const float top = max_over_warp(mine.top);
  mine.raise(top);
  return {top, sum_over_warp(mine.sum)};
}

TESSERA_DEVICE ExpSum over_block(const ExpSum& warps_own) {
  TESSERA_SMEM(WideSmem, s);
  if (lane() == 0) {
    s.top[warp()] = warps_own.top;
    s.sum[warp()] = warps_own.sum;
  }
  sync_block();
  ExpSum all;
  for (int w = 0; w < kWarps; ++w) {
    all.merge(s.top[w], s.sum[w]);
  }
  return all;
}

template <int kItems>
TESSERA_DEVICE void load_run(float (&x)[kItems], const float* row, std::int64_t first,
                             std::int64_t step, std::int64_t classes) {
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const std::int64_t j = first + i * step;
    x[i] = j < classes ? ldg(row + j) : kNever;
  }
}

template <int kItems>
TESSERA_DEVICE void take_run(const float (&x)[kItems], ExpSum& run) {
  float top = x[0];
  TESSERA_UNROLL
  for (int i = 1; i < kItems; ++i) {
    top = max(top, x[i]);
  }
  run.raise(top);
  const float shift = run.shift();
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    run.sum += exp(x[i] - shift);
  }
}

// A group of kGroup warps has a row, its threads classes t, t + step, ..., kItems of them at a
// time. Slopes below 1e-25 of the largest are zero: denormal ones would be lost in the products
// anyway.
template <int kGroup, int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    rows_kernel(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                View<const float, 1> row_weight, float factor, View<float, 1> loss,
                View<float, 2> slope) {
  constexpr std::int64_t kStep = 32 * kGroup;
  constexpr std::int64_t kRun = kStep * kItems;
  const std::int64_t row =
      kGroup == 1 ? static_cast<std::int64_t>(block_idx().x) * kWarps + warp() : block_idx().x;
  if (kGroup == 1 && row >= logits.shape[0]) {
    return;  // a whole warp, and no barrier follows
  }
  const std::int64_t classes = logits.shape[1];
  const std::int64_t mine = kGroup == 1 ? lane() : linear_thread();
  const std::int32_t target = ldg(targets.data + row);
  const float weight = row_weight.shape[0] > 0 ? ldg(row_weight.data + row) : 1.0F;
  float x[kItems];
  ExpSum run;
  for (std::int64_t begin = 0; begin < classes; begin += kRun) {
    load_run(x, logits.row(row), begin + mine, kStep, classes);
    take_run(x, run);
  }
  run = over_warp(run);
  if (kGroup > 1) {
    run = over_block(run);
  }
  const float share = factor * weight / run.sum;
  for (std::int64_t begin = 0; begin < classes; begin += kRun) {
    if (classes > kRun) {
      load_run(x, logits.row(row), begin + mine, kStep, classes);
    }
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      const std::int64_t j = begin + mine + i * kStep;
      if (j == target) {
        stg(loss.data + row, weight * (log(run.sum) + run.top - x[i]));
      }
      if (j < classes && slope.shape[0] > 0) {
        const float e = exp(x[i] - run.top);
        const float p = e < 1e-25F ? 0.0F : e * share;
        stg(&slope(row, j), j == target ? p - factor * weight : p);
      }
    }
  }
}

template <int kSteps>
void launch_loss(View<const float, 2> h, const float* scratch, std::int64_t classes,
                 View<const std::int32_t, 1> targets, View<const float, 1> row_weight,
                 View<float, 1> loss, Stream stream) {
  launch(loss_kernel<kSteps>,
         {"cross_entropy_loss",
          {blocks_for(h.shape[0], kLossRows)},
          {kLossThreads},
          sizeof(LossSmem<kSteps>),
          stream},
         h, reinterpret_cast<const std::uint32_t*>(scratch),
         scratch + LossScratch(classes, h.shape[1]).bias, classes, targets, row_weight, loss);
}

}  // namespace

void cross_entropy_loss(View<const float, 2> h, View<const float, 2> weight,
                        View<const float, 1> bias, View<const std::int32_t, 1> targets,
                        View<const float, 1> row_weight, View<float, 1> loss,
                        View<float, 1> scratch, Stream stream) {
  const std::int64_t classes = weight.shape[0];
  if (h.shape[0] == 0 || classes == 0) {
    return;
  }
  const LossScratch shape(classes, h.shape[1]);
  const std::int64_t units = shape.tiles * shape.steps * 2 * kParts;
  launch(pack_weight_kernel,
         {"cross_entropy_pack", {blocks_for(units, kLossThreads / 32)}, {kLossThreads}, 0, stream},
         weight, bias, static_cast<int>(shape.steps), units,
         reinterpret_cast<std::uint32_t*>(scratch.data), scratch.data + shape.bias);
  const auto run = shape.steps <= 4   ? launch_loss<4>
                   : shape.steps <= 8 ? launch_loss<8>
                                      : launch_loss<16>;
  run(h, scratch.data, classes, targets, row_weight, loss, stream);
}

void softmax_cross_entropy(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                           View<const float, 1> row_weight, float factor, View<float, 1> loss,
                           View<float, 2> slope, Stream stream) {
  const std::int64_t rows = logits.shape[0];
  if (rows == 0) {
    return;
  }
  const auto run = [&](auto* kernel, std::int64_t rows_per_block, std::size_t smem) {
    launch(
        kernel,
        {"softmax_cross_entropy", {blocks_for(rows, rows_per_block)}, {32 * kWarps}, smem, stream},
        logits, targets, row_weight, factor, loss, slope);
  };
  if (logits.shape[1] <= 128) {
    run(rows_kernel<1, 4>, kWarps, 0);
  } else if (logits.shape[1] <= 1024) {
    run(rows_kernel<1, 32>, kWarps, 0);
  } else {
    run(rows_kernel<kWarps, 32>, 1, sizeof(WideSmem));
  }
}

}  // namespace tessera::TESSERA_GPU_NS
