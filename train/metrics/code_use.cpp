#include "train/metrics/code_use.h"

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

std::optional<double> entropy_of(const CodeUse& use) {
  return use.tokens > 0 ? std::optional(std::log(use.perplexity)) : std::nullopt;
}

TokenFrequencies::TokenFrequencies(std::int64_t codes)
    : counts_(static_cast<std::size_t>(codes) + 1, 0) {}

void TokenFrequencies::add(const Tensor& codes, std::uint64_t stops) {
  for (const std::int32_t c : codes.to_vector<std::int32_t>()) {
    ++counts_[static_cast<std::size_t>(c)];
  }
  counts_.back() += stops;
}

std::optional<double> TokenFrequencies::entropy() const { return entropy_of(code_use(counts_)); }

}  // namespace tessera
