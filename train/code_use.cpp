#include "train/code_use.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tessera {

CodeUse code_use(std::span<const std::uint64_t> counts) {
  CodeUse use;
  use.tokens = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  use.dead = static_cast<std::uint64_t>(std::count(counts.begin(), counts.end(), 0U));
  use.usage =
      counts.empty() ? 0 : 1 - static_cast<double>(use.dead) / static_cast<double>(counts.size());
  double entropy = 0;
  for (const std::uint64_t n : counts) {
    const double p = n > 0 ? static_cast<double>(n) / static_cast<double>(use.tokens) : 1;
    entropy -= p * std::log(p);
  }
  use.perplexity = use.tokens > 0 ? std::exp(entropy) : 0;
  return use;
}

}  // namespace tessera
