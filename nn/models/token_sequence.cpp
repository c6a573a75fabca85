#include "nn/models/token_sequence.h"

#include <algorithm>

namespace tessera {
namespace {

using Tokens = std::vector<std::int32_t>;

/// [start, codes + 1, stop] of one jet.
Tokens tokens_of(std::span<const std::int32_t> codes, std::int64_t codebook_size) {
  Tokens tokens{kStartToken};
  for (const std::int32_t code : codes) {
    tokens.push_back(code + 1);
  }
  tokens.push_back(stop_token(codebook_size));
  return tokens;
}

Tensor ids_tensor(const Tokens& ids, Device device) {
  return Tensor::from(ids, {static_cast<std::int64_t>(ids.size())}, device);
}

/// Calls visit(tokens) for each jet.
template <class Visit>
void for_jets(const Tensor& codes, const Segments& jets, std::int64_t codebook_size, Visit visit) {
  const auto all = codes.to_vector<std::int32_t>();
  TESSERA_CHECK(static_cast<std::int32_t>(all.size()) == jets.total(),
                "token sequences: expected {} codes, got {}", jets.total(), all.size());
  for (int j = 0; j < jets.count(); ++j) {
    const auto first = static_cast<std::size_t>(jets.cu_seqlens()[static_cast<std::size_t>(j)]);
    visit(tokens_of(std::span(all).subspan(first, static_cast<std::size_t>(jets.length(j))),
                    codebook_size));
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
  return {Segments(offsets), ids_tensor(ids, codes.device()), ids_tensor(targets, codes.device())};
}

TokenSequences whole_sequences(const Tensor& codes, const Segments& jets,
                               std::int64_t codebook_size, std::int64_t slots) {
  Tokens ids, offsets{0};
  for_jets(codes, jets, codebook_size, [&](const Tokens& tokens) {
    ids.insert(ids.end(), tokens.begin(),
               tokens.begin() + static_cast<std::ptrdiff_t>(kept(tokens.size(), slots)));
    offsets.push_back(static_cast<std::int32_t>(ids.size()));
  });
  return {Segments(offsets), ids_tensor(ids, codes.device()), {}};
}

}  // namespace tessera
