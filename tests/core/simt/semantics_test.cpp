// What each primitive computes on simt, against plain loops written from the PTX ISA.
#include "tests/core/simt/semantics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <set>

#include "core/dtype.h"
#include "tests/core/simt/support.h"

namespace tessera::simt {
namespace {

using Words = std::vector<std::uint32_t>;

// Lane values with repeats and both signs; floats are positive, so every function takes them.
Words integers() {
  Words v(128);
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<std::uint32_t>(static_cast<int>(i * 7 % 13) - 3);
  }
  return v;
}
Words floats() {
  Words v(128);
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = std::bit_cast<std::uint32_t>(0.37F * static_cast<float>(i + 1));
  }
  return v;
}

Words run(Prim prim, const Words& x, std::uint32_t start = 0) {
  const Buffer<std::uint32_t> in(x);
  Words zeros(129, 0);
  zeros[128] = start;
  const Buffer<std::uint32_t> out(zeros);
  run_prim(prim, in.view(), out.view());
  return out.host();
}

/// f(lane, all lanes' words): the first word that lane l leaves.
using LaneFunction = std::function<std::uint32_t(std::size_t, const Words&)>;

struct Semantics {
  const char* name;
  Prim prim;
  Words input;
  LaneFunction expected;
};
void PrintTo(const Semantics& s, std::ostream* out) { *out << s.name; }

class Primitive : public testing::TestWithParam<Semantics> {};

TEST_P(Primitive, DoesWhatThePtxIsaSaysInEveryOrder) {
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Words got = run(GetParam().prim, GetParam().input);
    for (std::size_t lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(got[4 * lane], GetParam().expected(lane, GetParam().input)) << "lane " << lane;
    }
  }
}

std::int32_t as_int(std::uint32_t w) { return static_cast<std::int32_t>(w); }
std::uint32_t as_word(std::int32_t i) { return static_cast<std::uint32_t>(i); }

template <class Better>
std::uint32_t best(const Words& x, Better better) {
  std::int32_t result = as_int(x[0]);
  for (std::size_t l = 1; l < 32; ++l) {
    result = better(as_int(x[l]), result) ? as_int(x[l]) : result;
  }
  return as_word(result);
}

std::uint32_t lanes_where(const Words& x, const std::function<bool(std::uint32_t)>& test) {
  std::uint32_t bits = 0;
  for (std::size_t l = 0; l < 32; ++l) {
    bits |= (test(x[l]) ? 1U : 0U) << l;
  }
  return bits;
}

// Neighbouring lanes hold what is compared: NaN loses, -0 is below +0, subnormals count.
Words awkward_pairs() {
  Words v = floats();
  const std::vector<float> first{NAN, 3.0F, 0.0F, -0.0F, -1.0F, INFINITY, 1e-40F, 0.0F};
  for (std::size_t i = 0; i < first.size(); ++i) {
    v[i] = std::bit_cast<std::uint32_t>(first[i]);
  }
  return v;
}
LaneFunction of_pair(bool larger) {
  return [larger](std::size_t lane, const Words& x) {
    const auto a = std::bit_cast<float>(x[lane]);
    const auto b = std::bit_cast<float>(x[lane ^ 1U]);
    const bool a_wins =
        std::isnan(b) || (!std::isnan(a) && (a > b || (a == b && !std::signbit(a))));
    return x[a_wins == (larger || std::isnan(a) || std::isnan(b)) ? lane : lane ^ 1U];
  };
}

LaneFunction of_float(float (*f)(float)) {
  return [f](std::size_t lane, const Words& x) {
    return std::bit_cast<std::uint32_t>(f(std::bit_cast<float>(x[lane])));
  };
}

// xor may read a lower segment, never a higher one; the others stay in theirs or keep their own.
std::uint32_t xor_8(std::size_t lane, const Words& x) {
  const std::size_t source = lane ^ 5U;
  return x[source / 8 > lane / 8 ? lane : source];
}

INSTANTIATE_TEST_SUITE_P(
    Simt, Primitive,
    testing::Values(
        Semantics{"shfl_xor", Prim::shfl_xor_8, integers(), xor_8},
        Semantics{"shfl_down", Prim::shfl_down_16, integers(),
                  [](std::size_t l, const Words& x) { return x[l % 16 + 3 < 16 ? l + 3 : l]; }},
        Semantics{"shfl_up", Prim::shfl_up_4, integers(),
                  [](std::size_t l, const Words& x) { return x[l % 4 >= 1 ? l - 1 : l]; }},
        Semantics{"shfl_idx", Prim::shfl_idx_8, integers(),
                  [](std::size_t l, const Words& x) { return x[l / 8 * 8 + 6]; }},
        Semantics{"ballot", Prim::ballot, integers(),
                  [](std::size_t, const Words& x) {
                    return lanes_where(x, [](std::uint32_t w) { return as_int(w) > 0; });
                  }},
        Semantics{"any", Prim::any, integers(), [](std::size_t, const Words&) { return 1U; }},
        Semantics{"all", Prim::all, integers(), [](std::size_t, const Words&) { return 1U; }},
        Semantics{"reduce_add", Prim::reduce_add, integers(),
                  [](std::size_t, const Words& x) {
                    std::uint32_t sum = 0;
                    for (std::size_t l = 0; l < 32; ++l) {
                      sum += x[l];
                    }
                    return sum;
                  }},
        Semantics{"reduce_min", Prim::reduce_min, integers(),
                  [](std::size_t, const Words& x) { return best(x, std::less<>()); }},
        Semantics{"reduce_max", Prim::reduce_max, integers(),
                  [](std::size_t, const Words& x) { return best(x, std::greater<>()); }},
        Semantics{"match_any", Prim::match_any, integers(),
                  [](std::size_t lane, const Words& x) {
                    return lanes_where(x, [&](std::uint32_t w) { return w == x[lane]; });
                  }},
        Semantics{"pack_bf16x2", Prim::pack_bf16x2, floats(),
                  [](std::size_t lane, const Words& x) {
                    const auto f = std::bit_cast<float>(x[lane]);
                    return bf16(f).bits | static_cast<std::uint32_t>(bf16(-f).bits) << 16;
                  }},
        Semantics{"fma", Prim::fma, floats(),
                  of_float([](float x) { return std::fma(x, x, -1.0F); })},
        Semantics{"add", Prim::add, floats(), of_float([](float x) { return x + 1.0F; })},
        Semantics{"ex2", Prim::ex2, floats(), of_float([](float x) {
                    return static_cast<float>(std::exp2(static_cast<double>(x)));
                  })},
        Semantics{"lg2", Prim::lg2, floats(), of_float([](float x) {
                    return static_cast<float>(std::log2(static_cast<double>(x)));
                  })},
        Semantics{"rsqrt", Prim::rsqrt, floats(), of_float([](float x) {
                    return static_cast<float>(1 / std::sqrt(static_cast<double>(x)));
                  })},
        Semantics{"rcp", Prim::rcp, floats(),
                  of_float([](float x) { return static_cast<float>(1 / static_cast<double>(x)); })},
        Semantics{"max", Prim::max, awkward_pairs(), of_pair(true)},
        Semantics{"min", Prim::min, awkward_pairs(), of_pair(false)}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(SimtNoise, DisturbsByAtMostTwoUlpAndTheSameValueAlike) {
  const Words exact = run(Prim::ex2, floats());
  std::set<std::int32_t> errors;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const Noise noise(seed);
    const Words got = run(Prim::ex2, floats());
    EXPECT_EQ(run(Prim::ex2, floats()), got);
    for (std::size_t lane = 0; lane < 32; ++lane) {
      errors.insert(as_int(got[4 * lane]) - as_int(exact[4 * lane]));
    }
  }
  EXPECT_EQ(errors, (std::set<std::int32_t>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(run(Prim::ex2, floats()), exact);
}

// Each lane sees the value that some order of all 32 would leave; the last value is that of all.
TEST(SimtAtomics, AddHandsOutEveryPartialSumOnce) {
  for (const Prim prim : {Prim::atomic_add, Prim::atomic_add_signed}) {
    for (const Schedule s : schedules()) {
      const ScheduleGuard guard(s);
      const Words got = run(prim, Words(32, 3), 5);
      std::set<std::uint32_t> seen;
      for (std::size_t l = 0; l < 32; ++l) {
        seen.insert(got[4 * l]);
      }
      EXPECT_EQ(seen.size(), 32U);
      EXPECT_EQ(*seen.begin(), 5U);
      EXPECT_EQ(got[128], 5U + 96U);
    }
  }
}

TEST(SimtAtomics, ExtremaExchangeAndCompareLeaveWhatTheyMust) {
  Words x(32);
  for (std::size_t l = 0; l < 32; ++l) {
    x[l] = static_cast<std::uint32_t>(l * 11 % 32 + 4);
  }
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    EXPECT_EQ(run(Prim::atomic_max, x, 1)[128], 35U);
    EXPECT_EQ(run(Prim::atomic_min, x, 100)[128], 4U);
    const Words exchanged = run(Prim::atomic_exchange, x, 1000);
    std::multiset<std::uint32_t> values(x.begin(), x.end()), seen;
    for (std::size_t l = 0; l < 32; ++l) {
      seen.insert(exchanged[4 * l]);
    }
    seen.insert(exchanged[128]);
    values.insert(1000);
    EXPECT_EQ(seen, values);
    const Words swapped = run(Prim::atomic_cas, Words(32, 77), 10);  // one lane finds 10
    std::size_t winners = 0;
    for (std::size_t l = 0; l < 32; ++l) {
      winners += swapped[4 * l] == 10 ? 1 : 0;
    }
    EXPECT_EQ(winners, 1U);
    EXPECT_EQ(swapped[128], 77U);
  }
}

TEST(SimtAtomics, WideAddKeeps64Bits) {
  const Buffer<std::uint64_t> total(std::vector<std::uint64_t>{std::uint64_t{1} << 40});
  count_wide(total.view());
  EXPECT_EQ(total.host()[0], (std::uint64_t{1} << 40) + 63 * 64 / 2);
}

TEST(SimtAsync, CopiesWhatIsAskedAndFillsTheRestWithZeros) {
  const std::pair<Prim, std::size_t> widths[] = {
      {Prim::cp_async_4, 4}, {Prim::cp_async_8, 8}, {Prim::cp_async_16, 16}};
  Words x(128);
  for (std::size_t i = 0; i < 128; ++i) {
    x[i] = 0x01010101U * static_cast<std::uint32_t>(i + 1);
  }
  for (const auto& [prim, bytes] : widths) {
    for (const Schedule s : schedules()) {
      const ScheduleGuard guard(s);
      const Words got = run(prim, x);
      for (std::size_t b = 0; b < 512; ++b) {
        const std::size_t lane = b / 16, at = b % 16;
        const std::size_t asked = lane % 2 == 0 ? bytes : bytes / 2;
        const std::uint32_t expected = at < asked   ? x[b / 4] & 0xffU
                                       : at < bytes ? 0U
                                                    : 99U * (at % 4 == 0);
        EXPECT_EQ(got[b / 4] >> 8 * (b % 4) & 0xffU, expected) << bytes << " byte " << b;
      }
    }
  }
}

// Element (row, column) of tile t has the value 64 t + 8 row + column.
TEST(SimtMatrix, LdmatrixHandsOutPairsOfARowOrOfAColumn) {
  Words x(128);
  for (std::uint32_t i = 0; i < 128; ++i) {
    x[i] = 2 * i | (2 * i + 1) << 16;
  }
  const struct {
    Prim prim;
    std::size_t tiles;
    bool transposed;
  } cases[] = {{Prim::ldmatrix_x1, 1, false},
               {Prim::ldmatrix_x2, 2, false},
               {Prim::ldmatrix_x4, 4, false},
               {Prim::ldmatrix_x2_trans, 2, true},
               {Prim::ldmatrix_x4_trans, 4, true}};
  for (const auto& c : cases) {
    const Words got = run(c.prim, x);
    for (std::size_t lane = 0; lane < 32; ++lane) {
      for (std::size_t t = 0; t < c.tiles; ++t) {
        const std::size_t far = lane / 4, near = lane % 4 * 2;
        const auto at = [&](std::size_t second) {
          const std::size_t row = c.transposed ? near + second : far;
          const std::size_t column = c.transposed ? far : near + second;
          return static_cast<std::uint32_t>(64 * t + 8 * row + column);
        };
        EXPECT_EQ(got[4 * lane + t], at(0) | at(1) << 16) << "lane " << lane << " tile " << t;
      }
    }
  }
}

TEST(SimtMma, EveryShapeIsTheProductOfItsTiles) {
  for (const Tile tile :
       {Tile::m16n8k16_bf16, Tile::m16n8k16_f16, Tile::m16n8k8_bf16, Tile::m16n8k8_tf32}) {
    const std::size_t k = tile == Tile::m16n8k16_bf16 || tile == Tile::m16n8k16_f16 ? 16 : 8;
    std::vector<float> a(16 * k), b(k * 8), c(128);
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(static_cast<int>(i * 7 % 19) - 9);
    }
    for (std::size_t i = 0; i < b.size(); ++i) {
      b[i] = static_cast<float>(static_cast<int>(i * 5 % 23) - 11);
    }
    for (std::size_t i = 0; i < c.size(); ++i) {
      c[i] = static_cast<float>(i);
    }
    for (const Schedule s : schedules()) {
      const ScheduleGuard guard(s);
      const Buffer<float> da(a), db(b), dc(c), dd(128);
      run_mma_tile(tile, da.view(), db.view(), dc.view(), dd.view());
      const std::vector<float> got = dd.host();
      for (std::size_t m = 0; m < 16; ++m) {
        for (std::size_t n = 0; n < 8; ++n) {
          float sum = c[m * 8 + n];
          for (std::size_t i = 0; i < k; ++i) {
            sum += a[m * k + i] * b[i * 8 + n];
          }
          EXPECT_EQ(got[m * 8 + n], sum) << static_cast<int>(tile) << ": " << m << "," << n;
        }
      }
    }
  }
}

// 1 + 0.75 ulp: rounded up, or cut off; likewise below zero.
TEST(SimtNoise, MmaCutsItsSumsOffWhereItElseRoundsThem) {
  for (const Tile tile :
       {Tile::m16n8k16_bf16, Tile::m16n8k16_f16, Tile::m16n8k8_bf16, Tile::m16n8k8_tf32}) {
    const std::size_t k = tile == Tile::m16n8k16_bf16 || tile == Tile::m16n8k16_f16 ? 16 : 8;
    for (const float sign : {1.0F, -1.0F}) {
      std::vector<float> a(16 * k), b(k * 8);
      for (std::size_t m = 0; m < 16; ++m) a[m * k + k - 1] = 0x1.8p-12F;
      for (std::size_t n = 0; n < 8; ++n) b[(k - 1) * 8 + n] = sign * 0x1p-12F;
      const Buffer<float> da(a), db(b), dc(std::vector<float>(128, sign)), dd(128);
      run_mma_tile(tile, da.view(), db.view(), dc.view(), dd.view());
      EXPECT_EQ(dd.host(), std::vector<float>(128, sign * (1 + 0x1p-23F)));
      const Noise noise(1);
      run_mma_tile(tile, da.view(), db.view(), dc.view(), dd.view());
      EXPECT_EQ(dd.host(), std::vector<float>(128, sign));
    }
  }
}

TEST(SimtOrdering, AcquireSeesWhatWasReleasedOrNothing) {
  std::set<float> seen;
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Buffer<float> value(std::vector<float>{0.0F}), y(2);
    const Buffer<std::uint32_t> flag(std::vector<std::uint32_t>{0});
    hand_over(value.view(), flag.view(), y.view());
    const auto got = y.host();
    EXPECT_EQ(got[1], got[0] == 1.0F ? 42.0F : 0.0F);
    seen.insert(got[0]);
  }
  EXPECT_EQ(seen.size(), 2U);  // both orders of the blocks happened
}

}  // namespace
}  // namespace tessera::simt
