#include "bench/support/roof.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/matmul/precision.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/support/roof.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tessera::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX3
constexpr int kChains =
    28;  // more than latency x ports; the multiplier and the sums fit 32 registers
#else
constexpr int kChains = 12;
#endif

// `rounds` multiply-adds on each chain; returns the floating-point operations done. The sums leave
// through `sink`, so that no compiler drops them.
double MultiplyAdds(std::int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kChains];
  for (int i = 0; i < kChains; ++i) {
    sum[i] = hn::Set(d, static_cast<float>(i));
  }
  const auto x = hn::Set(d, *sink);
  for (std::int64_t r = 0; r < rounds; ++r) {
    HWY_UNROLL(28)
    for (int i = 0; i < kChains; ++i) {
      sum[i] = hn::MulAdd(sum[i], x, x);
    }
  }
  auto total = sum[0];
  for (int i = 1; i < kChains; ++i) {
    total = hn::Add(total, sum[i]);
  }
  *sink = hn::GetLane(total);
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds);
}

}  // namespace tessera::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::bench {
HWY_EXPORT(MultiplyAdds);

// bf16_roof_unit.cpp
double dots(std::int64_t rounds, float* sink);
double tiles(std::int64_t rounds);

namespace {

// Best rate in units of 1e9 per second; body returns the work it did.
template <class Body>
double best_rate(int runs, Body body) {
  double best = 0;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double work = body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 1e-9 * work / seconds.count());
  }
  return best;
}

double measure_fma() {
  volatile float half = 0.5F;  // sums stay near 1: neither denormal nor infinite
  return best_rate(30, [&] {
    float x = half;
    const double flops = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(200'000, &x);
    volatile float keep = x;
    static_cast<void>(keep);
    return flops;
  });
}

double measure_bf16() {
  volatile float one = 1;
  return best_rate(30, [&] {
    float x = one;
    const double flops = bf16_unit() == Bf16Unit::tiles  ? tiles(20'000)
                         : bf16_unit() == Bf16Unit::dots ? dots(100'000, &x)
                                                         : 0;
    volatile float keep = x;
    static_cast<void>(keep);
    return flops;
  });
}

double measure_copy() {
  constexpr std::size_t kBytes = 20'000'000;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  return best_rate(20, [&] {
    std::memcpy(to.data(), from.data(), kBytes);
    volatile char keep = to[kBytes / 2];
    static_cast<void>(keep);
    return 2.0 * kBytes;
  });
}

}  // namespace

double fma_roof() {
  static const double roof = measure_fma();
  return roof;
}

double bf16_roof() {
  static const double roof = measure_bf16();
  return roof;
}

double copy_roof() {
  static const double roof = measure_copy();
  return roof;
}

}  // namespace tessera::bench
#endif
