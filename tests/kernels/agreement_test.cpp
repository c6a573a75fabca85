// Every op on cuda against the same sources on simt, forward and backward, each with its own
// kernels and with the library of products where there is one. Skips, visibly, without a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "bench/gpu/cases.h"
#include "kernels/matmul/product.h"

namespace tessera {
namespace {

constexpr Device kCuda{DeviceType::cuda, 0}, kSimt{DeviceType::simt, 0};

// Copies, sums in fixed order, integers: no approximate function and no tensor core takes part, so
// the bits are the same.
bool is_exact(const std::string& op) {
  static const std::set<std::string> exact{
      "dropout",          "dropout bf16",          "gather_rows", "gather_rows bf16",
      "segment_pool max", "segment_pool max bf16", "sum"};
  return exact.contains(op);
}

// Of f32 results; those of bf16 may be rounded to either neighbour.
double bound_of(const std::string& op) { return op.ends_with("bf16") ? 4e-3 : 1e-5; }

std::vector<std::vector<double>> outcome(const bench::GpuCase& c, Device device) {
  std::vector<std::vector<double>> all;
  for (const Tensor& t : c.prepare(device)()) {
    const Tensor host = t.to(kCpu);
    if (host.dtype() == DType::i32) {
      const auto v = host.to_vector<std::int32_t>();
      all.emplace_back(v.begin(), v.end());
    } else {
      const auto v = host.to(DType::f32).to_vector<float>();
      all.emplace_back(v.begin(), v.end());
    }
  }
  return all;
}

double relative_error(const std::vector<double>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(got[i] - expected[i], 2);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / std::max(size, 1e-30));
}

void expect_agreement(const bench::GpuCase& c, Device device,
                      const std::vector<std::vector<double>>& expected) {
  const auto got = outcome(c, device);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), expected[i].size()) << "result " << i;
    if (is_exact(c.name)) {
      EXPECT_EQ(got[i], expected[i]) << "result " << i;
    } else {
      EXPECT_LE(relative_error(got[i], expected[i]), bound_of(c.name)) << "result " << i;
    }
  }
}

class Agreement : public testing::TestWithParam<bench::GpuCase> {};

// What the test of a GPU rests on: a case gives values and gradients, the same bits each time.
TEST_P(Agreement, OfARunOnSimtWithItself) {
  const auto first = outcome(GetParam(), kSimt);
  ASSERT_FALSE(first.empty());
  for (const auto& values : first) {
    EXPECT_FALSE(values.empty());
    EXPECT_TRUE(std::ranges::all_of(values, [](double x) { return std::isfinite(x); }));
  }
  EXPECT_EQ(outcome(GetParam(), kSimt), first);
}

// Room below the bound: what simt is off by, cuda is off by too.
TEST_P(Agreement, OfSimtWithTheCpuIsFiveTimesCloserThanTheBound) {
  if (GetParam().name.ends_with("bf16") || is_exact(GetParam().name)) {
    return;  // rounded to either side of an edge; the same bits on cuda and simt in any case
  }
  const auto got = outcome(GetParam(), kSimt), expected = outcome(GetParam(), kCpu);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(relative_error(got[i], expected[i]), bound_of(GetParam().name) / 5) << "result " << i;
  }
}

TEST_P(Agreement, OfCudaWithSimt) {
  if (std::ranges::count(devices(), DeviceType::cuda, &Device::type) == 0) {
    const char* asked = std::getenv("TESSERA_TEST_DEVICES");
    ASSERT_TRUE(asked == nullptr || std::string(asked).find("cuda") == std::string::npos)
        << "TESSERA_TEST_DEVICES asks for cuda, which this build or machine has not";
    GTEST_SKIP() << "no CUDA device at hand";
  }
  const auto expected = outcome(GetParam(), kSimt);
  expect_agreement(GetParam(), kCuda, expected);
  const ProductLibraryScope own(kCuda, nullptr);
  expect_agreement(GetParam(), kCuda, expected);
}

std::string test_name(const testing::TestParamInfo<bench::GpuCase>& info) {
  std::string name = info.param.name + "_" + info.param.shape;
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Ops, Agreement, testing::ValuesIn(bench::gpu_cases()), test_name);

}  // namespace
}  // namespace tessera
