// The norm in fixed blocks, the report of it, and one streaming pass over the flat buffers, 28
// bytes a parameter. The update reads the report where it lies, so the host waits for nothing.
#include <bit>

#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/adamw/adamw_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

constexpr int kItems = kSquaredNormBlock / kThreads;

struct NormSmem {
  float top[kWarps], sum[kWarps];
  std::int32_t bad[kWarps];
};

TESSERA_DEVICE bool finite(float x) {
  return (std::bit_cast<std::uint32_t>(x) >> 23U & 255U) != 255U;
}

// The power of two that brings x, not negative, into [1, 2), or near it at the ends of the range;
// infinity and NaN stay what they are when multiplied by it.
TESSERA_DEVICE float inverse_power(float x) {
  constexpr std::uint32_t kMost = 253;
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(x) >> 23U;
  return std::bit_cast<float>((254U - (exponent < kMost ? exponent : kMost)) << 23U);
}

// Values of the warps in order, by each thread for itself.
template <class T, class Merge>
TESSERA_DEVICE T over_warps(const T (&parts)[kWarps], Merge merge) {
  T all = parts[0];
  for (int w = 1; w < kWarps; ++w) {
    all = merge(all, parts[w]);
  }
  return all;
}

TESSERA_DEVICE float plus(float a, float b) { return a + b; }
TESSERA_DEVICE std::int32_t lesser(std::int32_t a, std::int32_t b) { return a < b ? a : b; }

// 16 squares a thread, then the warp by halves, then the warps in order.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    norm_kernel(View<const float, 1> x, View<float, 2> out, View<std::int32_t, 1> bad) {
  TESSERA_SMEM(NormSmem, s);
  const std::int64_t begin = static_cast<std::int64_t>(block_idx().x) * kSquaredNormBlock;
  float value[kItems];
  float top = 0;
  std::int32_t first_bad = kSquaredNormBlock;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const int place = linear_thread() + i * kThreads;
    value[i] = begin + place < x.shape[0] ? ldg(x.data + begin + place) : 0.0F;
    top = max(top, value[i] < 0 ? -value[i] : value[i]);
    first_bad = finite(value[i]) ? first_bad : lesser(first_bad, place);
  }
  top = max_over_warp(top);
  first_bad = reduce_min(first_bad);
  if (lane() == 0) {
    s.top[warp()] = top;
    s.bad[warp()] = first_bad;
  }
  sync_block();
  const float power = inverse_power(over_warps(s.top, [](float a, float b) { return max(a, b); }));
  float total = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const float scaled = value[i] * power;
    total = fma(scaled, scaled, total);
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.sum[warp()] = total;
  }
  sync_block();
  if (linear_thread() == 0) {
    stg(&out(0, block_idx().x), over_warps(s.sum, plus));
    stg(&out(1, block_idx().x), power);
    stg(&bad(block_idx().x), over_warps(s.bad, lesser));
  }
}

struct ReportSmem {
  float power[kWarps], sum[kWarps];
  std::int32_t bad[kWarps];
};

constexpr std::int32_t kNone = 0x7fffffff;

// Of two powers of two, at most 1: exact, and 0 below the normal numbers.
TESSERA_DEVICE float quotient(float power, float larger) {
  const std::uint32_t gap =
      (std::bit_cast<std::uint32_t>(larger) - std::bit_cast<std::uint32_t>(power)) >> 23U;
  return gap < 127 ? std::bit_cast<float>((127U - gap) << 23U) : 0.0F;
}

// Writes what the update needs and what the host may want to know.
TESSERA_DEVICE void write_report(float total, float power, std::int32_t block, std::int32_t offset,
                                 bool loss_finite, float clip_norm, View<float, 1> report) {
  const std::int32_t verdict = !loss_finite ? kLossNotFinite : block == kNone ? kAllFinite : block;
  // |g| = root / power may leave the range of f32; the quotient that is wanted does not.
  const float root = sqrt(total);
  const float clip = clip_norm > 0 ? min(1.0F, clip_norm * power / (root + 1e-6F * power)) : 1.0F;
  stg(&report(AdamWReport::root), root);
  stg(&report(AdamWReport::power), power);
  stg(&report(AdamWReport::clip), clip);
  stg(&report(AdamWReport::bad_block), std::bit_cast<float>(verdict));
  stg(&report(AdamWReport::bad_offset), std::bit_cast<float>(offset));
}

// One block: the smallest power of the partial sums, then the sums brought to it; a thread takes
// every 256th, then the warp by halves, then the warps in order.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    report_kernel(View<const float, 2> partials, View<const std::int32_t, 1> bad,
                  View<const float, 1> loss, float clip_norm, View<float, 1> report) {
  TESSERA_SMEM(ReportSmem, s);
  const int blocks = static_cast<int>(partials.shape[1]);
  float least = 0x1p127F;
  std::int32_t bad_block = kNone;
  for (int b = linear_thread(); b < blocks; b += kThreads) {
    least = min(least, ldg(&partials(1, b)));
    bad_block = ldg(&bad(b)) < kSquaredNormBlock ? lesser(bad_block, b) : bad_block;
  }
  least = -max_over_warp(-least);
  bad_block = reduce_min(bad_block);
  if (lane() == 0) {
    s.power[warp()] = least;
    s.bad[warp()] = bad_block;
  }
  sync_block();
  const float power = over_warps(s.power, [](float a, float b) { return min(a, b); });
  float total = 0;
  for (int b = linear_thread(); b < blocks; b += kThreads) {
    const float share = quotient(power, ldg(&partials(1, b)));
    total = fma(ldg(&partials(0, b)) * share, share, total);
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.sum[warp()] = total;
  }
  sync_block();
  if (linear_thread() == 0 &&
      std::bit_cast<std::int32_t>(ldg(&report(AdamWReport::bad_block))) == kAllFinite) {
    const std::int32_t block = over_warps(s.bad, lesser);
    write_report(over_warps(s.sum, plus), power, block, block == kNone ? 0 : ldg(&bad(block)),
                 finite(ldg(loss.data)), clip_norm, report);
  }
}

// The span of element i, searched for from the first of its block on.
TESSERA_DEVICE std::int32_t span_of(const AdamWTables& t, std::int64_t i) {
  std::int32_t span = ldg(&t.first(i / kAdamWBlock));
  while (ldg(&t.ends(span)) <= i) {
    ++span;
  }
  return span;
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    update_kernel(View<float, 1> p, View<const float, 1> g, View<float, 1> m, View<float, 1> v,
                  AdamWTables t, AdamWConstants c) {
  if (std::bit_cast<std::int32_t>(ldg(&t.report(AdamWReport::bad_block))) != kAllFinite) {
    return;
  }
  const float clip = ldg(&t.report(AdamWReport::clip));
  const float correction = ldg(&t.rates(AdamWRates::correction));
  const float root_correction = ldg(&t.rates(AdamWRates::root_correction));
  const std::int64_t begin =
      static_cast<std::int64_t>(block_idx().x) * kAdamWBlock + linear_thread();
  for (std::int64_t i = begin; i < begin + kAdamWBlock && i < p.shape[0]; i += kThreads) {
    const std::int32_t span = span_of(t, i);
    const float lr = ldg(&t.rates(AdamWRates::lr)) * ldg(&t.scales(span, 0));
    const float decay = 1.0F - lr * c.weight_decay * ldg(&t.scales(span, 1));
    const float gradient = clip * ldg(g.data + i);
    const float mi = fma(c.beta1, ldg(m.data + i), (1.0F - c.beta1) * gradient);
    const float vi = fma(c.beta2, ldg(v.data + i), (1.0F - c.beta2) * (gradient * gradient));
    const float root = fma(sqrt(vi), root_correction, c.eps);
    stg(p.data + i, decay * ldg(p.data + i) - lr * correction * mi / root);
    stg(m.data + i, mi);
    stg(v.data + i, vi);
  }
}

}  // namespace

void squared_norm_blocks(View<const float, 1> x, View<float, 2> out, View<std::int32_t, 1> bad,
                         Stream stream) {
  if (out.shape[1] > 0) {
    launch(norm_kernel,
           {"squared_norm_blocks",
            {static_cast<unsigned>(out.shape[1])},
            {kThreads},
            sizeof(NormSmem),
            stream},
           x, out, bad);
  }
}

void adamw_report(View<const float, 2> partials, View<const std::int32_t, 1> bad,
                  View<const float, 1> loss, float clip_norm, View<float, 1> report,
                  Stream stream) {
  launch(report_kernel, {"adamw_report", {1}, {kThreads}, sizeof(ReportSmem), stream}, partials,
         bad, loss, clip_norm, report);
}

void adamw_update_spans(View<float, 1> p, View<const float, 1> g, View<float, 1> m,
                        View<float, 1> v, AdamWTables tables, AdamWConstants constants,
                        Stream stream) {
  if (p.shape[0] > 0) {
    launch(update_kernel,
           {"adamw_update", {blocks_for(p.shape[0], kAdamWBlock)}, {kThreads}, 0, stream}, p, g, m,
           v, tables, constants);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
