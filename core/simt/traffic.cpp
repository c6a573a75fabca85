#include "core/simt/traffic.h"

#include <algorithm>

namespace tessera::simt {

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

}  // namespace tessera::simt
