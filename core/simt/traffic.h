// Coalescing: how many 32-byte sectors the lanes of a warp touch together at one call of ldg or
// stg.
#pragma once

#include <array>
#include <cstdint>
#include <source_location>
#include <unordered_map>
#include <vector>

namespace tessera::simt {

/// Sectors of one block. The n-th execution of a call site by each lane of a warp is one access.
class Traffic {
 public:
  void touch(int warp, int lane, const void* address, unsigned bytes,
             const std::source_location& where);
  /// Sectors so far; starts anew.
  std::uint64_t take();

 private:
  struct Site {
    std::array<std::uint32_t, 32> executions{};
    std::vector<std::vector<std::uint64_t>> sectors;  // by execution
  };
  std::unordered_map<std::uint64_t, Site> sites_;
};

}  // namespace tessera::simt
