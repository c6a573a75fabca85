#include "bench/gpu/cases.h"

#include <fmt/format.h>

#include <memory>
#include <numeric>

#include "core/autograd.h"
#include "core/rng.h"
#include "core/segments.h"
#include "kernels/adamw/adamw.h"
#include "kernels/attention/attention.h"
#include "kernels/batchnorm/batchnorm.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/dropout/dropout.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/losses/losses.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/precision.h"
#include "kernels/reduce/reduce.h"
#include "kernels/sample/sample.h"
#include "kernels/segment/segment.h"
#include "kernels/softmax/softmax.h"
#include "kernels/vq/vq.h"

namespace tessera::bench {
namespace {

constexpr std::int64_t kDesignTokens = 51200;  // of the design's floors

Tensor normal(Device on, const Shape& shape, std::uint64_t seed, DType dtype = DType::f32) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(shape.size()));
  for (float& x : v) {
    x = static_cast<float>(rng.normal());
  }
  return Tensor::from(v, shape, on).to(dtype);
}

Tensor leaf(Device on, const Shape& shape, std::uint64_t seed, DType dtype = DType::f32) {
  return normal(on, shape, seed, dtype).set_requires_grad(true);
}

/// 0, step, 2 step, ... modulo n: distinct where step and n have no common divisor.
Tensor indices(Device on, std::int64_t count, std::int64_t step, std::int64_t n) {
  std::vector<std::int32_t> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) * step % n);
  }
  return Tensor::from(v, {count}, on);
}

Segments jets_of(int count, std::int32_t length) {
  return Segments::from_lengths(std::vector<std::int32_t>(static_cast<std::size_t>(count), length));
}

// The value and the gradients of the leaves that it left, which are cleared for the next run.
std::vector<Tensor> results(const Tensor& value, std::vector<Tensor> leaves) {
  std::vector<Tensor> out{value.detach()};
  for (Tensor& leaf : leaves) {
    out.push_back(leaf.grad());
    leaf.set_grad(Tensor());
  }
  return out;
}

/// Launches op(leaves), then its backward with a random gradient.
using Op = std::function<Tensor(const std::vector<Tensor>&)>;
GpuCase::Run both_ways(std::vector<Tensor> leaves, const Op& op) {
  const Shape shape = [&] {
    const NoGrad off;
    return op(leaves).shape();
  }();
  return [=, up = normal(leaves[0].device(), shape, 99)] {
    const Tensor y = op(leaves);
    backward(weighted_sum(y.to(DType::f32), up));
    return results(y, leaves);
  };
}

double d(std::int64_t n) { return static_cast<double>(n); }
double bytes_of(double elements, DType dtype) {
  return elements * static_cast<double>(size_of(dtype));
}

/// "layer_norm" or "layer_norm bf16".
std::string of_type(const char* op, DType dtype) {
  return dtype == DType::f32 ? op : fmt::format("{} {}", op, name(dtype));
}

GpuCase layer_norm_case(std::int64_t t, std::int64_t width, DType dtype = DType::f32) {
  const double n = d(t * width), rows = d(t), blocks = d((t + 255) / 256), w = d(width);
  const double bytes = bytes_of(n, dtype);
  return {of_type("layer_norm", dtype),
          fmt::format("T={} d={}", t, width),
          d(kDesignTokens) / rows,
          fmt::format("T={} d={}", kDesignTokens, width),
          {{"layernorm_forward", bytes + 8 * w, bytes + 8 * rows, 8 * n},
           {"layernorm_backward", 2 * bytes + 8 * rows + 4 * w, bytes + 8 * blocks * w, 14 * n},
           {"layernorm_reduce", 8 * blocks * w, 8 * w, 2 * blocks * w}},
          [=](Device on) {
            return both_ways(
                {leaf(on, {t, width}, 1, dtype), leaf(on, {width}, 2), leaf(on, {width}, 3)},
                [](const auto& x) { return layer_norm(x[0], x[1], x[2]); });
          }};
}

// The residual's sum and its norm each have a gradient of their own.
GpuCase add_layer_norm_case(std::int64_t t, std::int64_t width, DType dtype) {
  const double n = d(t * width), rows = d(t), blocks = d((t + 255) / 256), w = d(width);
  const double bytes = bytes_of(n, dtype);
  return {of_type("add_layer_norm", dtype),
          fmt::format("T={} d={}", t, width),
          d(kDesignTokens) / rows,
          fmt::format("T={} d={}", kDesignTokens, width),
          {{"layernorm_forward", 2 * bytes + 8 * w, 2 * bytes + 8 * rows, 9 * n},
           {"layernorm_backward", 3 * bytes + 8 * rows + 4 * w, bytes + 8 * blocks * w, 15 * n},
           {"layernorm_reduce", 8 * blocks * w, 8 * w, 2 * blocks * w}},
          [=](Device on) {
            return both_ways({leaf(on, {t, width}, 1, dtype), leaf(on, {t, width}, 4, dtype),
                              leaf(on, {width}, 2), leaf(on, {width}, 3)},
                             [](const auto& x) {
                               const NormedSum both = add_layer_norm(x[0], x[1], x[2], x[3]);
                               return add(scale(both.sum, 0.5F), both.normed);
                             });
          }};
}

GpuCase softmax_case(std::int64_t rows, std::int64_t c) {
  const double n = d(rows * c);
  return {"softmax",
          fmt::format("N={} C={}", rows, c),
          d(kDesignTokens) / d(rows),
          fmt::format("N={} C={}", kDesignTokens, c),
          {{"softmax_forward", 4 * n, 4 * n, 5 * n}, {"softmax_backward", 8 * n, 4 * n, 4 * n}},
          [=](Device on) {
            return both_ways({leaf(on, {rows, c}, 1)}, [](const auto& x) { return softmax(x[0]); });
          }};
}

GpuCase elementwise_case(std::int64_t t, std::int64_t width, DType dtype = DType::f32) {
  const double n = d(t * width), w = d(width), bytes = bytes_of(n, dtype);
  return {of_type("elementwise", dtype),
          fmt::format("T={} d={}", t, width),
          d(kDesignTokens) / d(t),
          fmt::format("T={} d={}", kDesignTokens, width),
          {{"pointwise", 2 * bytes, bytes, n},
           {"rowwise", bytes + 4 * w, bytes, n},
           {"activation", bytes, bytes, 10 * n}},
          [=](Device on) {
            return [a = normal(on, {t, width}, 1, dtype), b = normal(on, {t, width}, 2, dtype),
                    row = normal(on, {width}, 3)] {
              return std::vector<Tensor>{add(a, b), mul_rows(a, row), gelu(a)};
            };
          }};
}

GpuCase dropout_case(std::int64_t n, DType dtype = DType::f32) {
  const double bytes = bytes_of(d(n), dtype);
  return {of_type("dropout", dtype),
          fmt::format("n={}", n),
          d(kDesignTokens * 256) / d(n),
          fmt::format("T={} d=256", kDesignTokens),
          {{"dropout_apply", bytes, bytes, d(n)}},
          [=](Device on) {
            return [x = normal(on, {n}, 1, dtype)] {
              return std::vector<Tensor>{dropout(x, 0.1F, Rng(7).key())};
            };
          }};
}

GpuCase adamw_case(std::int64_t p) {
  const double n = d(p), blocks = d((p + kSquaredNormBlock - 1) / kSquaredNormBlock);
  return {"adamw",
          fmt::format("P={}", p),
          1e7 / n,
          "P=10000000",
          {{"adamw_update", 16 * n, 12 * n, 15 * n},
           {"squared_norm_blocks", 4 * n, 12 * blocks, 2 * n}},
          [=](Device on) {
            const std::vector<AdamWSpan> all{{0, p}};
            return [=, w = normal(on, {p}, 1), g = normal(on, {p}, 2), m = normal(on, {p}, 3),
                    v = normal(on, {p}, 4)] {
              adamw_step(w, g, m, mul(v, v), all, {});
              return std::vector<Tensor>{w, m};
            };
          }};
}

GpuCase reduce_case(std::int64_t n) {
  return {
      "sum",
      fmt::format("n={}", n),
      d(kDesignTokens * 256) / d(n),
      fmt::format("T={} d=256", kDesignTokens),
      {{"reduce_blocks", 4 * d(n), 4 * d((n + 16383) / 16384), d(n)}},
      [=](Device on) { return [x = normal(on, {n}, 1)] { return std::vector<Tensor>{sum(x)}; }; }};
}

// The same six jets again and again.
GpuCase segment_case(Pool pool, std::int64_t width, int times, DType dtype = DType::f32) {
  std::vector<std::int32_t> lengths;
  for (int i = 0; i < times; ++i) {
    for (const std::int32_t length : {50, 0, 31, 128, 1, 64}) {
      lengths.push_back(length);
    }
  }
  const Segments jets = Segments::from_lengths(lengths);
  const double t = d(jets.total()), b = d(jets.count()), w = d(width), offsets = 4 * (b + 1);
  const bool max = pool == Pool::max;
  std::vector<Traffic> traffic{{max ? "segment_max_forward" : "segment_forward",
                                bytes_of(t * w, dtype) + offsets,
                                bytes_of(b * w, dtype) + (max ? 4 : 0) * b * w, t * w}};
  traffic.push_back({max ? "segment_max_backward" : "segment_backward",
                     bytes_of(b * w, dtype) + (max ? 4 : 0) * b * w + offsets,
                     bytes_of(t * w, dtype), max ? 0 : t * w});
  return {of_type(max ? "segment_pool max" : "segment_pool mean", dtype),
          fmt::format("T={} B={} d={}", jets.total(), jets.count(), width),
          d(kDesignTokens) / t,
          fmt::format("T={} d={}", kDesignTokens, width),
          traffic,
          [=](Device on) {
            return both_ways({leaf(on, {jets.total(), width}, 1, dtype)},
                             [=](const auto& x) { return segment_pool(x[0], jets, pool); });
          }};
}

GpuCase gather_case(std::int64_t rows, std::int64_t width, DType dtype = DType::f32) {
  const double bytes = bytes_of(d(rows * width), dtype), index = 4 * d(rows);
  return {of_type("gather_rows", dtype),
          fmt::format("M=N={} d={}", rows, width),
          d(kDesignTokens) / d(rows),
          fmt::format("M=N={} d={}", kDesignTokens, width),
          {{"gather_forward", bytes + index, bytes},
           {"gather_backward", bytes + 2 * index, bytes, d(rows * width)}},
          [=](Device on) {
            return both_ways(
                {leaf(on, {rows, width}, 1, dtype)},
                [at = indices(on, rows, 7, rows)](const auto& x) { return gather_rows(x[0], at); });
          }};
}

GpuCase batch_norm_case(std::int64_t rows, std::int64_t c) {
  const double n = d(rows * c);
  return {"batch_norm",
          fmt::format("N={} C={}", rows, c),
          d(kDesignTokens) / d(rows),
          fmt::format("N={} C={}", kDesignTokens, c),
          {{"batchnorm_forward", 4 * n + 16 * d(c), 4 * n, 3 * n},
           {"batchnorm_backward", 8 * n + 20 * d(c), 4 * n, 6 * n}},
          [=](Device on) {
            return both_ways({leaf(on, {rows, c}, 1), leaf(on, {c}, 2), leaf(on, {c}, 3)},
                             [](const auto& x) { return batch_norm(x[0], x[1], x[2]).y; });
          }};
}

// ---- without a formula here: their tests hold their own ----

GpuCase attention_case(int jets, std::int32_t length, std::int64_t heads, std::int64_t width) {
  const Segments s = jets_of(jets, length);
  return {"attention",
          fmt::format("B={} L={} H={} D={}", jets, length, heads, width),
          1000.0 / jets,
          fmt::format("B=1000 L={} H={} D={}", length, heads, width),
          {},
          [=](Device on) {
            return both_ways({leaf(on, {s.total(), 3, heads, width}, 1)},
                             [=](const auto& x) { return attention(x[0], s); });
          }};
}

GpuCase linear_case(std::int64_t t, std::int64_t in, std::int64_t out, DType dtype = DType::f32) {
  return {of_type("linear", dtype),
          fmt::format("T={} {}->{}", t, in, out),
          d(kDesignTokens) / d(t),
          fmt::format("T={} {}->{}", kDesignTokens, in, out),
          {},
          [=](Device on) {
            return both_ways(
                {leaf(on, {t, in}, 1, dtype), leaf(on, {out, in}, 2), leaf(on, {out}, 3)},
                [](const auto& x) { return linear(x[0], x[1], x[2], Activation::gelu); });
          }};
}

GpuCase cross_entropy_case(std::int64_t t, std::int64_t v) {
  return {"cross_entropy",
          fmt::format("T={} V={}", t, v),
          d(kDesignTokens) / d(t),
          fmt::format("T={} V={}", kDesignTokens, v),
          {},
          [=](Device on) {
            return [logits = leaf(on, {t, v}, 1), targets = indices(on, t, 5, v)] {
              const Tensor loss = cross_entropy(logits, targets);
              backward(mean(loss));
              return results(loss, {logits});
            };
          }};
}

// At the design's shape: bench/gpu/training_loss.h.
GpuCase fused_loss_case(std::int64_t width, Precision precision, bool gradients) {
  return {gradients ? "loss + gradients" : "loss",
          fmt::format("T=128 V=256 d={} {}", width, name(precision)),
          1,
          "",
          {},
          [=](Device on) {
            return [=, h = normal(on, {128, width}, 1).set_requires_grad(gradients),
                    w = normal(on, {256, width}, 2).set_requires_grad(gradients),
                    y = indices(on, 128, 5, 256)] {
              const PrecisionScope scope(precision);
              return std::vector<Tensor>{linear_cross_entropy(h, w, Tensor(), y)};
            };
          }};
}

GpuCase vq_case(std::int64_t t, std::int64_t k, std::int64_t width) {
  return {"vector_quantize",
          fmt::format("N={} K={} D={}", t, k, width),
          d(kDesignTokens) / d(t),
          fmt::format("N={} K={} D={}", kDesignTokens, k, width),
          {},
          [=](Device on) {
            return [z = leaf(on, {t, width}, 1), book = leaf(on, {k, width}, 2),
                    s = leaf(on, {width}, 3), b = leaf(on, {width}, 4),
                    up = normal(on, {t, width}, 5)] {
              const VqResult r = vector_quantize(z, book, s, b, {});
              backward(add(r.loss, weighted_sum(r.quantized, up)));
              return results(r.quantized, {z, book, s, b});
            };
          }};
}

// A step at the last row: it meets every row of the cache, its own included. Keys lie transposed,
// so that each number of a new one has a sector of its own.
GpuCase decode_case(std::int64_t slots, std::int64_t capacity) {
  const double rows = d(slots * 8), width = 32, cached = rows * width * d(capacity);
  return {"decode_attention",
          fmt::format("S={} L={} H=8 D=32", slots, capacity),
          1,
          "",
          {{"decode_attention_step", 12 * rows * width + 8 * d(slots) + 8 * cached,
            (32 + 4 + 4) * rows * width, 4 * cached}},
          [=](Device on) {
            const KeyValueCache cache{normal(on, {slots, 8, 32, capacity}, 2),
                                      normal(on, {slots, 8, capacity, 32}, 3)};
            const auto n = static_cast<std::size_t>(slots);
            std::vector<std::int32_t> slot(n);
            std::iota(slot.begin(), slot.end(), 0);
            const std::vector<std::int32_t> last(n, static_cast<std::int32_t>(capacity) - 1);
            return [=, qkv = normal(on, {slots, 3, 8, 32}, 1)] {
              return std::vector<Tensor>{decode_attention(qkv, cache, slot, last)};
            };
          }};
}

GpuCase sample_case(std::int64_t rows, std::int64_t v) {
  return {"sample", fmt::format("N={} V={}", rows, v), 1, "", {}, [=](Device on) {
            std::vector<float> u(static_cast<std::size_t>(rows), 0.4F);
            return [logits = normal(on, {rows, v}, 1), uniforms = Tensor::from(u, {rows}, on)] {
              return std::vector<Tensor>{sample(logits, {.top_k = 50, .top_p = 0.9F}, uniforms)};
            };
          }};
}

GpuCase losses_case(std::int64_t n, std::int64_t c) {
  return {"losses",
          fmt::format("N={} C={}", n, c),
          1,
          "",
          {{"residual_loss", 8 * d(n), 8 * d(n), 4 * d(n)}},
          [=](Device on) {
            return [p = leaf(on, {n}, 1), t = normal(on, {n}, 2), logits = leaf(on, {n / c, c}, 3),
                    targets = indices(on, n / c, 3, c), weight = normal(on, {c}, 4)] {
              const Tensor loss = squared_error(p, t);
              backward(mean(loss));
              backward(mean(focal_loss(logits, targets, weight, 2)));
              return results(loss, {p, logits});
            };
          }};
}

}  // namespace

std::vector<GpuCase> gpu_cases(Size size) {
  const auto at = [size](auto small, auto full) {
    return size == Size::small ? small : static_cast<decltype(small)>(full);
  };
  const auto tokens = [&](std::int64_t small) { return at(small, kDesignTokens); };
  const auto jets = [&](int small) { return at(small, 1000); };
  return {layer_norm_case(tokens(512), 256),
          layer_norm_case(tokens(300), 128),
          layer_norm_case(tokens(256), 1024),
          layer_norm_case(tokens(256), 512),
          layer_norm_case(tokens(512), 256, DType::bf16),
          layer_norm_case(tokens(300), 128, DType::bf16),
          layer_norm_case(tokens(256), 1024, DType::bf16),
          add_layer_norm_case(tokens(512), 256, DType::f32),
          add_layer_norm_case(tokens(512), 256, DType::bf16),
          softmax_case(tokens(256), 128),
          softmax_case(tokens(256), 512),
          softmax_case(tokens(64), 1504),
          elementwise_case(tokens(256), 256),
          elementwise_case(tokens(256), 256, DType::bf16),
          dropout_case(at(65536, kDesignTokens * 256)),
          dropout_case(at(65536, kDesignTokens * 256), DType::bf16),
          adamw_case(at(100000, 10000000)),
          reduce_case(at(200000, kDesignTokens * 256)),
          segment_case(Pool::mean, 256, at(1, 187)),
          segment_case(Pool::max, 256, at(1, 187)),
          segment_case(Pool::mean, 256, at(1, 187), DType::bf16),
          segment_case(Pool::max, 256, at(1, 187), DType::bf16),
          gather_case(tokens(256), 256),
          gather_case(tokens(256), 256, DType::bf16),
          batch_norm_case(tokens(512), 256),
          losses_case(8192, 8),
          attention_case(jets(8), 30, 8, 32),
          attention_case(jets(8), 50, 8, 32),
          attention_case(jets(4), 128, 8, 32),
          attention_case(jets(4), 40, 4, 8),
          attention_case(jets(4), 40, 4, 16),
          attention_case(jets(4), 40, 2, 64),
          linear_case(tokens(256), 256, 256),
          linear_case(tokens(256), 256, 1024),
          linear_case(tokens(256), 256, 1024, DType::bf16),
          cross_entropy_case(tokens(32), 8192),
          cross_entropy_case(tokens(256), 512),
          fused_loss_case(256, Precision::f32, false),
          fused_loss_case(256, Precision::bf16, false),
          fused_loss_case(512, Precision::bf16, false),
          fused_loss_case(64, Precision::bf16, true),
          fused_loss_case(128, Precision::bf16, true),
          fused_loss_case(256, Precision::bf16, true),
          vq_case(tokens(512), 512, 8),
          vq_case(tokens(256), 512, 64),
          decode_case(8, 40),
          sample_case(8, 8192)};
}

}  // namespace tessera::bench
