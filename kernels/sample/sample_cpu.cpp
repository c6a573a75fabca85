// One row is one chunk. Weights are doubles whose bits do not depend on the SIMD level: additions
// and multiplications only, never fused, and sums over blocks of 64 classes in eight running sums
// whatever the width of a vector. So a draw depends on the row and its uniform alone, on every
// machine. The draw walks the sums of blocks, then the classes of one block.
#include "kernels/sample/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sample/sample_cpu.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "core/parallel.h"

#ifndef TESSERA_SAMPLE_ONCE
#define TESSERA_SAMPLE_ONCE
namespace tessera::cpu {
constexpr std::int64_t kSampleBlock = 64;  ///< classes a partial sum covers
constexpr float kNever = -std::numeric_limits<float>::infinity();
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using D = hn::ScalableTag<double>;
using V = hn::Vec<D>;

constexpr std::int64_t kRunning = 8;  // running sums of a block

// The largest of n values, n a multiple of a block; NaN if one is NaN or +inf.
float Top(const float* x, std::int64_t n) {
  const F f;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(f));
  auto best = hn::Set(f, kNever);
  auto fine = hn::Eq(best, best);
  for (std::int64_t i = 0; i < n; i += lanes) {
    const auto v = hn::LoadU(f, x + i);
    fine = hn::And(fine, hn::Lt(v, hn::Set(f, -kNever)));  // false for NaN
    best = hn::Max(best, v);
  }
  return hn::AllTrue(f, fine) ? hn::GetLane(hn::MaxOfLanes(f, best))
                              : std::numeric_limits<float>::quiet_NaN();
}

// e^y for y <= 0 within 1e-14, zero below -700: 2^n e^r with |r| <= ln 2 / 2, ln 2 in two parts,
// Taylor's series to r^11.
HWY_INLINE V Exp(D d, V y) {
  static constexpr double kTerms[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                      1.0 / 5040,     1.0 / 720,     1.0 / 120,    1.0 / 24,
                                      1.0 / 6,        0.5,           1.0,          1.0};
  const hn::RebindToSigned<D> i;
  const V magic = hn::Set(d, 0x1.8p52);  // adding it rounds to an integer, left in the low bits
  const V shifted = hn::Add(hn::Mul(y, hn::Set(d, 1.4426950408889634)), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::Sub(y, hn::Mul(n, hn::Set(d, 0x1.62e42fee00000p-1)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(d, 0x1.a39ef35793c76p-33)));
  V p = hn::Set(d, kTerms[0]);
  for (std::size_t k = 1; k < std::size(kTerms); ++k) {
    p = hn::Add(hn::Mul(p, r), hn::Set(d, kTerms[k]));
  }
  const auto power = hn::ShiftLeft<52>(hn::BitCast(i, shifted));
  const V e = hn::BitCast(d, hn::Add(hn::BitCast(i, p), power));
  return hn::IfThenZeroElse(hn::Lt(y, hn::Set(d, -700.0)), e);
}

// w := exp((x - top) rate), n a multiple of a block; sums: one a block.
void Weigh(const float* x, std::int64_t n, double top, double rate, double* w, double* sums) {
  const D d;
  const hn::Rebind<float, D> half;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t b = 0; b < n; b += kSampleBlock) {
    HWY_ALIGN double running[kRunning] = {};
    for (std::int64_t i = b; i < b + kSampleBlock; i += kRunning) {
      for (std::int64_t j = 0; j < kRunning; j += lanes) {
        const V v = hn::PromoteTo(d, hn::LoadU(half, x + i + j));
        const V e = Exp(d, hn::Mul(hn::Sub(v, hn::Set(d, top)), hn::Set(d, rate)));
        hn::StoreU(e, d, w + i + j);
        hn::Store(hn::Add(hn::Load(d, running + j), e), d, running + j);
      }
    }
    sums[b / kSampleBlock] = ((running[0] + running[1]) + (running[2] + running[3])) +
                             ((running[4] + running[5]) + (running[6] + running[7]));
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(Top);
HWY_EXPORT(Weigh);

namespace {

/// Scratch of a thread, padded to whole blocks: the row with what may not be drawn at -inf, its
/// weights and their sums by block.
struct Scratch {
  std::vector<float> logits;
  std::vector<double> weights, sums;
  std::vector<std::uint64_t> keys;
  std::vector<std::int32_t> kept;

  void load(const float* row, std::int64_t classes, const std::vector<std::int64_t>& excluded) {
    const std::int64_t blocks = chunk_count(classes, kSampleBlock);
    logits.resize(static_cast<std::size_t>(blocks * kSampleBlock));
    weights.resize(logits.size());
    sums.resize(static_cast<std::size_t>(blocks));
    std::memcpy(logits.data(), row, static_cast<std::size_t>(classes) * sizeof(float));
    std::fill(logits.begin() + classes, logits.end(), kNever);
    for (const std::int64_t id : excluded) {
      logits[static_cast<std::size_t>(id)] = kNever;
    }
  }
};

// A number that grows with the logit and, between equal ones, falls with the index.
std::uint64_t rank_key(float logit, std::size_t index) {
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0F);  // -0 equals 0
  const std::uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return std::uint64_t{rising} << 32U | (0xFFFFFFFFU - static_cast<std::uint32_t>(index));
}

/// Takes indices by falling logit, ties to the smaller index; sorts as many as are asked for, in
/// stages that grow fourfold.
class Ranking {
 public:
  explicit Ranking(Scratch& s) : keys_(s.keys) {
    keys_.resize(s.logits.size());
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      keys_[i] = rank_key(s.logits[i], i);
    }
  }
  std::int32_t next() {
    if (taken_ == sorted_) {
      sort_more();
    }
    return static_cast<std::int32_t>(0xFFFFFFFFU - static_cast<std::uint32_t>(keys_[taken_++]));
  }

 private:
  void sort_more() {
    const auto begin = keys_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    sorted_ = std::min(keys_.size(), std::max<std::size_t>(64, 4 * sorted_));
    const auto end = keys_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    std::nth_element(begin, end, keys_.end(), std::greater<>());
    std::sort(begin, end, std::greater<>());
  }

  std::vector<std::uint64_t>& keys_;
  std::size_t sorted_ = 0, taken_ = 0;
};

double weight(const Scratch& s, std::int32_t i) { return s.weights[static_cast<std::size_t>(i)]; }

// kept := the classes inside top_k and top_p, by falling logit.
void choose(const SampleRule& rule, std::int64_t classes, Scratch& s) {
  Ranking ranking(s);
  s.kept.clear();
  double total = 0;
  const std::int64_t most = rule.top_k > 0 ? std::min(rule.top_k, classes) : classes;
  if (rule.top_k > 0) {
    for (std::int64_t i = 0; i < most; ++i) {
      s.kept.push_back(ranking.next());
      total += weight(s, s.kept.back());
    }
  } else {
    for (const double sum : s.sums) {
      total += sum;
    }
  }
  if (rule.top_p >= 1) {
    return;
  }
  double before = 0;  // weight of the classes ranked higher
  for (std::int64_t i = 0; i < most; ++i) {
    if (!(before < rule.top_p * total)) {
      s.kept.resize(static_cast<std::size_t>(i));
      return;
    }
    if (rule.top_k == 0) {
      s.kept.push_back(ranking.next());
    }
    before += weight(s, s.kept[static_cast<std::size_t>(i)]);
  }
}

// Zeroes the weights of all but the kept classes.
void truncate(Scratch& s) {
  std::ranges::sort(s.kept);
  std::vector<double>& w = s.weights;
  std::ranges::fill(s.sums, 0.0);
  std::size_t at = 0;
  for (const std::int32_t k : s.kept) {
    const auto i = static_cast<std::size_t>(k);
    std::fill(w.begin() + static_cast<std::ptrdiff_t>(at), w.begin() + k, 0.0);
    s.sums[i / kSampleBlock] += w[i];
    at = i + 1;
  }
  std::fill(w.begin() + static_cast<std::ptrdiff_t>(at), w.end(), 0.0);
}

// The last class of a positive weight in [begin, end); -1 if none.
std::int32_t last_possible(const Scratch& s, std::size_t begin, std::size_t end) {
  for (std::size_t i = end; i > begin; --i) {
    if (s.weights[i - 1] > 0) {
      return static_cast<std::int32_t>(i - 1);
    }
  }
  return -1;
}

std::int32_t invert(const Scratch& s, double uniform) {
  double total = 0;
  for (const double sum : s.sums) {
    total += sum;
  }
  const double target = uniform * total;
  double before = 0;
  std::size_t block = 0;
  while (block < s.sums.size() && !(before + s.sums[block] > target)) {
    before += s.sums[block++];
  }
  if (block == s.sums.size()) {  // rounding left the sum short of the target
    return last_possible(s, 0, s.weights.size());
  }
  const std::size_t begin = block * kSampleBlock, end = begin + kSampleBlock;
  for (std::size_t i = begin; i < end; ++i) {
    before += s.weights[i];
    if (before > target) {
      return static_cast<std::int32_t>(i);
    }
  }
  return last_possible(s, begin, end);
}

std::int32_t draw(double uniform, const SampleRule& rule, std::int64_t classes, Scratch& s) {
  const auto n = static_cast<std::int64_t>(s.logits.size());
  const float top = HWY_DYNAMIC_DISPATCH(Top)(s.logits.data(), n);
  if (std::isnan(top) || top == kNever) {
    return -1;
  }
  if (rule.temperature == 0) {
    return static_cast<std::int32_t>(std::ranges::find(s.logits, top) - s.logits.begin());
  }
  HWY_DYNAMIC_DISPATCH(Weigh)
  (s.logits.data(), n, static_cast<double>(top), 1.0 / static_cast<double>(rule.temperature),
   s.weights.data(), s.sums.data());
  if (rule.top_k > 0 || rule.top_p < 1) {
    choose(rule, classes, s);
    truncate(s);
  }
  return invert(s, uniform);
}

std::vector<std::int64_t> indices(const std::uint8_t* flags, std::int64_t count) {
  std::vector<std::int64_t> set;
  for (std::int64_t i = 0; i < count; ++i) {
    if (flags[i] != 0) {
      set.push_back(i);
    }
  }
  return set;
}

}  // namespace

void sample_rows(View<const float, 2> logits, View<const float, 1> uniforms, SampleRule rule,
                 View<std::int32_t, 1> out, Stream) {
  const std::int64_t classes = logits.shape[1];
  const std::vector<std::int64_t> excluded = indices(rule.excluded, classes);
  parallel_for(logits.shape[0], [&](std::int64_t i) {
    thread_local Scratch scratch;
    scratch.load(logits.row(i), classes, excluded);
    out(i) = draw(static_cast<double>(uniforms(i)), rule, classes, scratch);
  });
}

}  // namespace tessera::cpu
#endif
