// Loss and slope of rows of logits, each read once and written once: a warp keeps a row of up to
// 1,024 classes in registers, a block of eight warps one of up to 8,192; beyond that a row is read
// twice. Maximum and sum grow together over what a thread reads, then over lanes, then over warps
// in order. The products around it are those of kernels/matmul, a chunk of rows at a time. Losses
// alone, and gradients at precision bf16, come from tiles of logits that are never stored
// (loss.cuh; row_gradient.cuh, class_gradient.cuh).
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/cross_entropy/class_gradient.cuh"
#include "kernels/cross_entropy/loss.cuh"
#include "kernels/cross_entropy/row_gradient.cuh"

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

template <class Unit>
void launch_pack(View<const float, 2> m, View<const float, 1> bias, const PackedRows& shape,
                 float* packed, float* packed_bias, Stream stream) {
  launch(pack_kernel<Unit>,
         {"cross_entropy_pack",
          {blocks_for(shape.rows / 8 * shape.units, kPackThreads / 32)},
          {kPackThreads},
          0,
          stream},
         m, bias, shape, reinterpret_cast<std::uint32_t*>(packed), packed_bias);
}

/// What cross_entropy_loss is given, whatever its precision.
struct LossCall {
  View<const float, 2> h, weight;
  View<const float, 1> bias;
  View<const std::int32_t, 1> targets;
  View<const float, 1> row_weight;
  View<float, 1> loss;
  float* scratch;
  Stream stream;
};

template <class Unit, int kUnits>
void launch_loss(const LossCall& c, const LossScratch& shape) {
  launch(loss_kernel<Unit, kUnits>,
         {"cross_entropy_loss",
          {blocks_for(c.h.shape[0], kLossRows)},
          {kLossThreads},
          sizeof(LossSmem<kUnits>),
          c.stream},
         c.h, reinterpret_cast<const std::uint32_t*>(c.scratch), c.scratch + shape.bias,
         c.weight.shape[0], c.targets, c.row_weight, c.loss);
}

template <class Unit>
void make_losses(const LossCall& c) {
  if (c.h.shape[0] == 0 || c.weight.shape[0] == 0) {
    return;
  }
  const LossScratch shape(c.weight.shape[0], c.h.shape[1], Unit::kDepth);
  launch_pack<Unit>(c.weight, c.bias, shape.weight, c.scratch, c.scratch + shape.bias, c.stream);
  const std::int64_t units = shape.weight.units;
  const auto run = units <= 4   ? launch_loss<Unit, 4>
                   : units <= 8 ? launch_loss<Unit, 8>
                                : launch_loss<Unit, 16>;
  run(c, shape);
}

/// The two passes of cross_entropy_gradients.
struct GradientCall {
  View<const float, 2> h, weight;
  View<const std::int32_t, 1> targets;
  RowOutput rows;
  float *dw, *db, *scratch;
  GradientScratch shape;
  Stream stream;

  [[nodiscard]] const std::uint32_t* words(std::int64_t at) const {
    return reinterpret_cast<const std::uint32_t*>(scratch + at);
  }
  [[nodiscard]] int units() const { return static_cast<int>(shape.h.units); }
};

template <int kUnits>
void launch_row_gradient(const GradientCall& c) {
  const Passage passage{c.words(0), c.words(c.shape.at_weight), c.units()};
  launch(row_gradient_kernel<kUnits>,
         {"cross_entropy_rows",
          {blocks_for(c.h.shape[0], kOwn)},
          {kGradientThreads},
          sizeof(GradientSmem<kUnits>),
          c.stream},
         passage, PackedRows::ceil(c.weight.shape[0], kPassing), c.scratch + c.shape.at_bias,
         c.weight, c.targets, c.rows);
}

template <int kUnits>
void launch_class_gradient(const GradientCall& c) {
  const std::int64_t classes = c.weight.shape[0];
  const std::int64_t columns = c.weight.shape[1];
  const Passage passage{c.words(c.shape.at_weight), c.words(0), c.units()};
  float* parts = c.scratch + c.shape.at_parts;
  const bool whole = c.shape.parts == 1;
  const ClassOutput to{whole ? c.dw : parts, whole ? c.db : parts + classes * columns, classes,
                       columns};
  launch(class_gradient_kernel<kUnits>,
         {"cross_entropy_classes",
          {blocks_for(classes, kOwn), static_cast<unsigned>(c.shape.parts)},
          {kGradientThreads},
          sizeof(GradientSmem<kUnits>),
          c.stream},
         passage, PackedRows::ceil(c.h.shape[0], kPassing), c.shape.part_tiles,
         c.scratch + c.shape.at_bias, c.scratch + c.shape.at_facts, c.shape.h.rows, to,
         classes * (columns + 1));
}

void add_gradient_parts(const GradientCall& c) {
  const std::int64_t classes = c.weight.shape[0];
  const std::int64_t elements = classes * c.weight.shape[1];
  launch(add_gradient_parts_kernel,
         {"cross_entropy_add_parts",
          {blocks_for(elements + classes, kGradientThreads)},
          {kGradientThreads},
          0,
          c.stream},
         c.scratch + c.shape.at_parts, c.shape.parts, elements + classes, elements, c.dw, c.db);
}

template <int kUnits>
void make_gradients(const GradientCall& c) {
  launch_row_gradient<kUnits>(c);
  if (c.dw == nullptr && c.db == nullptr) {
    return;
  }
  launch_class_gradient<kUnits>(c);
  if (c.shape.parts > 1) {
    add_gradient_parts(c);
  }
}

}  // namespace

void cross_entropy_loss(View<const float, 2> h, View<const float, 2> weight,
                        View<const float, 1> bias, View<const std::int32_t, 1> targets,
                        View<const float, 1> row_weight, View<float, 1> loss,
                        View<float, 1> scratch, Stream stream) {
  make_losses<FloatUnit>({h, weight, bias, targets, row_weight, loss, scratch.data, stream});
}

void cross_entropy_loss_bf16(View<const float, 2> h, View<const float, 2> weight,
                             View<const float, 1> bias, View<const std::int32_t, 1> targets,
                             View<const float, 1> row_weight, View<float, 1> loss,
                             View<float, 1> scratch, Stream stream) {
  make_losses<RoundedUnit>({h, weight, bias, targets, row_weight, loss, scratch.data, stream});
}

void cross_entropy_gradients(View<const float, 2> h, View<const float, 2> weight,
                             View<const float, 1> bias, View<const std::int32_t, 1> targets,
                             View<const float, 1> row_weight, float factor, View<float, 1> loss,
                             View<float, 2> dh, View<float, 2> dw, View<float, 1> db,
                             View<float, 1> scratch, Stream stream) {
  if (h.shape[0] == 0 || weight.shape[0] == 0) {
    return;
  }
  const GradientScratch shape(h.shape[0], weight.shape[0], h.shape[1]);
  launch_pack<RoundedUnit>(h, View<const float, 1>{}, shape.h, scratch.data, nullptr, stream);
  launch_pack<RoundedUnit>(weight, bias, shape.weight, scratch.data + shape.at_weight,
                           scratch.data + shape.at_bias, stream);
  const RowOutput rows{row_weight, factor, loss, dh, scratch.data + shape.at_facts, shape.h.rows};
  const GradientCall call{h,
                          weight,
                          targets,
                          rows,
                          dw.shape[0] > 0 ? dw.data : nullptr,
                          db.shape[0] > 0 ? db.data : nullptr,
                          scratch.data,
                          shape,
                          stream};
  const std::int64_t units = shape.h.units;
  const auto run = units <= 2   ? make_gradients<2>
                   : units <= 4 ? make_gradients<4>
                                : make_gradients<8>;
  run(call);
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
