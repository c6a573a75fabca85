#include "kernels/attention/attention.h"

#include <functional>

#include "core/parallel.h"
#include "support/gradcheck.h"
#include "tests/kernels/attention_reference.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

void check_self(const Sizes& s) {
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[0][at(t, p, 3, h, d, s)];
      };
    };
    return attend(s, part(0), part(1), part(2));
  };
  check_op([&](const auto& x) { return attention(x[0], s.q, {.causal_segments = s.causal}); },
           reference, {random({s.q.total(), 3, s.heads, s.width}, 1)});
}

TEST(Attention, MatchesTheDoubleReferenceOnRaggedSegments) {
  const Segments s({0, 0, 1, 8, 8, 25});
  for (const std::int64_t width : {1, 8, 16, 17}) {
    check_self({s, s, 2, width, {}});
  }
}

TEST(Attention, CausalFlagsActPerSegment) {
  const Segments s({0, 5, 9, 9, 20});
  check_self({s, s, 2, 8, {1, 0, 1, 1}});
}

TEST(Attention, CrossAttentionTakesOneQueryAndAnyNumberOfKeys) {
  const Sizes s{Segments({0, 1, 2, 3}), Segments({0, 4, 4, 9}), 2, 8, {}};
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto q = [&](std::int64_t t, std::int64_t h, std::int64_t d) {
      return x[0][at(t, 0, 1, h, d, s)];
    };
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[1][at(t, p, 2, h, d, s)];
      };
    };
    return attend(s, q, part(0), part(1));
  };
  check_op([&](const auto& x) { return cross_attention(x[0], x[1], s.q, s.k); }, reference,
           {random({3, 2, 8}, 1), random({9, 2, 2, 8}, 2)});
}

void check_biased(const Sizes& s) {
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[0][at(t, p, 3, h, d, s)];
      };
    };
    return attend(s, part(0), part(1), part(2), x[1]);
  };
  const auto op = [&](const auto& x) {
    return attention(
        x[0], s.q, {.causal_segments = s.causal, .dropout = s.dropout, .key = s.key, .bias = x[1]});
  };
  check_op(op, reference,
           {random({s.q.total(), 3, s.heads, s.width}, 1), random({s.heads, pair_count(s)}, 2)});
}

TEST(Attention, PairBiasAddsToTheScoresAndHasAGradient) {
  const Segments s({0, 0, 1, 8, 8, 25});
  check_biased({s, s, 2, 8, {}});
  check_biased({s, s, 3, 5, {0, 0, 1, 0, 1}});
}

TEST(Attention, DropoutFollowsTheElementsOfItsKeyInBothPasses) {
  const Segments s({0, 5, 9, 26});
  check_biased({s, s, 2, 8, {}, 0.3F, {7, 11}});
}

TEST(Attention, CrossAttentionTakesABiasOfUnequalLengths) {
  const Sizes s{Segments({0, 2, 2, 5}), Segments({0, 4, 6, 23}), 2, 8, {}};
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto q = [&](std::int64_t t, std::int64_t h, std::int64_t d) {
      return x[0][at(t, 0, 1, h, d, s)];
    };
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[1][at(t, p, 2, h, d, s)];
      };
    };
    return attend(s, q, part(0), part(1), x[2]);
  };
  check_op([&](const auto& x) { return cross_attention(x[0], x[1], s.q, s.k, {.bias = x[2]}); },
           reference,
           {random({5, 2, 8}, 1), random({23, 2, 2, 8}, 2), random({2, pair_count(s)}, 3)});
}

using Walk = std::function<void(const std::function<void(Device, const std::string&)>&)>;

void check_long(const Sizes& s, const Walk& walk) {
  const Tensor x = random({s.q.total(), 3, s.heads, s.width}, 1);
  const Tensor bias = random({s.heads, pair_count(s)}, 2);
  const Tensor up = random({s.q.total(), s.heads, s.width}, 3);
  const Expected e = attend_and_differentiate(s, doubles(x), doubles(bias), doubles(up));
  walk([&](Device device, const std::string& level) {
    const Passes got = run_passes(s, x, bias, up, device);
    EXPECT_LE(relative_error(doubles(got.out), e.out), 1e-5) << level << " D " << s.width;
    EXPECT_LE(relative_error(doubles(got.dqkv), e.dqkv), 1e-5) << level << " D " << s.width;
    EXPECT_LE(relative_error(doubles(got.dbias), e.dbias), 1e-5) << level << " D " << s.width;
  });
}

void on_cpu(const std::function<void(Device, const std::string&)>& body) {
  on_every_simd_level([&](const char* level) { body(kCpu, level); });
}

// Below and above a vector, a panel and a block of queries; heads that fill vectors and do not.
TEST(Attention, LongSegmentsMatchTheDoubleReferenceInAllGradients) {
  const Segments s({0, 1, 17, 48, 81, 146, 146, 403});
  for (const std::int64_t width : {8, 16, 32, 33, 48}) {
    check_long({s, s, 2, width, {}}, on_cpu);
  }
}

TEST(Attention, LongCausalSegmentsWithDropoutMatchTheDoubleReference) {
  const Segments s({0, 17, 82, 340});
  for (const std::int64_t width : {8, 16, 64}) {
    check_long({s, s, 2, width, {1, 1, 1}}, on_cpu);
    check_long({s, s, 2, width, {0, 1, 1}, 0.2F, {3, 5}}, on_cpu);
  }
}

// Below and above a device's strip of 16 rows, its tile of 32 and its block of 64.
TEST(Attention, BlocksOfDevicesMatchTheDoubleReferenceInAllGradients) {
  const Segments s({0, 1, 16, 33, 64, 97, 97, 226});
  check_long({s, s, 2, 8, {}}, on_every_device);
  check_long({s, s, 1, 32, {1, 1, 1, 1, 1, 1, 1}}, on_every_device);
  check_long({s, s, 1, 64, {0, 1, 0, 1, 0, 0, 1}, 0.2F, {3, 5}}, on_every_device);
}

/// Errors of the result and of the gradients of q, k, v and bias, relative.
std::vector<double> attention_errors(const Sizes& s, const Tensor& x, Device device) {
  const Tensor bias = random({s.heads, pair_count(s)}, 2);
  const Tensor up = random({s.q.total(), s.heads, s.width}, 3);
  const Expected e = attend_and_differentiate(s, doubles(x), doubles(bias), doubles(up));
  const Passes got = run_passes(s, x, bias, up, device);
  std::vector<double> errors{relative_error(doubles(got.out), e.out),
                             relative_error(doubles(got.dbias), e.dbias)};
  for (std::size_t part = 0; part < 3; ++part) {  // their scales differ
    std::vector<double> g, expected;
    const auto all = doubles(got.dqkv);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i / static_cast<std::size_t>(s.heads * s.width) % 3 == part) {
        g.push_back(all[i]);
        expected.push_back(e.dqkv[i]);
      }
    }
    errors.push_back(relative_error(g, expected));
  }
  return errors;
}

// Scores of one, and of up to a hundred, whose differences are what is left of them.
void expect_f32_attention(const Sizes& s) {
  for (const double sigma : {1.0, 4.0}) {
    const Tensor x = random({s.q.total(), 3, s.heads, s.width}, 1, sigma);
    for (std::size_t i = 0; i < x.span<float>().size(); i += 97) x.span<float>()[i] *= 5;
    const auto cpu = attention_errors(s, x, kCpu);
    on_wanted_devices([&](Device device) {
      const auto got = attention_errors(s, x, device);
      const char* names[] = {"out", "dbias", "dq", "dk", "dv"};
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LE(got[i], 4 * cpu[i] + 3e-7)
            << names[i] << ", D " << s.width << ", sigma " << sigma << ", cpu " << cpu[i];
      }
    });
  }
}

TEST(Attention, F32IsAsExactOnDevicesAsOnTheCpu) {
  const Segments s({0, 1, 18, 51});
  for (const std::int64_t width : {8, 13, 16, 32, 64}) {
    expect_f32_attention({s, s, 1, width, {0, 1, 0}});
  }
  const Segments more({0, 133});  // than a block of a device holds
  expect_f32_attention({more, more, 1, 16, {}});
}

#ifdef TESSERA_BUILD_SIMT
TEST(AttentionSimt, F32IsAsExactWhereTensorCoresCutTheirSumsOff) {
  const simt::Noise noise(1);
  const Segments s({0, 18, 51});
  expect_f32_attention({s, s, 1, 32, {1, 0}});
}
#endif

TEST(Attention, RejectsABiasOfAnotherSize) {
  EXPECT_THROW(attention(random({5, 3, 1, 4}, 1), Segments({0, 5}), {.bias = random({1, 24}, 2)}),
               Error);
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Segments s({0, 33});
  const Tensor x = random({33, 3, 1, 8}, 3, 30.0);
  for (const Device device : devices()) {
    const auto y = attention(x.to(device), s).to_vector<float>();
    for (const float v : y) EXPECT_TRUE(std::isfinite(v)) << name(device.type);
  }
}

// More keys than a kernel meets at a time, so that its running maximum starts at -inf.
TEST(Attention, KeysHiddenByAnInfiniteBiasLeaveTheResultToTheOthers) {
  const Segments one({0, 70});
  const Sizes s{one, one, 1, 8, {}};
  std::vector<float> bias(70 * 70, 0.0F);
  for (std::size_t i = 0; i < 70; ++i) {
    std::fill_n(bias.begin() + static_cast<std::ptrdiff_t>(70 * i), 66, -HUGE_VALF);
  }
  const Tensor qkv = random({70, 3, 1, 8}, 1), hidden = Tensor::from(bias, {1, 70 * 70});
  const auto x = doubles(qkv);
  const auto part = [&](std::int64_t p) {
    return
        [&, p](std::int64_t t, std::int64_t h, std::int64_t d) { return x[at(t, p, 3, h, d, s)]; };
  };
  const auto expected = attend(s, part(0), part(1), part(2), doubles(hidden));
  on_every_device([&](Device device, const std::string& level) {
    const Tensor y = attention(qkv.to(device), one, {.bias = hidden.to(device)});
    EXPECT_LE(relative_error(doubles(y), expected), 1e-5) << level;
  });
}

TEST(Attention, NanInOneSegmentReachesNoOther) {
  const Segments s({0, 7, 12, 30});
  for (const Device device : devices()) {
    Tensor x = random({30, 3, 2, 8}, 4);
    const auto clean = attention(x.to(device), s).to_vector<float>();
    fill(x.slice(0, 7, 12), NAN);
    const auto dirty = attention(x.to(device), s).to_vector<float>();
    for (std::size_t i = 0; i < clean.size(); ++i) {
      if (i < 7 * 16 || i >= 12 * 16) {
        EXPECT_EQ(clean[i], dirty[i]) << name(device.type);
      } else {
        EXPECT_TRUE(std::isnan(dirty[i])) << name(device.type);
      }
    }
  }
}

TEST(Attention, IsBitEqualForAnyThreadCount) {
  const Segments s({0, 31, 64, 65, 257});
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    Tensor x = random({257, 3, 2, 16}, 5);
    x.set_requires_grad(true);
    const Tensor y = attention(x, s, {.causal = true}), up = random({257, 2, 16}, 6);
    backward(differentiable(Tensor::scalar(0), {y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
    const auto g = x.grad().to_vector<float>();
    if (first.empty()) first = g;
    EXPECT_EQ(g, first);
  }
}

TEST(Attention, NanInOneSegmentReachesNoGradientOfAnother) {
  const Segments s({0, 7, 12, 30});
  const auto gradient = [&](bool dirty, Device device) {
    Tensor x0 = random({30, 3, 2, 8}, 4);
    if (dirty) fill(x0.slice(0, 7, 12), NAN);
    Tensor x = x0.to(device);
    x.set_requires_grad(true);
    const Tensor up = random({30, 2, 8}, 6).to(device);
    backward(differentiable(Tensor::scalar(0), {attention(x, s)},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
    return x.grad().to_vector<float>();
  };
  for (const Device device : devices()) {
    const auto clean = gradient(false, device), dirty = gradient(true, device);
    for (std::size_t i = 0; i < clean.size(); ++i) {
      if (i < 7 * 48 || i >= 12 * 48) {
        EXPECT_EQ(clean[i], dirty[i]) << name(device.type);
      }
    }
  }
}

#ifdef TESSERA_BUILD_SIMT
constexpr Device kSimt{DeviceType::simt, 0};

TEST(AttentionSimt, BitsDoNotDependOnTheSchedule) {
  const Segments s({0, 1, 18, 18, 95});
  const Sizes sizes{s, s, 2, 8, {1, 0, 1, 1}, 0.1F, {7, 11}};
  const Tensor x = random({95, 3, 2, 8}, 1), bias = random({2, pair_count(sizes)}, 2),
               up = random({95, 2, 8}, 3);
  std::vector<std::vector<float>> first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::Order order = seed == 0   ? simt::Order::forward
                              : seed == 1 ? simt::Order::reverse
                                          : simt::Order::random;
    const simt::ScheduleGuard guard({order, seed});
    const Passes p = run_passes(sizes, x, bias, up, kSimt);
    const std::vector<std::vector<float>> got{p.out.to_vector<float>(), p.dqkv.to_vector<float>(),
                                              p.dbias.to_vector<float>()};
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << "seed " << seed;
  }
}

TEST(AttentionSimt, AJetsResultDoesNotDependOnTheOthersOfItsBatch) {
  const Tensor x = random({100, 3, 1, 8}, 1);
  const auto both = attention(x.to(kSimt), Segments({0, 30, 100})).to_vector<float>();
  const auto alone = attention(x.slice(0, 30, 100).contiguous().to(kSimt), Segments({0, 70}));
  EXPECT_EQ(std::vector<float>(both.begin() + 30 * 8, both.end()), alone.to_vector<float>());
}

// Jets of one block of 64 queries: q, k and v are read once, in whole sectors, the result and one
// number a row and head are written. 1.15: offsets and the items, which all threads of a block
// read.
TEST(AttentionSimt, ForwardMovesEachRowOnceInWholeSectors) {
  const std::uint64_t rows = 128, heads = 4, width = 32;
  const Segments s({0, 64, 128});
  attention(random({128, 3, 4, 32}, 1).to(kSimt), s);
  const simt::LaunchStats& got = simt::last_launch();
  const std::uint64_t row_bytes = 4 * heads * width;
  EXPECT_EQ(got.bytes_written, rows * (row_bytes + 4 * heads));
  EXPECT_EQ(got.sectors_written,
            rows * row_bytes / 32 + rows * heads / 8);  // eight rows' numbers at once
  EXPECT_GE(got.sectors_read, rows * 3 * row_bytes / 32);
  EXPECT_LE(static_cast<double>(got.sectors_read),
            1.15 * static_cast<double>(rows * 3 * row_bytes / 32));
}
#endif

TEST(Attention, DevicesRejectHeadsWiderThanTheirKernels) {
  for (const Device device : devices()) {
    if (device != kCpu) {
      EXPECT_THROW(attention(random({2, 3, 1, 65}, 1).to(device), Segments({0, 2})), Error);
    }
  }
}

TEST(Attention, RejectsOffsetsThatDoNotCoverTheRows) {
  EXPECT_THROW(attention(random({5, 3, 1, 4}, 1), Segments({0, 4})), Error);
}

}  // namespace
}  // namespace tessera
