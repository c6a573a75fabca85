// How far the coarse scores of a row can lie from the canonical ones, and those of its best
// candidates taken again, of the row in f32 and their codes in bf16, by the row's four lanes. Where
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

/// How far a coarse or a refined score can lie from the canonical one, or one of f32 operands,
/// summed in any order. Above kHuge where nothing can be said.
struct Bounds {
  float coarse, refined, full;
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
    return {2 * kNoCode, 2 * kNoCode, 2 * kNoCode};
  }
  const float products = P::kSplit ? 0x1p-14F * (x * e) : x_rest * e + (x + x_rest) * e_rest;
  const float tiny = 0x1p-110F * (1 + x + e);
  const float sums =
      (static_cast<float>(P::kDims) * 0x1p-21F + static_cast<float>(mask + 1) * 0x1p-23F) * all +
      tiny;
  return {1.001F * products + sums, 1.001F * (x * e_rest) + sums,
          static_cast<float>(P::kDims) * 0x1p-22F * all + tiny};
}

/// The two best codes of those refined, and the best score of all others.
struct Refined {
  float best = -4 * kNoCode, second = -4 * kNoCode, third = -4 * kNoCode;
  int code = 0, second_code = 0;

  TESSERA_DEVICE void take(float score, int its_code) {
    const bool leads = score > best;
    const bool follows = !leads && score > second;
    third = leads || follows ? second : max(third, score);
    second = leads ? best : follows ? score : second;
    second_code = leads ? code : follows ? its_code : second_code;
    best = leads ? score : best;
    code = leads ? its_code : code;
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
// parts `part` and + 1; zeros where that is -1. `flip` puts the second column first: two rows read
// other banks then.
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
      const Word4 four = part < 0 ? Word4{} : operands_of(s, search, part, i, column + (c ^ flip));
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

/// Scores a candidate's codes for the row whose values its four lanes have; each lane takes a
/// fourth of them. None where there is no such group, or it is not wanted.
template <class P>
TESSERA_DEVICE void refine(const SearchSmem<P>& s, const Search& search, const RowValues<P>& x,
                           int group, int quad_lane, bool wanted, Refined& found) {
  const int own = lane() % 4;
  const int flip = lane() / 4 % 2;
  TESSERA_KEEP_ROLLED
  for (int four = 0; four < P::kGroup / 2; ++four) {
    const int part = group * P::kGroup + 2 * four;
    const bool there = wanted && part < search.parts;
    const int of = own ^ flip;  // the code of the four whose sum this lane has
    float sum[4];
    multiply_four(s, search, there ? part : -1, 2 * quad_lane, flip, x, sum);
    const float score = sum_of_own(sum);
    if (there) {
      const float start = start_at(s, search, part + of / 2, 2 * quad_lane + of % 2);
      found.take(start + score, code_of_candidate<P>(group, quad_lane, 4 * four + of));
    }
  }
}

/// Of what the four lanes of a row found, in each of them.
TESSERA_DEVICE Refined found_by_quad(Refined mine) {
  TESSERA_UNROLL
  for (int step = 1; step < 4; step *= 2) {
    const Refined other{shfl_xor(mine.best, step), shfl_xor(mine.second, step),
                        shfl_xor(mine.third, step), shfl_xor(mine.code, step),
                        shfl_xor(mine.second_code, step)};
    mine.take(other.best, other.code);
    mine.take(other.second, other.second_code);
    mine.third = max(mine.third, other.third);
  }
  mine.code = shfl_idx(mine.code, lane() & 28);  // lanes put equal scores in other orders
  mine.second_code = shfl_idx(mine.second_code, lane() & 28);
  return mine;
}

/// How far the row's score with code a lies above that with b, in f32, by the row's four lanes.
template <class P>
TESSERA_DEVICE float lead_of(const RowValues<P>& x, const float* exact, int a, int b, bool wanted,
                             int dims, View<const float, 1> half_norms) {
  const int quads = (dims + 3) / 4;
  const int of_four = lane() % 2 * 2;
  float lead = 0;
  TESSERA_UNROLL
  for (int i = 0; i < RowValues<P>::kPairs; ++i) {
    const int d4 = 2 * i + lane() % 4 / 2;
    if (wanted && d4 < quads) {
      const Float2 ea = ldg_pair(exact + exact_place<P>(a, d4, quads) + of_four);
      const Float2 eb = ldg_pair(exact + exact_place<P>(b, d4, quads) + of_four);
      lead = fma(x.pair[i].x, ea.x, fma(x.pair[i].y, ea.y, lead));
      lead = fma(-x.pair[i].x, eb.x, fma(-x.pair[i].y, eb.y, lead));
    }
  }
  const float half_norm = wanted ? ldg(half_norms.data + b) - ldg(half_norms.data + a) : 0.0F;
  return sum_over_quad(lead) + half_norm;
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
