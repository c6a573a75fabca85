// How many blocks of each kernel fit a multiprocessor, by NVIDIA's own arithmetic
// (cuda_occupancy.h): registers from the budget table, threads and sizeof(Smem) from the launches
// of bench/gpu/cases.cpp on simt, against a committed table. Fewer than there fails;
// TESSERA_UPDATE=1 writes it.
#include <cuda_occupancy.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "bench/gpu/cases.h"
#include "core/simt/report.h"
#include "tests/core/gpu/kernel_symbol.h"

namespace tessera {
namespace {

const std::string kFolder = TESSERA_SOURCE_DIR "/tests/core/gpu/";

cudaOccDeviceProp card(int major, std::size_t per_sm, std::size_t opt_in, int multiprocessors) {
  cudaOccDeviceProp p;
  p.computeMajor = major;
  p.computeMinor = 0;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsPerMultiprocessor = 2048;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.sharedMemPerBlock = 49152;
  p.sharedMemPerMultiprocessor = per_sm;
  p.numSms = multiprocessors;
  p.sharedMemPerBlockOptin = opt_in;
  p.reservedSharedMemPerBlock = 1024;
  return p;
}

const cudaOccDeviceProp kA100Card = card(8, 167936, 166912, 108);
const cudaOccDeviceProp kH100Card = card(9, 233472, 232448, 132);

/// Blocks per multiprocessor; 0: the kernel does not fit.
int blocks_per_sm(const cudaOccDeviceProp& device, int registers, int threads, std::size_t smem) {
  cudaOccFuncAttributes f;
  f.maxThreadsPerBlock = INT_MAX;
  f.numRegs = registers;
  f.sharedSizeBytes = 0;
  f.partitionedGCConfig = PARTITIONED_GC_OFF;
  f.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  f.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
  f.numBlockBarriers = 1;
  const cudaOccDeviceState state;
  cudaOccResult result;
  const auto code =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &f, &state, threads, smem);
  return code == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : 0;
}

// Known cases: 64 Ki registers, 2,048 threads, shared memory with 1 KiB of the driver a block.
TEST(Occupancy, IsSetByTheScarcestResource) {
  EXPECT_EQ(blocks_per_sm(kH100Card, 32, 256, 0), 8);         // threads
  EXPECT_EQ(blocks_per_sm(kH100Card, 128, 256, 0), 2);        // registers
  EXPECT_EQ(blocks_per_sm(kH100Card, 32, 128, 30 << 10), 7);  // 228 / 31
  EXPECT_EQ(blocks_per_sm(kA100Card, 32, 128, 30 << 10), 5);  // 164 / 31
  EXPECT_EQ(blocks_per_sm(kA100Card, 32, 128, 200 << 10), 0);
}

/// "op kernel" of the budget table to registers of sm_80 and sm_90a.
std::map<std::string, std::map<std::string, int>> registers() {
  std::map<std::string, std::map<std::string, int>> table;
  std::ifstream in(kFolder + "budget.txt");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string op, kernel, architecture;
    int count = 0;
    if (line[0] != '#' && words >> op >> kernel >> architecture >> count) {
      table[op + " " + kernel][architecture] = count;
    }
  }
  return table;
}

/// "op kernel threads smem" to blocks on A100 and H100.
using Table = std::map<std::string, std::pair<int, int>>;

Table committed() {
  Table table;
  std::ifstream in(kFolder + "occupancy.txt");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string op, kernel, threads, smem;
    std::pair<int, int> blocks;
    if (line[0] != '#' &&
        words >> op >> kernel >> threads >> smem >> blocks.first >> blocks.second) {
      table[op + " " + kernel + " " + threads + " " + smem] = blocks;
    }
  }
  return table;
}

void add_launch(const simt::Launched& one, Table& table) {
  static const auto budget = registers();
  const KernelSymbol symbol = kernel_symbol(one.entry);
  const std::string key = symbol.op + " " + symbol.kernel;
  const auto found = budget.find(key);
  if (found == budget.end()) {
    return;  // of core, or not in the budget yet
  }
  const int threads = static_cast<int>(one.block.x * one.block.y * one.block.z);
  table[fmt::format("{} {} {}", key, threads, one.smem_bytes)] = {
      blocks_per_sm(kA100Card, found->second.at("sm_80"), threads, one.smem_bytes),
      blocks_per_sm(kH100Card, found->second.at("sm_90a"), threads, one.smem_bytes)};
}

Table computed() {
  Table table;
  for (const bench::GpuCase& c : bench::gpu_cases()) {
    const auto run = c.prepare();
    const simt::LaunchLog log;
    run();
    for (const simt::Launched& one : log.launches()) {
      add_launch(one, table);
    }
  }
  return table;
}

void write(const Table& table) {
  std::ofstream out(kFolder + "occupancy.txt");
  out << "# op kernel threads smem_bytes blocks_per_sm_A100 blocks_per_sm_H100; written by "
         "occupancy_test with TESSERA_UPDATE=1\n";
  for (const auto& [key, blocks] : table) {
    out << key << " " << blocks.first << " " << blocks.second << "\n";
  }
}

TEST(Occupancy, OfEachKernelIsThatOfTheTable) {
  const Table now = computed();
  if (std::getenv("TESSERA_UPDATE") != nullptr) {
    write(now);
    GTEST_SKIP() << "the table is written";
  }
  const Table before = committed();
  EXPECT_GT(now.size(), 40U);
  for (const auto& [key, blocks] : now) {
    EXPECT_GE(blocks.first, 1) << key << " does not fit an A100";
    EXPECT_GE(blocks.second, 1) << key << " does not fit an H100";
    const auto known = before.find(key);
    if (known != before.end()) {
      EXPECT_GE(blocks.first, known->second.first) << key << " on A100";
      EXPECT_GE(blocks.second, known->second.second) << key << " on H100";
    } else {
      RecordProperty("new", key);  // a kernel that changed its shape is no fault
    }
  }
}

}  // namespace
}  // namespace tessera
