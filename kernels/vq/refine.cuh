// How far the coarse scores of a row can lie from the canonical ones, and those of its best
// candidate taken again, of the row in f32 and its codes in bf16, by the row's four lanes. Where
// one code leads all others by more than both can be wrong it is the nearest, and no code is read
// in f32: that is most rows, and half or less of the bytes.
#pragma once

#include "kernels/vq/coarse.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

/// Squares of the lengths of a row and of what its operands drop of it.
struct RowSize {
  float norm, rest;
};

/// The largest half norm of all codes, and the square of what operands drop of one at most.
struct Largest {
  float half_norm, rest;
};

/// How far a coarse or a refined score can lie from the canonical one. Above kHuge where nothing
/// can be said.
struct Bounds {
  float coarse, refined;
};

TESSERA_DEVICE float sum_over_quad(float v) {
  v += shfl_xor(v, 1);
  return v + shfl_xor(v, 2);
}

/// A lane's values of its row: dimensions 2 (lane % 4) and + 1 of each 8.
template <class P>
struct RowValues {
  static constexpr int kPairs = (P::kDims + 7) / 8;
  Float2 pair[kPairs];

  TESSERA_DEVICE explicit RowValues(const float* x) {
    const int first = 2 * (lane() % 4);
    TESSERA_UNROLL
    for (int i = 0; i < kPairs; ++i) {
      pair[i] = first < P::kDims ? pair_at(x + 8 * i + first) : Float2{0, 0};
    }
  }

  /// In each of the row's lanes.
  TESSERA_DEVICE RowSize size() const {
    RowSize sum{};
    TESSERA_UNROLL
    for (const Float2& v : pair) {
      const Float2 rest{dropped<P>(v.x), dropped<P>(v.y)};
      sum.norm = fma(v.x, v.x, fma(v.y, v.y, sum.norm));
      sum.rest = fma(rest.x, rest.x, fma(rest.y, rest.y, sum.rest));
    }
    return {sum_over_quad(sum.norm), sum_over_quad(sum.rest)};
  }
};

TESSERA_DEVICE Largest largest_of(const Search& search) {
  const int blocks = (search.parts * 8 + kThreads - 1) / kThreads;
  Largest all{};
  for (int i = lane(); i < blocks; i += 32) {
    all.half_norm = max(all.half_norm, ldg(search.largest + i));
    all.rest = max(all.rest, ldg(search.rest + i));
  }
  return {max_over_warp(all.half_norm), max_over_warp(all.rest)};
}

/// At most what the operands drop, the sums of kDims round and the group's bits hide, and products
/// that underflow. |x e - x' e'| <= |x - x'| |e| + |x'| |e - e'|, whose lengths are known: 0.4 of
/// what rounding could drop.
template <class P>
TESSERA_DEVICE Bounds bounds_of(const RowSize& size, const Largest& largest, std::uint32_t mask) {
  constexpr float kRounding = P::Number::kRounding;
  constexpr float kTiny = 0x1p-60F;  // its square is all that squares can lose
  const float x = 1.0001F * sqrt(size.norm) + kTiny;
  const float e = 1.0001F * sqrt(2 * largest.half_norm) + kTiny;
  const float x_rest = min(1.0001F * sqrt(size.rest) + kTiny, kRounding * x);
  const float e_rest = min(1.0001F * sqrt(largest.rest) + kTiny, kRounding * e);
  const float all = x * e + largest.half_norm;
  if (!(all < kHuge && x < kHuge)) {
    return {2 * kNoCode, 2 * kNoCode};
  }
  const float products = P::kSplit ? 0x1p-14F * (x * e) : x_rest * e + (x + x_rest) * e_rest;
  const float sums =
      (static_cast<float>(P::kDims) * 0x1p-21F + static_cast<float>(mask + 1) * 0x1p-23F) * all +
      0x1p-110F * (1 + x + e);
  return {1.001F * products + sums, 1.001F * (x * e_rest) + sums};
}

/// A code and its score, and the best score of all others of its candidate.
struct Refined {
  float best = -4 * kNoCode, second = -4 * kNoCode;
  int code = 0;

  TESSERA_DEVICE void take(float score, int its_code) {
    second = max(second, min(best, score));
    code = score > best ? its_code : code;
    best = max(best, score);
  }
};

// Four words of a code's operands, as score_parts takes them apart.
template <class P>
TESSERA_DEVICE Word4 operands_of(const SearchSmem<P>& s, const Search& search, int part, int i,
                                 int column) {
  const int at = (i * 32 + column * 4 + lane() % 4) * 4;
  if (P::kWhole) {
    return words_at(&s.codes[part / P::kStage][part % P::kStage * P::kPartWords + at]);
  }
  return ldg(reinterpret_cast<const Word4*>(search.coarse + part * P::kPartWords + at));
}
template <class P>
TESSERA_DEVICE float start_at(const SearchSmem<P>& s, const Search& search, int part, int column) {
  return P::kWhole ? s.start[part / P::kStage][start_place<P>(part % P::kStage, column)]
                   : ldg(search.start + start_place<P>(part, column));
}

// The sum over the quad of v[l], in its lane l.
TESSERA_DEVICE float sum_of_own(const float (&v)[4]) {
  const bool odd = lane() % 2 != 0;
  const bool upper = lane() / 2 % 2 != 0;
  const float low = (odd ? v[1] : v[0]) + shfl_xor(odd ? v[0] : v[1], 1);
  const float high = (odd ? v[3] : v[2]) + shfl_xor(odd ? v[2] : v[3], 1);
  return (upper ? high : low) + shfl_xor(upper ? low : high, 2);
}

// Each lane's part of the products of its row with four codes, those of columns `column` and + 1 of
// two parts. `flip` puts the second column first: two rows read other banks then.
template <class P>
TESSERA_DEVICE void multiply_four(const SearchSmem<P>& s, const Search& search, int part,
                                  int column, int flip, const RowValues<P>& x, float (&sum)[4]) {
  TESSERA_UNROLL
  for (float& each : sum) {
    each = 0;
  }
  TESSERA_UNROLL
  for (int c = 0; c < 2; ++c) {
    TESSERA_UNROLL
    for (int i = 0; i < P::kSteps; ++i) {
      const Word4 four = operands_of(s, search, part, i, column + (c ^ flip));
      TESSERA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int block = 4 * i + e;
        float& to = sum[block / (2 * P::kSteps) * 2 + c];
        const Float2 v = x.pair[block % (2 * P::kSteps)];
        to = fma(v.x, std::bit_cast<float>(four.w[e] << 16U), to);
        to = fma(v.y, std::bit_cast<float>(four.w[e] & 0xffff0000U), to);
      }
    }
  }
}

/// The best of a candidate's codes for the row whose values its four lanes have. Nothing where
/// there is no such group.
template <class P>
TESSERA_DEVICE Refined refine(const SearchSmem<P>& s, const Search& search, const RowValues<P>& x,
                              int group, int quad_lane) {
  const int own = lane() % 4;
  const int flip = lane() / 4 % 2;
  Refined found;
  TESSERA_KEEP_ROLLED
  for (int four = 0; four < P::kGroup / 2; ++four) {
    const int part = group * P::kGroup + 2 * four;
    const bool there = part < search.parts;
    const int of = own ^ flip;  // the code of the four whose sum this lane has
    float sum[4];
    multiply_four(s, search, there ? part : 0, 2 * quad_lane, flip, x, sum);
    const float start = start_at(s, search, (there ? part : 0) + of / 2, 2 * quad_lane + of % 2);
    const float score = start + sum_of_own(sum);
    if (there) {
      found.take(score, code_of_candidate<P>(group, quad_lane, 4 * four + of));
    }
  }
  TESSERA_UNROLL
  for (int step = 1; step < 4; step *= 2) {
    const float score = shfl_xor(found.best, step);
    const float second = shfl_xor(found.second, step);
    found.take(score, shfl_xor(found.code, step));
    found.second = max(found.second, second);
  }
  return found;
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
