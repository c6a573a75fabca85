#include "nn/models/generation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "core/parallel.h"
#include "kernels/gather/gather.h"
#include "kernels/softmax/softmax.h"
#include "nn/models/packing.h"

namespace tessera {
namespace {

using Ints = std::vector<std::int32_t>;
using Jets = std::vector<GeneratedJet>;

constexpr std::int64_t kCodes = 13, kLimit = 9;

std::vector<std::uint64_t> some_uids(std::size_t n) {
  std::vector<std::uint64_t> uids;
  for (std::size_t i = 0; i < n; ++i) {
    uids.push_back(1000 + 7 * i);
  }
  return uids;
}

// Leaves behind identity starts, zero biases and small embeddings.
void randomise(const Module& module, std::uint64_t seed, float size) {
  Rng rng(seed);
  for (const NamedTensor& p : module.named_parameters()) {
    copy_into(p.tensor, uniform_init(p.tensor.shape(), size, rng));
  }
}

/// The step-by-step states of a jet and those of the whole jet at once.
struct Compared {
  Tensor cached, full;
};

struct Gpt {
  Rng rng{1};
  GptBackbone backbone{{.vocabulary = kCodes + 2, .width = 16, .blocks = 3, .heads = 2}, rng};
  NextTokenHead head{16, kCodes + 2, rng};

  Gpt() { randomise(head, 2, 0.6F); }
  Jets draw(std::size_t n, const GenerateOptions& o = {.max_particles = kLimit}) const {
    return generate(backbone, head, some_uids(n), o);
  }
  [[nodiscard]] GptDecoder decoder(const GenerateOptions& o) const {
    return GptDecoder(backbone, head, o);
  }
  /// Logits after the start and after each code, in one pass over the whole jet. (n + 1, V)
  [[nodiscard]] Tensor full_logits(const Ints& codes, const Ints&) const {
    const NoGrad off;
    Ints ids{0};
    for (const std::int32_t c : codes) ids.push_back(c + 1);
    const auto n = static_cast<std::int32_t>(ids.size());
    return head.ntp(backbone(RowPacker::vector_tensor(ids), Segments({0, n})));
  }
  [[nodiscard]] Tensor full_pid_logits(const Ints&, const Ints&) const { return {}; }
  void bias_stop(float by) { fill(head.ntp.bias.slice(0, kCodes + 1, kCodes + 2), by); }
};

struct Tessera {
  Rng rng{3};
  Tokenizer tokenizer{
      {.width = 16, .blocks = 2, .heads = 2, .codes = kCodes, .causal_decoder = true}, rng};
  Backbone backbone{{.width = 16, .blocks = 2, .heads = 2, .registers = 3}, rng};
  PretrainHead head{16, 2, {.codes = kCodes, .max_particles = kLimit}, rng};

  Tessera() {
    randomise(tokenizer, 4, 0.5F);
    randomise(backbone, 5, 0.5F);
    randomise(head, 6, 0.3F);
  }
  Jets draw(std::size_t n, const GenerateOptions& o = {.max_particles = kLimit}) const {
    return generate(backbone, head, tokenizer, some_uids(n), o);
  }
  [[nodiscard]] TesseraDecoder decoder(const GenerateOptions& o) const {
    return TesseraDecoder(backbone, head, tokenizer, o);
  }
  // The causal stream as pre-training packs it, with the tokenizer's decoder over the whole jet.
  [[nodiscard]] Tensor full_states(const Ints& codes, const Ints& pids) const {
    const auto n = static_cast<std::int32_t>(codes.size());
    const auto registers = static_cast<std::int32_t>(backbone.config.registers);
    RowPacker packer(registers);
    packer.begin_segment();
    packer.append_range(registers, n + 1);
    std::vector<Tensor> parts{backbone.registers, backbone.start};
    if (n > 0) {
      const Segments jet({0, n});
      parts.push_back(
          backbone.embed({.segments = jet,
                          .core = tokenizer.decode(RowPacker::vector_tensor(codes), jet),
                          .pid = RowPacker::vector_tensor(pids),
                          .context = {}}));
    }
    const Tensor rows = gather_rows(concat_rows(parts), packer.index());
    const Tensor h = gather_rows(backbone.run(rows, packer.segments(), {1}), packer.payload());
    return head.ntp_norm()(head.ntp_block()(h, Segments({0, n + 1}), {1}));
  }
  [[nodiscard]] Tensor full_logits(const Ints& codes, const Ints& pids) const {
    const NoGrad off;
    return head.token_logits(full_states(codes, pids));
  }
  /// Of each particle, given its code. (n, 8)
  [[nodiscard]] Tensor full_pid_logits(const Ints& codes, const Ints& pids) const {
    const NoGrad off;
    Ints tokens;
    for (const std::int32_t c : codes) tokens.push_back(c + 1);
    const Tensor h = full_states(codes, pids).slice(0, 0, std::ssize(codes));
    return head.pid_logits(h.contiguous(), RowPacker::vector_tensor(tokens));
  }
  void bias_stop(float by) const {
    for (const NamedTensor& p : head.named_parameters()) {
      if (p.name == "unembed.bias") {
        fill(p.tensor.slice(0, kCodes + 1, kCodes + 2), by);
      }
    }
  }
};

template <class Model>
class Generation : public testing::Test {};
struct ModelNames {
  template <class Model>
  static std::string GetName(int) {
    return std::is_same_v<Model, Gpt> ? "gpt" : "tessera";
  }
};
using Models = testing::Types<Gpt, Tessera>;
TYPED_TEST_SUITE(Generation, Models, ModelNames);

double log_softmax_at(const Tensor& logits, std::int64_t row, std::int32_t column) {
  const auto all = logits.to_vector<float>();
  const auto width = logits.shape(1);
  double sum = 0;
  for (std::int64_t j = 0; j < width; ++j) {
    sum += std::exp(static_cast<double>(all[static_cast<std::size_t>(row * width + j)]));
  }
  return static_cast<double>(all[static_cast<std::size_t>(row * width + column)]) - std::log(sum);
}

std::vector<float> row_of(const Tensor& t, std::int64_t row) {
  return t.slice(0, row, row + 1).contiguous().template to_vector<float>();
}

// Jets of different lengths in shuffled slots; slots reused by a second jet.
TYPED_TEST(Generation, CachedLogitsEqualTheRecomputedOnesAtEachStep) {
  const TypeParam model;
  const NoGrad off;
  auto decoder = model.decoder({.max_particles = kLimit, .slots = 3});
  Rng rng(7);
  for (const std::int32_t slot : {2, 0, 1, 2, 2}) {
    Ints codes, pids;
    for (std::int32_t position = 0; position <= kLimit; ++position) {
      const DecodeInput in{slot, position, codes.empty() ? -1 : codes.back(),
                           pids.empty() ? -1 : pids.back()};
      const auto cached = decoder.token_logits(decoder.step({&in, 1})).template to_vector<float>();
      const auto full = row_of(model.full_logits(codes, pids), position);
      for (std::size_t j = 0; j < full.size(); ++j) {
        ASSERT_NEAR(cached[j], full[j], 2e-5) << "position " << position << " token " << j;
      }
      codes.push_back(static_cast<std::int32_t>(rng.below(kCodes)));
      pids.push_back(static_cast<std::int32_t>(rng.below(8)));
    }
  }
}

void expect_equal(const Jets& a, const Jets& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].uid, b[i].uid);
    EXPECT_EQ(a[i].codes, b[i].codes) << "jet " << i;
    EXPECT_EQ(a[i].pids, b[i].pids) << "jet " << i;
    EXPECT_EQ(a[i].log_likelihood, b[i].log_likelihood) << "jet " << i;
    EXPECT_EQ(a[i].pid_log_likelihood, b[i].pid_log_likelihood) << "jet " << i;
    EXPECT_EQ(a[i].truncated, b[i].truncated) << "jet " << i;
  }
}

TYPED_TEST(Generation, JetsAreBitEqualForAnySlotAndThreadCount) {
  const TypeParam model;
  const Jets expected = model.draw(70);
  const int threads = num_threads();
  for (const int slots : {1, 3, 64}) {
    for (const int t : {1, 2, 3, 8}) {
      set_num_threads(t);
      expect_equal(model.draw(70, {.max_particles = kLimit, .slots = slots}), expected);
    }
  }
  set_num_threads(threads);
}

TYPED_TEST(Generation, AJetDoesNotDependOnTheOtherJets) {
  const TypeParam model;
  const Jets many = model.draw(20);
  const Jets few = model.draw(5);
  expect_equal(few, {many.begin(), many.begin() + 5});
}

TYPED_TEST(Generation, LengthsVaryAndStayWithinTheLimit) {
  const TypeParam model;
  std::vector<std::size_t> seen(kLimit + 1, 0);
  std::size_t cut = 0;
  for (const GeneratedJet& jet : model.draw(300)) {
    ASSERT_LE(jet.codes.size(), static_cast<std::size_t>(kLimit));
    EXPECT_TRUE(!jet.truncated || std::ssize(jet.codes) == kLimit);
    ++seen[jet.codes.size()];
    cut += jet.truncated ? 1 : 0;
  }
  EXPECT_GT(std::ranges::count_if(seen, [](std::size_t n) { return n > 0; }), 5)
      << testing::PrintToString(seen);
  EXPECT_GT(cut, 0U);
  EXPECT_GT(seen[kLimit], cut) << "some jets stop exactly at the limit";
}

TYPED_TEST(Generation, IdZeroIsNeverDrawnThoughTheModelPrefersIt) {
  TypeParam model;
  for (const Module* m :
       {static_cast<const Module*>(&model.backbone), static_cast<const Module*>(&model.head)}) {
    for (const NamedTensor& p : m->named_parameters()) {
      if (p.name == "ntp.bias" || p.name == "unembed.bias") {
        fill(p.tensor.slice(0, 0, 1), 20.0F);
      }
    }
  }
  for (const GeneratedJet& jet : model.draw(50)) {
    for (const std::int32_t c : jet.codes) {
      EXPECT_GE(c, 0);
      EXPECT_LT(c, kCodes);
    }
    EXPECT_LT(jet.log_likelihood, -10) << "a rare end under a model that wants the start";
  }
}

TYPED_TEST(Generation, AModelThatStopsAtOnceGivesEmptyJets) {
  TypeParam model;
  model.bias_stop(60);
  for (const GeneratedJet& jet : model.draw(20)) {
    EXPECT_TRUE(jet.codes.empty());
    EXPECT_FALSE(jet.truncated);
    EXPECT_NEAR(jet.log_likelihood, 0, 1e-6);
  }
}

TYPED_TEST(Generation, AModelThatNeverStopsIsCutAtTheLimit) {
  TypeParam model;
  model.bias_stop(-60);
  for (const GeneratedJet& jet : model.draw(20)) {
    EXPECT_EQ(std::ssize(jet.codes), kLimit);
    EXPECT_TRUE(jet.truncated);
  }
}

TYPED_TEST(Generation, LogLikelihoodIsTheSumOverTheFullPass) {
  const TypeParam model;
  for (const GeneratedJet& jet : model.draw(30)) {
    const Tensor logits = model.full_logits(jet.codes, jet.pids);
    const Tensor pid_logits = model.full_pid_logits(jet.codes, jet.pids);
    double sum = 0, pid_sum = 0;
    const auto n = static_cast<std::int64_t>(jet.codes.size());
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      sum += log_softmax_at(logits, i, jet.codes[at] + 1);
      if (pid_logits.defined()) pid_sum += log_softmax_at(pid_logits, i, jet.pids[at]);
    }
    sum += jet.truncated ? 0 : log_softmax_at(logits, n, kCodes + 1);
    EXPECT_NEAR(jet.log_likelihood, sum, 1e-4);
    EXPECT_NEAR(jet.pid_log_likelihood, pid_sum, 1e-4);
  }
}

TYPED_TEST(Generation, TemperatureZeroTakesTheLargestOfTheFullRecomputation) {
  const TypeParam model;
  const GeneratedJet jet = model.draw(3, {.max_particles = kLimit, .temperature = 0})[2];
  Ints codes, pids;
  const auto largest = [](const Tensor& logits, std::int64_t row, int first) {
    const auto x = row_of(logits, row);
    return static_cast<std::int32_t>(std::max_element(x.begin() + first, x.end()) - x.begin());
  };
  for (std::int64_t i = 0; i <= kLimit; ++i) {
    const std::int32_t token = largest(model.full_logits(codes, pids), i, 1);
    if (token == kCodes + 1 || i == kLimit) break;
    codes.push_back(token - 1);
    pids.push_back(0);
    const Tensor pid_logits = model.full_pid_logits(codes, pids);
    if (pid_logits.defined()) pids.back() = largest(pid_logits, i, 0);
  }
  EXPECT_EQ(jet.codes, codes);
  EXPECT_TRUE(jet.pids.empty() || jet.pids == pids);
}

// The first token's frequencies against the model's probabilities.
TYPED_TEST(Generation, TokensAreDrawnWithTheModelsProbabilities) {
  const TypeParam model;
  const std::size_t n = 4000;
  std::vector<double> counts(kCodes + 2, 0.0);
  for (const GeneratedJet& jet : model.draw(n, {.max_particles = 1})) {
    ++counts[jet.codes.empty() ? static_cast<std::size_t>(kCodes + 1)
                               : static_cast<std::size_t>(jet.codes[0] + 1)];
  }
  const Tensor logits = model.full_logits({}, {});
  const double start = std::exp(log_softmax_at(logits, 0, 0));
  for (std::int32_t t = 1; t < kCodes + 2; ++t) {
    const double p = std::exp(log_softmax_at(logits, 0, t)) / (1 - start);
    EXPECT_NEAR(counts[static_cast<std::size_t>(t)] / n, p, 4 * std::sqrt(p / n) + 1e-3) << t;
  }
}

TYPED_TEST(Generation, AnotherSeedGivesOtherJets) {
  const TypeParam model;
  const Jets a = model.draw(20), b = model.draw(20, {.max_particles = kLimit, .seed = 2});
  int different = 0;
  for (std::size_t i = 0; i < 20; ++i) {
    different += a[i].codes != b[i].codes ? 1 : 0;
  }
  EXPECT_GT(different, 10);
}

TYPED_TEST(Generation, NoJetsAreAskedForAndNoneCome) {
  const TypeParam model;
  EXPECT_TRUE(model.draw(0).empty());
}

TYPED_TEST(Generation, RejectsOptionsOutOfRange) {
  const TypeParam model;
  EXPECT_THROW(model.draw(1, {.max_particles = 0}), Error);
  EXPECT_THROW(model.draw(1, {.slots = 0}), Error);
  EXPECT_THROW(model.draw(1, {.temperature = -1}), Error);
}

TEST(GenerationProgress, CountsFinishedJetsUpToAll) {
  const Gpt model;
  std::vector<std::int64_t> done;
  generate(model.backbone, model.head, some_uids(10), {.max_particles = kLimit, .slots = 3},
           [&](std::int64_t d, std::int64_t total) {
             EXPECT_EQ(total, 10);
             done.push_back(d);
           });
  EXPECT_TRUE(std::ranges::is_sorted(done));
  EXPECT_EQ(done.back(), 10);
}

// The causal stream of a jet is what pre-training scores: same rows, same order, same heads.
TEST(GenerationTraining, LogLikelihoodIsTheLossOfPretrainingOnTheDrawnJets) {
  const Tessera model;
  Ints lengths, codes, pids;
  double sum = 0;
  for (const GeneratedJet& jet : model.draw(40)) {
    if (jet.truncated) continue;
    lengths.push_back(static_cast<std::int32_t>(jet.codes.size()));
    codes.insert(codes.end(), jet.codes.begin(), jet.codes.end());
    pids.insert(pids.end(), jet.pids.begin(), jet.pids.end());
    sum += jet.log_likelihood;
  }
  const NoGrad off;
  const Segments jets = Segments::from_lengths(lengths);
  const Tensor ids = RowPacker::vector_tensor(codes);
  const ParticleFeatures seen{.segments = jets,
                              .core = model.tokenizer.decode(ids, jets),
                              .pid = RowPacker::vector_tensor(pids),
                              .context = {}};
  const PretrainOutput out =
      model.head(model.backbone, seen, seen, ids, std::vector<std::uint8_t>(codes.size(), 0));
  const auto scored = static_cast<double>(codes.size() + lengths.size());
  EXPECT_NEAR(static_cast<double>(out.ntp_code.item()), -sum / scored, 1e-5);
}

TEST(GenerationTokenizer, ADecoderThatSeesTheWholeJetIsRefused) {
  Tessera model;
  model.tokenizer.config.causal_decoder = false;
  try {
    model.draw(1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    EXPECT_NE(e.message().find("causal_decoder"), std::string::npos) << e.message();
  }
}

// Finite weights whose logits are not: a draw from them would look like any other.
TEST(Generation, LogitsThatAreNotFiniteAreAnError) {
  const auto expect_numeric = [](const auto& model) {
    for (const NamedTensor& p : model.head.named_parameters()) {
      fill(p.tensor, 3e38F);
    }
    try {
      (void)model.draw(3);
      ADD_FAILURE() << "drawn from logits that are not finite";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::numeric) << e.message();
    }
  };
  expect_numeric(Gpt());
  expect_numeric(Tessera());
}

}  // namespace
}  // namespace tessera
