// Kernels bound by memory move the bytes of their formula, in whole sectors, without bank
// conflicts. The formulas are in bench/gpu/cases.cpp, in terms of shapes.
#include "tests/support/roofline.h"

#include <gtest/gtest.h>

#include "bench/gpu/cases.h"

namespace tessera {
namespace {

class Roofline : public testing::TestWithParam<bench::GpuCase> {};

TEST_P(Roofline, BytesAreThoseOfTheFormulaInWholeSectors) {
  const bench::GpuCase& c = GetParam();
  const auto launches = launches_of(c.prepare());
  for (const bench::Traffic& expected : c.traffic) {
    SCOPED_TRACE(expected.launch);
    simt::LaunchStats s;
    int found = 0;
    for (const simt::Launched& one : launches) {
      if (one.kernel == expected.launch) {
        s += one.stats;
        ++found;
      }
    }
    EXPECT_EQ(found, 1);
    expect_dram_bytes(s, expected.read, expected.written);
    expect_coalesced(s);
    expect_few_wavefronts(s);
  }
}

std::vector<bench::GpuCase> with_formula() {
  std::vector<bench::GpuCase> cases = bench::gpu_cases();
  std::erase_if(cases, [](const auto& c) { return c.traffic.empty(); });
  return cases;
}

std::string test_name(const testing::TestParamInfo<bench::GpuCase>& info) {
  std::string name = info.param.name + "_" + info.param.shape;
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Kernels, Roofline, testing::ValuesIn(with_formula()), test_name);

}  // namespace
}  // namespace tessera
