// Attention of bf16: rounded once at each end, f32 between. Against the double reference on the
// rounded inputs: 4e-3 forward, 1e-2 for gradients, and 2^-6 (|ref| + rms) for each element.
#include "kernels/attention/attention.h"
#include "support/gradcheck.h"
#include "tests/kernels/attention_reference.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

Tensor rounded(const Tensor& t) { return t.to(DType::bf16).to(DType::f32); }
std::vector<double> values(const Tensor& t) { return doubles(t.to(kCpu).to(DType::f32)); }

void expect_close(const Tensor& got, const std::vector<double>& expected, double bound,
                  const std::string& what) {
  const std::vector<double> x = values(got);
  ASSERT_EQ(x.size(), expected.size()) << what;
  EXPECT_LE(relative_error(x, expected), bound) << what;
  double rms = 0;
  for (const double e : expected) rms += e * e;
  rms = std::sqrt(rms / static_cast<double>(std::max<std::size_t>(expected.size(), 1)));
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(std::abs(x[i] - expected[i]), 0x1p-6 * (std::abs(expected[i]) + rms))
        << what << " element " << i;
  }
}

// q, k and v in scales that leave the scores near one: six decades between them.
Tensor inputs(const Sizes& s) {
  const Tensor x = random({s.q.total(), 3, s.heads, s.width}, 1);
  const double scale[3] = {1e-3, 1e3, 30};
  float* p = x.span<float>().data();
  const std::int64_t row = s.heads * s.width;
  for (std::int64_t i = 0; i < x.size(); ++i) p[i] *= static_cast<float>(scale[i / row % 3]);
  return rounded(x);
}

// Relative errors of dq, dk and dv apart: their scales differ.
std::vector<double> part_of(const std::vector<double>& x, const Sizes& s, std::int64_t part) {
  std::vector<double> out;
  for (std::int64_t t = 0; t < s.q.total(); ++t) {
    for (std::int64_t i = 0; i < s.heads * s.width; ++i) {
      out.push_back(x[at(t, part, 3, 0, i, s)]);
    }
  }
  return out;
}

void check(const Sizes& s, Device device, const std::string& level) {
  const Tensor x = inputs(s), bias = random({s.heads, pair_count(s)}, 2);
  const Tensor up = rounded(random({s.q.total(), s.heads, s.width}, 3));
  const Expected e = attend_and_differentiate(s, doubles(x), doubles(bias), doubles(up));
  const Passes got = run_passes(s, x.to(DType::bf16), bias, up.to(DType::bf16), device);
  const std::string what = level + ", D " + std::to_string(s.width);
  EXPECT_EQ(got.out.dtype(), DType::bf16);
  EXPECT_EQ(got.dqkv.dtype(), DType::bf16);
  expect_close(got.out, e.out, 4e-3, what + " out");
  const std::vector<double> gradient = values(got.dqkv);
  for (std::int64_t part = 0; part < 3; ++part) {
    EXPECT_LE(relative_error(part_of(gradient, s, part), part_of(e.dqkv, s, part)), 1e-2)
        << what << " gradient of part " << part;
  }
  // Not by element: where dP is near delta, what is left is the rounding of the result in delta.
  EXPECT_LE(relative_error(values(got.dbias), e.dbias), 1e-2) << what << " dbias";
}

const std::vector<std::int32_t> kLengths{0, 1, 15, 16, 17, 31, 33, 127, 128, 129, 257};

TEST(AttentionBf16, EveryLengthMatchesTheDoubleReferenceOnRoundedInputs) {
  const Segments s = Segments::from_lengths(kLengths);
  on_wanted_devices([&](Device device) {
    const std::string level = name(device.type);
    for (const std::int64_t width : {16, 32}) check({s, s, 1, width, {}}, device, level);
  });
}

TEST(AttentionBf16, CausalJetsWithDropoutMatchTheDoubleReference) {
  const Segments s = Segments::from_lengths(kLengths);
  std::vector<std::uint8_t> causal(kLengths.size(), 1);
  causal[5] = 0;
  on_wanted_devices([&](Device device) {
    const std::string level = name(device.type);
    check({s, s, 1, 8, causal, 0.2F, {3, 5}}, device, level);
  });
}

// Heads that fill no 16 bytes, and an odd number of them.
TEST(AttentionBf16, EveryWidthMatchesTheDoubleReferenceUnderAllSchedules) {
  const Segments s({0, 1, 34, 34, 84});
  on_every_device([&](Device device, const std::string& level) {
    check({s, s, 3, 8, {}}, device, level);
    check({s, s, 1, 13, {1, 0, 1, 1}}, device, level);
    check({s, s, 1, 64, {0, 1, 0, 0}, 0.1F, {7, 11}}, device, level);
  });
}

TEST(AttentionBf16, OneQueryAJetGivesWhatF32GivesOnRoundedInputs) {
  const Segments one({0, 1, 2, 3, 4}), keys({0, 50, 50, 81, 281});
  const Tensor q = rounded(random({4, 2, 32}, 1)), kv = rounded(random({281, 2, 2, 32}, 2));
  const Tensor up = rounded(random({4, 2, 32}, 3));
  const auto run = [&](DType dtype, Device device) {
    Tensor a = q.to(dtype).clone().to(device), b = kv.to(dtype).clone().to(device);
    a.set_requires_grad(true);
    b.set_requires_grad(true);
    const Tensor y = cross_attention(a, b, one, keys);
    backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
      return std::vector<Tensor>{up.to(dtype).to(device)};
    }));
    return std::vector<Tensor>{y, a.grad(), b.grad()};
  };
  const auto expected = run(DType::f32, kCpu);
  on_every_device([&](Device device, const std::string& level) {
    const auto got = run(DType::bf16, device);
    expect_close(got[0], values(expected[0]), 4e-3, level + " out");
    expect_close(got[1], values(expected[1]), 1e-2, level + " dq");
    expect_close(got[2], values(expected[2]), 1e-2, level + " dkv");
  });
}

#ifdef TESSERA_BUILD_SIMT
TEST(AttentionBf16, BitsDoNotDependOnTheScheduleNorOnTheOtherJets) {
  constexpr Device kSimt{DeviceType::simt, 0};
  const Segments s({0, 20, 153});
  const Sizes sizes{s, s, 2, 16, {}};
  const Tensor x = inputs(sizes).to(DType::bf16);
  const Tensor bias = Tensor::zeros({2, pair_count(sizes)}, DType::f32);
  const Tensor up = random({153, 2, 16}, 3).to(DType::bf16);
  std::vector<std::vector<double>> first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::Order order = seed == 0   ? simt::Order::forward
                              : seed == 1 ? simt::Order::reverse
                                          : simt::Order::random;
    const simt::ScheduleGuard guard({order, seed});
    const Passes p = run_passes(sizes, x, bias, up, kSimt);
    const std::vector<std::vector<double>> got{values(p.out), values(p.dqkv), values(p.dbias)};
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << "seed " << seed;
  }
  const Tensor alone = attention(x.slice(0, 20, 153).contiguous().to(kSimt), Segments({0, 133}));
  EXPECT_EQ(std::vector<double>(first[0].begin() + 20 * 32, first[0].end()), values(alone));
}
#endif

}  // namespace
}  // namespace tessera
