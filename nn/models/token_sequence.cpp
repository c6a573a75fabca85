#include "nn/models/token_sequence.h"

#include <algorithm>

#include "kernels/gather/gather.h"

namespace tessera {
namespace {

using Tokens = std::vector<std::int32_t>;

/// [start, codes, stop] of one jet whose particles begin at `first`, as gather_tokens() takes them.
Tokens tokens_of(std::int32_t first, std::int32_t particles, std::int64_t codebook_size) {
  Tokens tokens{literal_token(kStartToken)};
  for (std::int32_t i = first; i < first + particles; ++i) {
    tokens.push_back(i);
  }
  tokens.push_back(literal_token(stop_token(codebook_size)));
  return tokens;
}

/// Calls visit(tokens) for each jet.
template <class Visit>
void for_jets(const Tensor& codes, const Segments& jets, std::int64_t codebook_size, Visit visit) {
  TESSERA_CHECK(codes.shape() == Shape{jets.total()}, "token sequences: expected {} codes, got {}",
                jets.total(), codes.shape());
  for (int j = 0; j < jets.count(); ++j) {
    const std::int32_t first = jets.cu_seqlens()[static_cast<std::size_t>(j)];
    visit(tokens_of(first, jets.length(j), codebook_size));
  }
}

std::size_t kept(std::size_t length, std::int64_t slots) {
  return slots == 0 ? length : std::min(length, static_cast<std::size_t>(slots));
}

}  // namespace

TokenSequences next_token_sequences(const Tensor& codes, const Segments& jets,
                                    std::int64_t codebook_size, std::int64_t slots) {
  Tokens ids, targets, offsets{0};
  for_jets(codes, jets, codebook_size, [&](const Tokens& tokens) {
    const auto n = static_cast<std::ptrdiff_t>(kept(tokens.size() - 1, slots));
    ids.insert(ids.end(), tokens.begin(), tokens.begin() + n);
    targets.insert(targets.end(), tokens.begin() + 1, tokens.begin() + 1 + n);
    offsets.push_back(static_cast<std::int32_t>(ids.size()));
  });
  return {Segments(offsets), gather_tokens(codes, ids, kStartToken + 1),
          gather_tokens(codes, targets, kStartToken + 1)};
}

TokenSequences whole_sequences(const Tensor& codes, const Segments& jets,
                               std::int64_t codebook_size, std::int64_t slots) {
  Tokens ids, offsets{0};
  for_jets(codes, jets, codebook_size, [&](const Tokens& tokens) {
    ids.insert(ids.end(), tokens.begin(),
               tokens.begin() + static_cast<std::ptrdiff_t>(kept(tokens.size(), slots)));
    offsets.push_back(static_cast<std::int32_t>(ids.size()));
  });
  return {Segments(offsets), gather_tokens(codes, ids, kStartToken + 1), {}};
}

}  // namespace tessera
