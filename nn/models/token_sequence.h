// Jets as token sequences of the published models: start, one token a particle, stop.
#pragma once

#include "core/segments.h"
#include "core/tensor.h"

namespace tessera {

/// Token 0 is the start, code k is token k + 1, token K + 1 the stop: a vocabulary of K + 2.
inline constexpr std::int32_t kStartToken = 0;
constexpr std::int32_t stop_token(std::int64_t codes) {
  return static_cast<std::int32_t>(codes + 1);
}

/// Packed sequences of some jets.
struct TokenSequences {
  Segments segments;
  Tensor ids;      // (T) i32
  Tensor targets;  // (T) i32, the token behind each; undefined where there is none to predict
};

/// For next-token training: ids [start, codes], targets [codes, stop]. A jet keeps its first
/// `slots` places, so one of `slots` particles or more loses its stop, as published code has it;
/// slots = 0 keeps all. codes: (N) i32 in 0 .. K-1; the tokens are made on their device.
TokenSequences next_token_sequences(const Tensor& codes, const Segments& jets,
                                    std::int64_t codebook_size, std::int64_t slots = 0);

/// For classification: ids [start, codes, stop], of which a jet keeps its first `slots`.
TokenSequences whole_sequences(const Tensor& codes, const Segments& jets,
                               std::int64_t codebook_size, std::int64_t slots = 0);

}  // namespace tessera
