#include "core/simt/traffic.h"

#include <algorithm>

namespace tessera::simt {

std::uint64_t SectorSet::add(const void* address, unsigned bytes) {
  std::uint64_t fresh = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (std::uint64_t s = at / 32; s <= (at + bytes - 1) / 32; ++s) {
    if (s / kPageSectors != last_) {
      last_ = s / kPageSectors;
      page_ = &pages_[last_];  // a map of nodes: the page stays where it is
    }
    std::uint64_t& word = (*page_)[s % kPageSectors / 64];
    const std::uint64_t bit = std::uint64_t{1} << s % 64;
    fresh += (word & bit) == 0 ? 1 : 0;
    word |= bit;
  }
  return fresh;
}

void Traffic::touch(int warp, int lane, const void* address, unsigned bytes,
                    const std::source_location& where) {
  const std::uint64_t key =
      (static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(where.file_name())) << 24) ^
      (std::uint64_t{where.line()} << 16) ^ (std::uint64_t{where.column()} << 6) ^
      static_cast<std::uint64_t>(warp);
  Site& site = sites_[key];
  const std::uint32_t n = site.executions[static_cast<std::size_t>(lane)]++;
  if (site.sectors.size() <= n) {
    site.sectors.resize(n + 1);
  }
  auto& seen = site.sectors[n];
  const std::uint64_t first = reinterpret_cast<std::uintptr_t>(address) / 32;
  const std::uint64_t last = (reinterpret_cast<std::uintptr_t>(address) + bytes - 1) / 32;
  for (std::uint64_t s = first; s <= last; ++s) {
    if (std::find(seen.begin(), seen.end(), s) == seen.end()) {
      seen.push_back(s);
    }
  }
}

std::uint64_t Traffic::take() {
  std::uint64_t n = 0;
  for (const auto& [key, site] : sites_) {
    for (const auto& sectors : site.sectors) {
      n += sectors.size();
    }
  }
  sites_.clear();
  return n;
}

namespace {
constexpr std::uint32_t kNone = 0xffffffffU;
constexpr std::uint32_t kBanks = 32;
}  // namespace

void BankTraffic::touch(int warp, int lane, std::size_t offset, unsigned bytes, const void* site) {
  const std::uint64_t key = (reinterpret_cast<std::uintptr_t>(site) << 6) ^
                            static_cast<std::uint64_t>(warp) ^ (std::uint64_t{bytes} << 58);
  Site& s = sites_[key];
  const std::uint32_t n = s.executions[static_cast<std::size_t>(lane)]++;
  while (s.accesses.size() <= n) {
    s.accesses.push_back({{}, bytes});
    s.accesses.back().offset.fill(kNone);
  }
  s.accesses[n].offset[static_cast<std::size_t>(lane)] = static_cast<std::uint32_t>(offset);
}

// A bank serves one 4-byte word a wavefront, to any number of lanes.
BankTraffic::Wavefronts BankTraffic::wavefronts(const Access& access) {
  const std::size_t lanes = access.bytes <= 4 ? 32 : access.bytes == 8 ? 16 : 8;
  Wavefronts sum;
  for (std::size_t first = 0; first < 32; first += lanes) {
    std::vector<std::uint32_t> words;
    for (std::size_t l = first; l < first + lanes; ++l) {
      for (std::uint32_t w = access.offset[l] / 4;
           access.offset[l] != kNone && w <= (access.offset[l] + access.bytes - 1) / 4; ++w) {
        words.push_back(w);
      }
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::array<std::uint64_t, kBanks> per_bank{};
    for (const std::uint32_t w : words) {
      ++per_bank[w % kBanks];
    }
    sum.taken += *std::max_element(per_bank.begin(), per_bank.end());
    sum.ideal += (words.size() + kBanks - 1) / kBanks;
  }
  return sum;
}

BankTraffic::Wavefronts BankTraffic::take() {
  Wavefronts sum;
  for (const auto& [key, site] : sites_) {
    for (const Access& access : site.accesses) {
      const Wavefronts one = wavefronts(access);
      sum.taken += one.taken;
      sum.ideal += one.ideal;
    }
  }
  sites_.clear();
  return sum;
}

}  // namespace tessera::simt
