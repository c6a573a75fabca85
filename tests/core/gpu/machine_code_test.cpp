// What ptxas made of the kernels, where nvcc built them: no local memory, no doubles, no
// floating-point atomics, and as many tensor instructions as the source has.
#include "tests/core/gpu/machine_code.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

namespace tessera {
namespace {

MachineCode pin(const std::string& kernel, int architecture) {
  for (MachineCode& code : machine_code_of(TESSERA_PINS)) {
    if (code.kernel == kernel && code.architecture == architecture) {
      return code;
    }
  }
  ADD_FAILURE() << kernel << " for " << architecture << " is missing";
  return {};
}

class Pins : public testing::TestWithParam<int> {};

TEST_P(Pins, TensorInstructionsAreCounted) {
  const MachineCode code = pin("pin_tensor", GetParam());
  EXPECT_EQ(code.count(opcode::kHmma), 8);
  EXPECT_EQ(code.count(opcode::kLdsm), 3);
  EXPECT_EQ(code.count(opcode::kLdgsts), 2);
  EXPECT_EQ(code.count(opcode::kLdgdepbar), 1);
  EXPECT_EQ(code.count(opcode::kStg), 4);
}

TEST_P(Pins, ArithmeticIsCounted) {
  const MachineCode code = pin("pin_arithmetic", GetParam());
  EXPECT_EQ(code.count(opcode::kMufu), 8);
  EXPECT_EQ(code.operations(opcode::kFmnmx), 5);
  EXPECT_EQ(code.count(opcode::kLdg), 2);
  EXPECT_EQ(code.count(opcode::kStg), 1);
  EXPECT_EQ(code.doubles(), 0);
  EXPECT_EQ(code.count(opcode::kLdl) + code.count(opcode::kStl), 0);
}

TEST_P(Pins, DoublesAndLocalMemoryAreFound) {
  EXPECT_EQ(pin("pin_double", GetParam()).doubles(), 3);
  EXPECT_GE(pin("pin_local", GetParam()).count(opcode::kLdl), 3);
  EXPECT_GE(pin("pin_local", GetParam()).count(opcode::kStl), 16);
}

INSTANTIATE_TEST_SUITE_P(MachineCode, Pins, testing::Values(80, 90));

// The first line of the PTX that no kernel may hold; empty if it is clean.
std::string forbidden(const Ptx& ptx, bool doubles = false) {
  std::istringstream lines(ptx.body);
  for (std::string line; std::getline(lines, line);) {
    const auto has = [&](const char* word) { return line.find(word) != std::string::npos; };
    const bool atomic = line.rfind("atom.", 0) == 0 || line.rfind("red.", 0) == 0;
    if ((has(".f64") && !doubles) || has("ld.local") || has("st.local") ||
        (atomic && (has(".f32") || has(".f16") || has(".bf16")))) {
      return line;
    }
  }
  return "";
}

// Where doubles decide between equal draws, on purpose: kernels/sample.
bool may_use_doubles(const std::string& mangled) {
  return short_name(mangled).rfind("sample_kernel", 0) == 0;
}

TEST(PinsPtx, ForbiddenWordsAreFound) {
  std::map<std::string, std::string> found;
  for (const Ptx& ptx : ptx_of(TESSERA_PINS)) {
    found[ptx.kernel] = forbidden(ptx);
  }
  EXPECT_EQ(found.at("pin_tensor"), "");
  EXPECT_EQ(found.at("pin_arithmetic"), "");
  EXPECT_NE(found.at("pin_double"), "");
  EXPECT_NE(found.at("pin_local").find(".local"), std::string::npos);
  EXPECT_NE(found.at("pin_atomic").find("add.f32"), std::string::npos);
}

/// Objects of the kernels of this build.
std::vector<std::string> objects() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(TESSERA_OBJECTS)) {
    const std::string path = entry.path();
    if (path.ends_with("_cuda.cu.o")) {
      files.push_back(path);
    }
  }
  return files;
}

TEST(KernelPtx, HasNoDoublesNoLocalMemoryAndNoFloatAtomics) {
  int kernels = 0;
  for (const std::string& object : objects()) {
    for (const Ptx& ptx : ptx_of(object)) {
      EXPECT_EQ(forbidden(ptx, may_use_doubles(ptx.kernel)), "")
          << short_name(ptx.kernel) << " in " << object;
      ++kernels;
    }
  }
  EXPECT_GE(kernels, 40);
}

#ifdef TESSERA_PROGRAM
// What is shipped runs on GPUs newer than its machine code.
TEST(Program, CarriesThePtxOfEveryKernelForCompute80) {
  std::set<std::string> carried;
  for (const Ptx& ptx : ptx_of(TESSERA_PROGRAM)) {
    if (ptx.target == "sm_80") {
      carried.insert(ptx.kernel);
    }
  }
  for (const MachineCode& code : machine_code_of(TESSERA_PROGRAM)) {
    EXPECT_TRUE(carried.contains(code.kernel)) << short_name(code.kernel);
  }
  EXPECT_GE(carried.size(), 40U);
}
#endif

TEST(KernelMachineCode, HasNoLocalMemoryAndNoDoubles) {
  int kernels = 0;
  for (const std::string& object : objects()) {
    for (const MachineCode& code : machine_code_of(object)) {
      const std::string name = short_name(code.kernel) + " sm_" + std::to_string(code.architecture);
      EXPECT_EQ(code.count(opcode::kLdl), 0) << name << " in " << object;
      EXPECT_EQ(code.count(opcode::kStl), 0) << name << " in " << object;
      EXPECT_TRUE(code.doubles() == 0 || may_use_doubles(code.kernel)) << name << " in " << object;
      EXPECT_GT(code.instructions, 8) << name;
      ++kernels;
    }
  }
  EXPECT_GE(kernels, 80);  // two architectures
}

TEST(KernelMachineCode, HasTheTensorInstructionsOfTheSource) {
  int tensor_kernels = 0;
  for (const std::string& object : objects()) {
    std::map<std::string, Ptx> source;
    for (Ptx& ptx : ptx_of(object)) {
      source[ptx.kernel] = std::move(ptx);
    }
    for (const MachineCode& code : machine_code_of(object)) {
      ASSERT_TRUE(source.contains(code.kernel)) << code.kernel;
      const int expected = source[code.kernel].count("mma.sync.aligned");
      EXPECT_EQ(code.count(opcode::kHmma), expected) << short_name(code.kernel) << " in " << object;
      tensor_kernels += expected > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(tensor_kernels, 0);
}

}  // namespace
}  // namespace tessera
