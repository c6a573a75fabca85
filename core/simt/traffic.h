// Coalescing: how many 32-byte sectors the lanes of a warp touch together at one call of ldg or
// stg, and how many wavefronts an access to the 32 banks of shared memory takes.
#pragma once

#include <array>
#include <cstdint>
#include <source_location>
#include <unordered_map>
#include <vector>

namespace tessera::simt {

/// The sectors that a launch has touched.
class SectorSet {
 public:
  /// How many of the sectors under these bytes are new.
  std::uint64_t add(const void* address, unsigned bytes);

 private:
  static constexpr std::uint64_t kPageSectors = 4096;
  using Page = std::array<std::uint64_t, kPageSectors / 64>;
  std::unordered_map<std::uint64_t, Page> pages_;
  std::uint64_t last_ = ~std::uint64_t{0};  // the page of the last access: most stay on it
  Page* page_ = nullptr;
};

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

/// Bank conflicts of one block. An access is what the lanes of a warp do together at one
/// instruction; 8-byte accesses go by half warps, 16-byte ones by quarters.
class BankTraffic {
 public:
  /// `site` tells instructions apart.
  void touch(int warp, int lane, std::size_t offset, unsigned bytes, const void* site);
  /// Wavefronts so far and how few there could have been; starts anew.
  struct Wavefronts {
    std::uint64_t taken = 0, ideal = 0;
  };
  Wavefronts take();

 private:
  struct Access {
    std::array<std::uint32_t, 32> offset;  // kNone: the lane takes no part
    unsigned bytes;
  };
  struct Site {
    std::array<std::uint32_t, 32> executions{};
    std::vector<Access> accesses;
  };
  static Wavefronts wavefronts(const Access& access);

  std::unordered_map<std::uint64_t, Site> sites_;
};

}  // namespace tessera::simt
