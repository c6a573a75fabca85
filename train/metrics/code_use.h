// How much of a codebook is in use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace tessera {

struct CodeUse {
  double perplexity = 0;  ///< exp(-sum p ln p), at least 1; 0 where no token was counted
  double usage = 0;       ///< used codes / K
  std::uint64_t dead = 0;
  std::uint64_t tokens = 0;
};
CodeUse code_use(std::span<const std::uint64_t> counts);
/// ln(perplexity) in nats; nothing where no token was counted.
std::optional<double> entropy_of(const CodeUse& use);

/// How often each next token occurs: the entropy of the frequencies is the loss of the best
/// constant answer.
class TokenFrequencies {
 public:
  /// Codes 0 .. K - 1 and the stop.
  explicit TokenFrequencies(std::int64_t codes);
  /// codes: (T) i32.
  void add(const Tensor& codes, std::uint64_t stops);
  /// In nats; nothing where no token was counted.
  [[nodiscard]] std::optional<double> entropy() const;

 private:
  std::vector<std::uint64_t> counts_;
};

}  // namespace tessera
