// Codes by distances of halfs, against numpy's float16 and against halfs made in double.
#include "kernels/vq/distance.h"

#include "core/check.h"
#include "core/parallel.h"
#include "kernels/vq/vq.h"
#include "support/golden.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT
using test::GoldenFile;

Tensor input(const GoldenFile& file, const std::string& name) {
  return Tensor::from(file.floats("in/" + name), Shape(file.at("in/" + name).shape));
}

std::vector<std::int32_t> codes_of(const Tensor& z, const Tensor& e) {
  return vq_assign(z, e, VqDistance::f16).to_vector<std::int32_t>();
}

double squared_gap(const Tensor& z, const Tensor& e, std::size_t row, std::int32_t code,
                   double* scale) {
  const auto width = static_cast<std::size_t>(z.shape(1));
  double distance = 0;
  *scale = 0;
  for (std::size_t d = 0; d < width; ++d) {
    const double a = static_cast<double>(z.span<float>()[row * width + d]);
    const double b =
        static_cast<double>(e.span<float>()[static_cast<std::size_t>(code) * width + d]);
    distance += (a - b) * (a - b);
    *scale += a * a + b * b;
  }
  return distance;
}

struct Case {
  const char* name;
  bool holds_norms;  // in a half
  double differing;  // share of the rows that exact search gives another code, at least
};
constexpr Case kCases[] = {{"random", true, 1e-3},
                           {"near", true, 5e-3},
                           {"codes", true, 0},
                           {"ties", true, 0},
                           {"sizes", false, 0.1}};

TEST(VqDistance, CodesAreThoseOfNumpysHalfs) {
  const GoldenFile file("vq_f16");
  for (const Case& c : kCases) {
    const std::string name = c.name;
    const Tensor z = input(file, name + "/z"), e = input(file, name + "/codebook");
    const auto expected = file.ints("out/" + name + "/codes");
    const auto exact = file.ints("out/" + name + "/exact");
    on_every_simd_level(
        [&](const char* level) { EXPECT_EQ(codes_of(z, e), expected) << name << " " << level; });
    std::size_t differing = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      differing += expected[i] != exact[i];
      double scale = 0, unused = 0;
      const double gap =
          squared_gap(z, e, i, expected[i], &scale) - squared_gap(z, e, i, exact[i], &unused);
      EXPECT_TRUE(!c.holds_norms || gap <= std::ldexp(scale, -9)) << name << " row " << i;
    }
    EXPECT_GE(static_cast<double>(differing), c.differing * static_cast<double>(expected.size()))
        << name;
  }
}

// The nearest half as a double: 11 bits, of 2^-24 at the least.
double half(double x) {
  int exponent = 0;
  (void)std::frexp(x, &exponent);
  const int unit = std::max(exponent - 11, -24);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  return std::abs(rounded) > 65504 ? std::copysign(INFINITY, x) : rounded;
}

double half_norm(const float* row, std::size_t width) {
  float sum = 0;
  for (std::size_t d = 0; d < width; ++d) {
    const double x = half(static_cast<double>(row[d]));
    sum += static_cast<float>(half(x * x));
  }
  return half(static_cast<double>(sum));
}

double half_distance(const float* z, const float* e, std::size_t width) {
  float sum = 0;
  for (std::size_t d = 0; d < width; ++d) {
    sum +=
        static_cast<float>(-2 * half(static_cast<double>(z[d])) * half(static_cast<double>(e[d])));
  }
  sum += static_cast<float>(half_norm(z, width));
  sum += static_cast<float>(half_norm(e, width));
  const double squared = half(static_cast<double>(sum));
  return half(std::sqrt(squared < 0 ? 0 : squared));
}

std::vector<std::int32_t> expected_codes(const Tensor& z, const Tensor& e) {
  const auto width = static_cast<std::size_t>(z.shape(1));
  std::vector<std::int32_t> codes;
  for (std::int64_t i = 0; i < z.shape(0); ++i) {
    double best = INFINITY;
    codes.push_back(0);
    for (std::int64_t k = 0; k < e.shape(0); ++k) {
      const double distance = half_distance(z.span<float>().data() + i * z.shape(1),
                                            e.span<float>().data() + k * z.shape(1), width);
      if (distance < best) {
        best = distance;
        codes.back() = static_cast<std::int32_t>(k);
      }
    }
  }
  return codes;
}

TEST(VqDistance, RaggedSizesHaveTheCodesOfHalfsInDouble) {
  for (const std::int64_t k : {1, 15, 17, 31, 33, 257}) {
    for (const std::int64_t d : {1, 4, 17}) {
      for (const std::int64_t t : {0, 1, 31, 33}) {
        const Tensor z = random({t, d}, 1), e = random({k, d}, 2);
        const auto expected = expected_codes(z, e);
        on_every_simd_level([&](const char* level) {
          EXPECT_EQ(codes_of(z, e), expected)
              << level << " rows " << t << " codes " << k << " width " << d;
        });
      }
    }
  }
}

TEST(VqDistance, EqualCodesGiveTheFirstAndThreadsGiveTheSame) {
  const Tensor e = random({300, 5}, 1), best = Tensor::full({5}, 9.0F);
  for (const std::int64_t code : {70, 93, 171})
    copy_into(e.slice(0, code, code + 1).reshape({5}), best);
  const Tensor z = random({257, 5}, 2);
  copy_into(z.slice(0, 256, 257).reshape({5}), best);
  const auto expected = expected_codes(z, e);
  EXPECT_EQ(expected.back(), 70);
  const int before = num_threads();
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(codes_of(z, e), expected) << threads;
  }
  set_num_threads(before);
}

TEST(VqDistance, WhatIsNotFiniteIsNeverChosenAndHidesNoOther) {
  const Tensor z = random({65, 4}, 1), e = random({70, 4}, 2);
  const auto before = codes_of(z, e);
  std::vector<std::size_t> unused;
  for (std::int32_t code = 0; code < 70; ++code) {
    if (std::ranges::find(before, code) == before.end())
      unused.push_back(static_cast<std::size_t>(code));
  }
  ASSERT_GE(unused.size(), 3U);
  e.span<float>()[unused[0] * 4 + 1] = NAN;
  e.span<float>()[unused[1] * 4] = INFINITY;
  e.span<float>()[unused[2] * 4 + 3] = -70000.0F;  // infinite as a half
  on_every_simd_level([&](const char* level) { EXPECT_EQ(codes_of(z, e), before) << level; });
  z.span<float>()[4] = NAN;
  z.span<float>()[9] = 300.0F;  // its square is infinite
  auto after = before;
  after[1] = after[2] = 0;
  on_every_simd_level([&](const char* level) { EXPECT_EQ(codes_of(z, e), after) << level; });
}

TEST(VqDistance, TheOptionReachesTheQuantiserAndF32IsTheDefault) {
  const GoldenFile file("vq_f16");
  const Tensor z = input(file, "near/z"), e = input(file, "near/codebook"),
               none = Tensor::zeros({4});
  const auto codes = [&](const VqOptions& options) {
    return vector_quantize(z, e, none, none, options).codes.to_vector<std::int32_t>();
  };
  EXPECT_EQ(codes({.distance = VqDistance::f16}), file.ints("out/near/codes"));
  EXPECT_EQ(codes({}), vq_assign(z, e).to_vector<std::int32_t>());
  EXPECT_NE(codes({}), file.ints("out/near/codes"));
}

TEST(VqDistance, NamesAreParsedAndDevicesRefuse) {
  EXPECT_EQ(parse_vq_distance("f32"), VqDistance::f32);
  EXPECT_EQ(parse_vq_distance("f16"), VqDistance::f16);
  EXPECT_THROW(parse_vq_distance("half"), Error);
  for (const Device device : devices()) {
    if (device == kCpu) continue;
    const Tensor z = random({3, 4}, 1).to(device);
    EXPECT_THROW(vq_assign(z, z, VqDistance::f16), Error) << name(device.type);
  }
}

}  // namespace
}  // namespace tessera
