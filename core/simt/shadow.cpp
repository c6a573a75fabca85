#include "core/simt/shadow.h"

#include <algorithm>

namespace tessera::simt {

void HappensBefore::reset(int threads) {
  threads_ = threads;
  epoch_ = 0;
  const auto n = static_cast<std::size_t>(threads);
  clock_.assign(n, 1);
  seen_.clear();
}

void HappensBefore::meet(const std::vector<int>& members) { meet(members, members); }

void HappensBefore::meet(const std::vector<int>& sources, const std::vector<int>& targets) {
  const auto n = static_cast<std::size_t>(threads_);
  if (seen_.empty()) {
    seen_.assign(n * n, 0);
  }
  std::vector<std::uint32_t> joined(n, 0);
  for (const int s : sources) {
    const std::uint32_t* row = &seen_[static_cast<std::size_t>(s) * n];
    for (std::size_t c = 0; c < n; ++c) {
      joined[c] = std::max(joined[c], row[c]);
    }
    joined[static_cast<std::size_t>(s)] = clock_[static_cast<std::size_t>(s)];
  }
  for (const int t : targets) {
    std::uint32_t* row = &seen_[static_cast<std::size_t>(t) * n];
    for (std::size_t c = 0; c < n; ++c) {
      row[c] = std::max(row[c], joined[c]);
    }
  }
  for (const int s : sources) {
    ++clock_[static_cast<std::size_t>(s)];
  }
}

Published HappensBefore::publish(int thread, std::uint32_t block) {
  const auto n = static_cast<std::size_t>(threads_);
  const auto me = static_cast<std::size_t>(thread);
  Published p{block, epoch_, std::vector<std::uint32_t>(n, 0)};
  if (!seen_.empty()) {
    std::copy_n(seen_.begin() + static_cast<std::ptrdiff_t>(me * n), n, p.seen.begin());
  }
  p.seen[me] = clock_[me]++;
  return p;
}

bool HappensBefore::ordered(int me, int other, std::uint32_t epoch, std::uint32_t clock) const {
  return me == other || epoch < epoch_ ||
         (!seen_.empty() &&
          seen_[static_cast<std::size_t>(me) * static_cast<std::size_t>(threads_) +
                static_cast<std::size_t>(other)] >= clock);
}

}  // namespace tessera::simt
