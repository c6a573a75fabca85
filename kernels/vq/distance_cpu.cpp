// Distances by halfs, kept as floats that a half can hold: the rounding is bit arithmetic, so that
// every SIMD level has it.
#include "kernels/vq/distance.h"

#include "core/parallel.h"
#include "core/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vq/distance_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

#ifndef TESSERA_VQ_DISTANCE_ONCE
#define TESSERA_VQ_DISTANCE_ONCE
namespace tessera::cpu {
/// Codes transposed to (width, room), rounded to half, and their norms. Places beyond the last code
/// have an infinite norm.
struct HalfCodes {
  float *values, *norm;
  std::int64_t width, count, room;
};
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

using Bits = hn::RebindToSigned<D>;

std::int64_t LanesOfCodes() { return LaneCount(); }

// Each lane to the nearest half, ties to even.
HWY_INLINE V Half(V x) {
  const Bits bits;
  const V size = hn::Abs(x);
  const auto whole = hn::BitCast(bits, size);
  const auto odd = hn::And(hn::ShiftRight<13>(whole), hn::Set(bits, 1));
  const auto carried = hn::Add(whole, hn::Add(odd, hn::Set(bits, 0xFFF)));
  const V normal = hn::BitCast(D(), hn::AndNot(hn::Set(bits, 0x1FFF), carried));
  // Below 2^-14 halfs are multiples of 2^-24, as floats from 1/2 to 1 are.
  const V half = hn::Set(D(), 0.5F);
  const V small = hn::Sub(hn::Add(size, half), half);
  V rounded = hn::IfThenElse(hn::Lt(size, hn::Set(D(), 0x1p-14F)), small, normal);
  rounded = hn::IfThenElse(hn::Ge(rounded, hn::Set(D(), 65536.0F)), hn::Inf(D()), rounded);
  return hn::CopySign(hn::IfThenElse(hn::IsNaN(x), x, rounded), x);
}

HWY_INLINE float Half(float x) { return hn::GetLane(Half(hn::Set(D(), x))); }

// out[d * stride] = row[d] times `factor` as halfs; returns the norm of the row.
float RoundRow(const float* row, std::int64_t width, float factor, float* out,
               std::int64_t stride) {
  float norm = 0;
  for (std::int64_t d = 0; d < width; ++d) {
    const float x = Half(row[d]);
    norm += Half(x * x);
    out[d * stride] = factor * x;
  }
  return Half(norm);
}

// Places [begin, end) of the codes e.
void PackHalfs(View<const float, 2> e, std::int64_t begin, std::int64_t end, const HalfCodes& out) {
  for (std::int64_t k = begin; k < end; ++k) {
    if (k < out.count) {
      out.norm[k] = RoundRow(e.row(k), out.width, 1, out.values + k, out.room);
      continue;
    }
    out.norm[k] = hn::GetLane(hn::Inf(D()));
    for (std::int64_t d = 0; d < out.width; ++d) {
      out.values[d * out.room + k] = 0;
    }
  }
}

// Distances of the row from a vector of codes; the row comes times -2, which halfs hold exactly.
HWY_INLINE V Distances(const HalfCodes& codes, std::int64_t k, const float* row, float norm) {
  V sum = hn::Zero(D());
  for (std::int64_t d = 0; d < codes.width; ++d) {
    sum = hn::MulAdd(hn::Set(D(), row[d]), hn::LoadU(D(), codes.values + d * codes.room + k), sum);
  }
  sum = hn::Add(hn::Add(sum, hn::Set(D(), norm)), hn::LoadU(D(), codes.norm + k));
  const V squared = Half(sum);
  const V zero = hn::Zero(D());  // not Max, which takes NaN for it
  return Half(hn::Sqrt(hn::IfThenElse(hn::Lt(squared, zero), zero, squared)));
}

// `row` has room for the width.
std::int32_t NearestHalf(const HalfCodes& codes, const float* z, float* row) {
  constexpr std::int32_t kNone = 0x7fffffff;
  const Bits bits;
  const float norm = RoundRow(z, codes.width, -2, row, 1);
  V best = hn::Inf(D());
  auto winner = hn::Set(bits, kNone);
  for (std::int64_t k = 0; k < codes.room; k += LaneCount()) {
    const V distance = Distances(codes, k, row, norm);
    const auto better = hn::Lt(distance, best);
    best = hn::IfThenElse(better, distance, best);
    winner = hn::IfThenElse(hn::RebindMask(bits, better),
                            hn::Iota(bits, static_cast<std::int32_t>(k)), winner);
  }
  const auto least = hn::RebindMask(bits, hn::Eq(best, hn::MinOfLanes(D(), best)));
  const std::int32_t first =
      hn::GetLane(hn::MinOfLanes(bits, hn::IfThenElse(least, winner, hn::Set(bits, kNone))));
  return first == kNone ? 0 : first;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(LanesOfCodes);
HWY_EXPORT(PackHalfs);
HWY_EXPORT(NearestHalf);

void vq_nearest_half(View<const float, 2> z, View<const float, 2> e, View<std::int32_t, 1> codes) {
  constexpr std::int64_t kRows = 16, kCodes = 256;
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(LanesOfCodes)(), width = z.shape[1];
  const std::int64_t rows = z.shape[0], chunks = chunk_count(rows, kRows);
  const std::int64_t room = chunk_count(e.shape[0], lanes) * lanes;
  float* memory = thread_scratch(room * (width + 1) + chunks * width);
  float* scaled = memory + room * (width + 1);  // a row for each chunk
  const HalfCodes half{memory, memory + room * width, width, e.shape[0], room};
  parallel_for(chunk_count(room, kCodes), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kCodes, left = room - begin;
    HWY_DYNAMIC_DISPATCH(PackHalfs)(e, begin, begin + (left < kCodes ? left : kCodes), half);
  });
  parallel_for(chunks, [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kRows, end = begin + kRows < rows ? begin + kRows : rows;
    for (std::int64_t i = begin; i < end; ++i) {
      codes(i) = HWY_DYNAMIC_DISPATCH(NearestHalf)(half, z.row(i), scaled + chunk * width);
    }
  });
}

}  // namespace tessera::cpu
#endif
