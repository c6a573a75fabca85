#include "nn/models/token_sequence.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using Ints = std::vector<std::int32_t>;
constexpr std::int64_t kCodes = 7;

/// Jets of 0, 1 and 3 particles.
const Segments kJets({0, 0, 1, 4});
Tensor codes() { return Tensor::from(Ints{6, 0, 5, 2}, {4}); }

TEST(TokenSequence, TargetsAreTheNextTokensAndEndWithTheStop) {
  const TokenSequences s = next_token_sequences(codes(), kJets, kCodes);
  EXPECT_EQ(s.ids.to_vector<std::int32_t>(), (Ints{0, 0, 7, 0, 1, 6, 3}));
  EXPECT_EQ(s.targets.to_vector<std::int32_t>(), (Ints{8, 7, 8, 1, 6, 3, 8}));
  EXPECT_EQ(s.segments.length(2), 4);
}

TEST(TokenSequence, AJetThatFillsItsSlotsLosesItsStop) {
  const TokenSequences s = next_token_sequences(codes(), kJets, kCodes, 3);
  EXPECT_EQ(s.ids.to_vector<std::int32_t>(), (Ints{0, 0, 7, 0, 1, 6}));
  EXPECT_EQ(s.targets.to_vector<std::int32_t>(), (Ints{8, 7, 8, 1, 6, 3}));
}

TEST(TokenSequence, WholeSequencesCountStartAndStopAndAreCutAtTheSlots) {
  EXPECT_EQ(whole_sequences(codes(), kJets, kCodes).ids.to_vector<std::int32_t>(),
            (Ints{0, 8, 0, 7, 8, 0, 1, 6, 3, 8}));
  const TokenSequences cut = whole_sequences(codes(), kJets, kCodes, 4);
  EXPECT_EQ(cut.ids.to_vector<std::int32_t>(), (Ints{0, 8, 0, 7, 8, 0, 1, 6, 3}));
  EXPECT_EQ(cut.segments.length(0), 2) << "an empty jet has a start and a stop";
}

TEST(TokenSequence, RefusesCodesThatTheJetsDoNotCover) {
  EXPECT_THROW(whole_sequences(codes(), Segments({0, 3}), kCodes), Error);
}

}  // namespace
}  // namespace tessera
