// A block per row. The draw is that of the cpu to the last bit: the same double additions and
// multiplications in the same order, none fused, so that a sequence does not change with the device
// that generates it. (Elsewhere kernels have no doubles; here they decide between equal draws, and
// a row is a few thousand operations.) Weights are not stored but made again where they are needed:
// once for the sums of 64 classes, for the ranks that top-k and top-p look at, for the truncated
// sums and for the block that is drawn. Ranking sorts all classes of the row in shared memory.
#include <bit>

#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/sample/sample_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;
constexpr int kBlock = 64;  // classes of a partial sum
constexpr float kNever = -__builtin_huge_valf();
constexpr int kMostClasses = 16384;

template <int kClasses>
struct Smem {
  std::uint64_t keys[kClasses];
  double sums[kClasses / kBlock];
  double ranked[kThreads];  // weights of the ranks in hand
  double before, total;     // weight of the ranks before them, and of all
  std::uint64_t last;       // key of the last class that is kept
  float top[kThreads / 32];
  std::int32_t first[kThreads / 32];
};

// e^y for y <= 0, zero below -700, as the cpu computes it: 2^n e^r with |r| <= ln 2 / 2, ln 2 in
// two parts, Taylor's series to r^11.
TESSERA_DEVICE double weight_of(double y) {
  constexpr double kTerms[] = {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                               1.0 / 720,     1.0 / 120,    1.0 / 24,    1.0 / 6,
                               0.5,           1.0,          1.0};
  const double shifted =
      y * 1.4426950408889634 + 0x1.8p52;  // rounded to an integer in the low bits
  const double n = shifted - 0x1.8p52;
  double r = y - n * 0x1.62e42fee00000p-1;
  r = r - n * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 39916800;
  TESSERA_UNROLL
  for (const double term : kTerms) {
    p = p * r + term;
  }
  const std::uint64_t power = std::bit_cast<std::uint64_t>(shifted) << 52U;
  return y < -700.0 ? 0.0 : std::bit_cast<double>(std::bit_cast<std::uint64_t>(p) + power);
}

// Grows with the logit and, between equal ones, falls with the index.
TESSERA_DEVICE std::uint64_t rank_key(float logit, std::int64_t index) {
  const auto bits = std::bit_cast<std::uint32_t>(add(logit, 0.0F));  // -0 equals 0
  const std::uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return std::uint64_t{rising} << 32U | (0xFFFFFFFFU - static_cast<std::uint32_t>(index));
}

/// A row's logits, -inf where a class may not be drawn, and their weights.
struct Row {
  const float* logits;
  const std::uint8_t* excluded;
  std::int64_t classes;
  double top, rate;

  TESSERA_DEVICE float logit(std::int64_t j) const {
    return j < classes && ldg(excluded + j) == 0 ? ldg(logits + j) : kNever;
  }
  TESSERA_DEVICE double weight(float x) const {
    return weight_of((static_cast<double>(x) - top) * rate);
  }
  TESSERA_DEVICE double weight_at(std::int64_t j) const { return weight(logit(j)); }
  [[nodiscard]] TESSERA_DEVICE std::int64_t blocks() const {
    return (classes + kBlock - 1) / kBlock;
  }
};

// The largest logit; NaN where one is NaN or +inf.
template <int kClasses>
TESSERA_DEVICE float largest(const Row& row, Smem<kClasses>& s) {
  float top = kNever;
  bool fine = true;
  for (std::int64_t j = linear_thread(); j < row.classes; j += kThreads) {
    const float x = row.logit(j);
    fine = fine && x < -kNever;  // false for NaN
    top = max(top, x);
  }
  top = max_over_warp(top);
  if (lane() == 0) {
    s.top[warp()] = top;
  }
  const bool all_fine = sync_block_and(fine);
  for (const float other : s.top) {
    top = max(top, other);
  }
  return all_fine ? top : __builtin_nanf("");
}

// The first class with the largest logit, in every thread.
template <int kClasses>
TESSERA_DEVICE std::int32_t first_of(const Row& row, float top, Smem<kClasses>& s) {
  std::int32_t first = kMostClasses;
  for (std::int64_t j = linear_thread(); j < row.classes && first == kMostClasses; j += kThreads) {
    first = row.logit(j) == top ? static_cast<std::int32_t>(j) : first;
  }
  first = reduce_min(first);
  if (lane() == 0) {
    s.first[warp()] = first;
  }
  sync_block();
  for (const std::int32_t other : s.first) {
    first = other < first ? other : first;
  }
  return first;
}

// s.sums: eight lanes have a block of 64 classes, each a running sum over every eighth of it.
template <int kClasses>
TESSERA_DEVICE void sum_blocks(const Row& row, Smem<kClasses>& s) {
  const std::int64_t rounds = (row.blocks() + kThreads / 8 - 1) / (kThreads / 8);
  for (std::int64_t round = 0; round < rounds; ++round) {
    const std::int64_t block = round * (kThreads / 8) + linear_thread() / 8;
    double sum = 0;
    for (int i = lane() % 8; i < kBlock; i += 8) {
      sum = sum + row.weight_at(block * kBlock + i);
    }
    for (int step = 1; step < 8; step *= 2) {
      sum = sum + shfl_xor(sum, step);
    }
    if (lane() % 8 == 0 && block < row.blocks()) {
      s.sums[block] = sum;
    }
  }
  sync_block();
}

TESSERA_DEVICE double total_of(const double* sums, std::int64_t blocks) {
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    total = total + sums[b];
  }
  return total;
}

// Sorts s.keys[0 .. n) in falling order, n a power of two (Batcher's bitonic network).
template <int kClasses>
TESSERA_DEVICE void sort_keys(Smem<kClasses>& s, int n) {
  for (int run = 2; run <= n; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      sync_block();
      for (int i = linear_thread(); i < n / 2; i += kThreads) {
        const int low = i / step * 2 * step + i % step;
        const std::uint64_t a = s.keys[low];
        const std::uint64_t b = s.keys[low + step];
        const bool falling = (low & run) == 0;
        if (falling ? a < b : b < a) {
          s.keys[low] = b;
          s.keys[low + step] = a;
        }
      }
    }
  }
  sync_block();
}

template <int kClasses>
TESSERA_DEVICE void rank_classes(const Row& row, Smem<kClasses>& s) {
  int n = 1;
  while (n < row.classes) {
    n *= 2;
  }
  for (int j = linear_thread(); j < n; j += kThreads) {
    s.keys[j] = j < row.classes ? rank_key(row.logit(j), j) : 0;
  }
  sort_keys(s, n);
}

// Adds the weights of ranks 0 .. most - 1 in order, until they reach `enough`; thread 0 has the
// result in s.before and the last key that it added in s.last.
template <int kClasses>
TESSERA_DEVICE void add_ranks(const Row& row, std::int64_t most, double enough, Smem<kClasses>& s) {
  if (linear_thread() == 0) {
    s.before = 0;
  }
  bool more = true;
  for (std::int64_t begin = 0; begin < most && more; begin += kThreads) {
    const std::int64_t i = begin + linear_thread();
    if (i < most) {
      const auto index = 0xFFFFFFFFU - static_cast<std::uint32_t>(s.keys[i]);
      s.ranked[linear_thread()] = row.weight_at(index);
    }
    sync_block();
    if (linear_thread() == 0) {
      const std::int64_t end = most - begin < kThreads ? most - begin : kThreads;
      for (std::int64_t r = 0; r < end && s.before < enough; ++r) {
        s.before = s.before + s.ranked[r];
        s.last = s.keys[begin + r];
      }
      more = s.before < enough;
    }
    more = sync_block_or(linear_thread() == 0 && more);
  }
}

// Leaves in s.sums what top-k and top-p keep: classes ranked down to s.last.
template <int kClasses>
TESSERA_DEVICE void truncate(const Row& row, const SampleRule& rule, Smem<kClasses>& s) {
  constexpr double kAll = __builtin_huge_val();
  rank_classes(row, s);
  const std::int64_t most = rule.top_k > 0 && rule.top_k < row.classes ? rule.top_k : row.classes;
  if (rule.top_k > 0) {
    add_ranks(row, most, kAll, s);
  }
  if (linear_thread() == 0) {
    s.total = rule.top_k > 0 ? s.before : total_of(s.sums, row.blocks());
  }
  sync_block();
  if (rule.top_p < 1) {
    add_ranks(row, most, static_cast<double>(rule.top_p) * s.total, s);
  }
  for (std::int64_t b = linear_thread(); b < row.blocks(); b += kThreads) {
    double sum = 0;
    for (std::int64_t j = b * kBlock; j < (b + 1) * kBlock; ++j) {
      const float x = row.logit(j);
      if (j < row.classes && rank_key(x, j) >= s.last) {
        sum = sum + row.weight(x);
      }
    }
    s.sums[b] = sum;
  }
  sync_block();
}

/// Weights after truncation, for the one thread that draws.
template <int kClasses>
struct Kept {
  const Row& row;
  const Smem<kClasses>& s;
  bool truncated;

  TESSERA_DEVICE double weight(std::int64_t j) const {
    const float x = row.logit(j);
    const bool kept = !truncated || (j < row.classes && rank_key(x, j) >= s.last);
    return kept ? row.weight(x) : 0.0;
  }
  // The last class of a positive weight in [begin, end); -1 if none.
  [[nodiscard]] TESSERA_DEVICE std::int64_t last_possible(std::int64_t begin,
                                                          std::int64_t end) const {
    for (std::int64_t j = end; j > begin; --j) {
      if (weight(j - 1) > 0) {
        return j - 1;
      }
    }
    return -1;
  }
};

template <int kClasses>
TESSERA_DEVICE std::int64_t invert(const Kept<kClasses>& kept, double uniform) {
  const std::int64_t blocks = kept.row.blocks();
  const double target = uniform * total_of(kept.s.sums, blocks);
  double before = 0;
  std::int64_t block = 0;
  while (block < blocks && !(before + kept.s.sums[block] > target)) {
    before = before + kept.s.sums[block++];
  }
  if (block == blocks) {  // rounding left the sum short of the target
    return kept.last_possible(0, kept.row.classes);
  }
  const std::int64_t begin = block * kBlock;
  for (std::int64_t j = begin; j < begin + kBlock; ++j) {
    before = before + kept.weight(j);
    if (before > target) {
      return j;
    }
  }
  return kept.last_possible(begin, begin + kBlock);
}

template <int kClasses>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    sample_kernel(View<const float, 2> logits, View<const float, 1> uniforms, SampleRule rule,
                  View<std::int32_t, 1> out) {
  TESSERA_SMEM(Smem<kClasses>, s);
  const std::int64_t i = block_idx().x;
  Row row{logits.row(i), rule.excluded, logits.shape[1], 0, 0};
  const float top = largest(row, s);
  std::int64_t drawn = -1;
  if (top > kNever) {  // the same in all threads; false for NaN
    if (rule.temperature == 0.0F) {
      drawn = first_of(row, top, s);
    } else {
      row.top = static_cast<double>(top);
      row.rate = 1.0 / static_cast<double>(rule.temperature);
      sum_blocks(row, s);
      const bool truncated = rule.top_k > 0 || rule.top_p < 1;
      if (truncated) {
        truncate(row, rule, s);
      }
      if (linear_thread() == 0) {
        drawn = invert(Kept<kClasses>{row, s, truncated}, static_cast<double>(ldg(&uniforms(i))));
      }
    }
  }
  if (linear_thread() == 0) {
    stg(&out(i), static_cast<std::int32_t>(drawn));
  }
}

}  // namespace

void sample_rows(View<const float, 2> logits, View<const float, 1> uniforms, SampleRule rule,
                 View<std::int32_t, 1> out, Stream stream) {
  const std::int64_t rows = out.shape[0];
  const auto run = [&](auto* kernel, std::size_t smem) {
    if (rows > 0) {
      launch(kernel, {"sample_rows", {static_cast<unsigned>(rows)}, {kThreads}, smem, stream},
             logits, uniforms, rule, out);
    }
  };
  if (logits.shape[1] <= 1024) {
    run(sample_kernel<1024>, sizeof(Smem<1024>));
  } else if (logits.shape[1] <= kMostClasses) {
    run(sample_kernel<kMostClasses>, sizeof(Smem<kMostClasses>));
  } else {
    tessera::detail::throw_no_kernel("sample of more than 16384 classes", kDevice);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
