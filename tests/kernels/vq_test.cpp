#include "kernels/vq/vq.h"

#include "kernels/elementwise/elementwise.h"
#include "kernels/reduce/reduce.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

// Squared-distance gap in double: the chosen code may only be as far from the best as f32 rounding
// explains.
TEST(Vq, ChosenCodesAreNearestUpToRounding) {
  for (const std::int64_t k : {1, 15, 17, 31, 33, 64, 65, 513}) {
    for (const std::int64_t d : {1, 4, 17}) {
      const Tensor z = random({65, d}, 1), e = random({k, d}, 2);
      const auto Z = doubles(z), E = doubles(e);
      std::vector<std::int32_t> first;
      on_every_simd_level([&](const char* level) {
        const auto codes = vq_assign(z, e).to_vector<std::int32_t>();
        if (first.empty()) first = codes;
        EXPECT_EQ(codes, first) << level << ": levels must agree bit for bit";
        for (std::size_t i = 0; i < codes.size(); ++i) {
          double best = 1e300, chosen = 0, scale = 0;
          for (std::size_t c = 0; c < static_cast<std::size_t>(k); ++c) {
            double distance = 0, size = 0;
            for (std::size_t j = 0; j < static_cast<std::size_t>(d); ++j) {
              const double a = Z[i * static_cast<std::size_t>(d) + j],
                           b = E[c * static_cast<std::size_t>(d) + j];
              distance += (a - b) * (a - b);
              size += a * a + b * b;
            }
            best = std::min(best, distance);
            if (static_cast<std::int32_t>(c) == codes[i]) {
              chosen = distance;
              scale = size;
            }
          }
          EXPECT_LE(chosen - best, std::ldexp(scale, -20));
        }
      });
    }
  }
}

TEST(Vq, ExactTiesGoToTheSmallerIndex) {
  const Tensor e = Tensor::full({40, 3}, 1.0F);
  on_every_simd_level([&](const char* level) {
    for (const std::int32_t c : vq_assign(random({5, 3}, 1), e).to_vector<std::int32_t>())
      EXPECT_EQ(c, 0) << level;
  });
}

TEST(Vq, OfEqualCodesFarApartTheFirstIsChosen) {
  const Tensor e = random({200, 5}, 1);
  const Tensor best = Tensor::full({5}, 9.0F);
  for (const std::int64_t code : {70, 93, 171})
    copy_into(e.slice(0, code, code + 1).reshape({5}), best);
  on_every_simd_level([&](const char* level) {
    for (const std::int32_t c : vq_assign(Tensor::full({33, 5}, 9.0F), e).to_vector<std::int32_t>())
      EXPECT_EQ(c, 70) << level;
  });
}

// Many codes are searched in groups of panels: the winner may lie in the last place of the last
// group, its equals in the same panel, the same group or a later one.
TEST(Vq, AmongManyCodesTheFirstOfEqualOnesIsChosen) {
  const std::int64_t k = 8209;
  const Tensor z = Tensor::full({9, 3}, 9.0F), best = Tensor::full({3}, 9.0F);
  for (const std::vector<std::int64_t>& equal :
       {std::vector<std::int64_t>{k - 1}, {0, k - 1}, {130, 131}, {130, 160}, {140, 250, 4000}}) {
    const Tensor e = random({k, 3}, 1);
    for (const std::int64_t code : equal) copy_into(e.slice(0, code, code + 1).reshape({3}), best);
    on_every_simd_level([&](const char* level) {
      for (const std::int32_t c : vq_assign(z, e).to_vector<std::int32_t>())
        EXPECT_EQ(c, equal.front()) << level;
    });
  }
}

TEST(Vq, CodesThatAreNotFiniteAreNeverChosenAndHideNoOther) {
  const Tensor z = random({65, 4}, 1), e = random({70, 4}, 2);
  const auto chosen = [&] { return vq_assign(z, e).to_vector<std::int32_t>(); };
  const auto before = chosen();
  std::vector<std::int32_t> unused;
  for (std::int32_t code = 0; code < 70; ++code) {
    if (std::ranges::find(before, code) == before.end()) unused.push_back(code);
  }
  ASSERT_GE(unused.size(), 2U);
  e.span<float>()[static_cast<std::size_t>(unused.front()) * 4 + 1] = NAN;
  e.span<float>()[static_cast<std::size_t>(unused.back()) * 4] = INFINITY;
  on_every_simd_level([&](const char* level) { EXPECT_EQ(chosen(), before) << level; });
}

TEST(Vq, NanRowsGetCodeZero) {
  const Tensor z = Tensor::full({1, 3}, NAN);
  on_every_simd_level([&](const char* level) {
    EXPECT_EQ(vq_assign(z, random({40, 3}, 1)).to_vector<std::int32_t>()[0], 0) << level;
  });
}

TEST(Vq, ZeroAffineLeavesTheCodebookAsItIs) {
  const Tensor e = random({7, 3}, 1);
  EXPECT_EQ(vq_effective_codebook(e, Tensor::zeros({3}), Tensor::zeros({3}), 2).to_vector<float>(),
            e.to_vector<float>());
}

// With g = d/dq of the output term w . q and the loss term, by hand in double: models of the
// header's formulas.
TEST(Vq, GradientsHaveTheirClosedForm) {
  const std::int64_t t = 33, k = 5, d = 3;
  for (const float nu : {0.0F, 1.0F}) {
    const Tensor z0 = random({t, d}, 1), e0 = random({k, d}, 2), s0 = random({d}, 3, 0.1),
                 b0 = random({d}, 4, 0.1), w = random({t, d}, 5);
    const auto Z = doubles(z0), W = doubles(w), E = doubles(e0), S = doubles(s0);
    on_every_device([&](Device device, const std::string& level) {
      Tensor z = z0.clone().to(device), e = e0.clone().to(device), s = s0.clone().to(device),
             b = b0.clone().to(device);
      for (Tensor* p : {&z, &e, &s, &b}) p->set_requires_grad(true);
      const VqResult r = vector_quantize(z, e, s, b, {.nu = nu});
      backward(add(sum(mul(r.quantized, w.to(device))), scale(r.loss, 10)));
      const auto Q = doubles(r.quantized);
      const auto code = r.codes.to_vector<std::int32_t>();
      std::vector<double> dz(Z.size()), de(E.size()), ds(3), db(3), G(E.size());
      double loss = 0;
      for (std::size_t i = 0; i < Z.size(); ++i) {
        const double gap = Z[i] - Q[i], unit = 10 * 2 * gap / static_cast<double>(t * d);
        loss += gap * gap / static_cast<double>(t * d);
        dz[i] = W[i] + 0.1 * unit;
        G[static_cast<std::size_t>(code[i / 3]) * 3 + i % 3] +=
            static_cast<double>(nu) * W[i] - 0.9 * unit;
      }
      for (std::size_t i = 0; i < E.size(); ++i) {
        de[i] = (1 + 2 * S[i % 3]) * G[i];
        ds[i % 3] += 2 * G[i] * E[i];
        db[i % 3] += 2 * G[i];
      }
      EXPECT_NEAR(r.loss.item(), loss, 1e-5 * loss) << level;
      EXPECT_LE(relative_error(doubles(z.grad()), dz), 1e-5) << level;
      EXPECT_LE(relative_error(doubles(e.grad()), de), 1e-5) << level;
      EXPECT_LE(relative_error(doubles(s.grad()), ds), 1e-5) << level;
      EXPECT_LE(relative_error(doubles(b.grad()), db), 1e-5) << level;
    });
  }
}

struct Quantised {
  std::vector<std::int32_t> codes;
  std::vector<float> quantized, loss, dz, de, ds, db;
  bool operator==(const Quantised&) const = default;
};

// Only the loss is used, so that no gradient of the output arrives.
Quantised quantise(std::int64_t t, std::int64_t k, std::int64_t d, Device device) {
  Tensor z = random({t, d}, 1).to(device), e = random({k, d}, 2).to(device),
         s = random({d}, 3, 0.1).to(device), b = random({d}, 4, 0.1).to(device);
  for (Tensor* p : {&z, &e, &s, &b}) p->set_requires_grad(true);
  const VqResult r = vector_quantize(z, e, s, b, {});
  backward(r.loss);
  return {r.codes.to_vector<std::int32_t>(), r.quantized.to_vector<float>(),
          r.loss.to_vector<float>(),         z.grad().to_vector<float>(),
          e.grad().to_vector<float>(),       s.grad().to_vector<float>(),
          b.grad().to_vector<float>()};
}

double error(const std::vector<float>& got, const std::vector<float>& expected) {
  return relative_error({got.begin(), got.end()}, {expected.begin(), expected.end()});
}

// Codes, rows and their sums in row order are those of the cpu to the bit.
TEST(Vq, DevicesGiveTheBitsOfTheCpuWhereTheOrderIsTheSame) {
  for (const std::int64_t t : {0, 1, 31, 600}) {
    const Quantised expected = quantise(t, 300, 5, kCpu);
    std::vector<Quantised> first;
    on_every_device([&](Device device, const std::string& level) {
      if (device == kCpu) return;
      const Quantised got = quantise(t, 300, 5, device);
      EXPECT_EQ(got.codes, expected.codes) << level << " rows " << t;
      EXPECT_EQ(got.quantized, expected.quantized) << level << " rows " << t;
      EXPECT_EQ(got.dz, expected.dz) << level << " rows " << t;
      EXPECT_EQ(got.de, expected.de) << level << " rows " << t;
      EXPECT_LE(error(got.loss, expected.loss), 1e-6) << level << " rows " << t;
      EXPECT_LE(error(got.ds, expected.ds), 1e-5) << level << " rows " << t;
      EXPECT_LE(error(got.db, expected.db), 1e-5) << level << " rows " << t;
      if (first.empty()) first.push_back(got);
      EXPECT_EQ(got, first[0]) << level << " rows " << t;
    });
  }
}

}  // namespace
}  // namespace tessera
