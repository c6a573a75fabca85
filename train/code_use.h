// How much of a codebook is in use.
#pragma once

#include <cstdint>
#include <span>

namespace tessera {

struct CodeUse {
  double perplexity = 0;  ///< exp(-sum p ln p)
  double usage = 0;       ///< used codes / K
  std::uint64_t dead = 0;
  std::uint64_t tokens = 0;
};
CodeUse code_use(std::span<const std::uint64_t> counts);

}  // namespace tessera
