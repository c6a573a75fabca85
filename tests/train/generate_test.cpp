#include "train/generate.h"
#include "train/batcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/features.h"
#include "train/jet_block.h"
#include "train/metrics/generation_quality.h"

namespace tessera {
namespace {

constexpr std::int64_t kCodes = 11;
const GenerateJob kJob{.jets = 40, .draw = {.max_particles = 8, .seed = 5}};

void randomise(const Module& module, std::uint64_t seed, float size) {
  Rng rng(seed);
  for (const NamedTensor& p : module.named_parameters()) {
    copy_into(p.tensor, uniform_init(p.tensor.shape(), size, rng));
  }
}

/// A random model: no physics, but every code path.
struct Model {
  Rng rng{1};
  Tokenizer tokenizer{
      {.width = 16, .blocks = 1, .heads = 2, .codes = kCodes, .causal_decoder = true}, rng};
  Backbone backbone{{.width = 16, .blocks = 1, .heads = 2, .registers = 2}, rng};
  PretrainHead head{16, 2, {.codes = kCodes, .max_particles = 8}, rng};
  GptBackbone gpt{{.vocabulary = kCodes + 2, .width = 16, .blocks = 1, .heads = 2}, rng};
  NextTokenHead gpt_head{16, kCodes + 2, rng};

  Model() {
    randomise(tokenizer, 2, 0.3F);
    randomise(backbone, 3, 0.5F);
    randomise(head, 4, 0.3F);
  }
  [[nodiscard]] GenerateResult draw(const GenerateJob& job = kJob) const {
    return generate_jets(job, backbone, head, tokenizer);
  }
};

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Generate, AWrittenFileIsADataSetWithTheJetsThatWereDrawn) {
  const Model model;
  const TempDir dir;
  const GenerateResult drawn = model.draw();
  write_generated(dir.path() / "generated.h5", drawn, kJob, "test");
  write_manifest(dir.path(), make_manifest(dir.path(), "generated", {{"test", {"generated.h5"}}}));
  const Dataset data(dir.path(), {.split = "test"});
  ASSERT_EQ(data.size(), 40U);
  JetBlock read = empty_block();
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const auto at = data.locate(j);
    append_jet(*at.block, at.row, read);
  }
  EXPECT_EQ(read.offsets, drawn.particles.offsets);
  EXPECT_EQ(read.px, drawn.particles.px);
  EXPECT_EQ(read.energy, drawn.particles.energy);
  EXPECT_EQ(read.pid, drawn.particles.pid);
  EXPECT_EQ(read.charge, drawn.particles.charge);
  EXPECT_EQ(read.id, drawn.particles.id);
  EXPECT_EQ(read.jet_pt, drawn.particles.jet_pt);
}

TEST(Generate, TheFileSaysThatItIsGenerated) {
  const Model model;
  const TempDir dir;
  write_generated(dir.path() / "generated.h5", model.draw(), kJob, "test");
  const H5File file = H5File::open(dir.path() / "generated.h5");
  EXPECT_EQ(file.read_attribute<std::int64_t>("simulated"), 1);
  EXPECT_EQ(file.read_attribute<std::int64_t>("seed"), 5);
  EXPECT_EQ(file.read_attribute<std::string>("source"), "generated");
  EXPECT_EQ(file.read_attribute<std::string>("frame"), "jet");
  EXPECT_EQ(file.read_column<float>("jet/log_likelihood").size(), 40U);
}

TEST(Generate, SameSeedSameBytesForAnySlotCount) {
  const Model model;
  const TempDir dir;
  GenerateJob narrow = kJob;
  narrow.draw.slots = 3;
  write_generated(dir.path() / "a.h5", model.draw(), kJob, "test");
  write_generated(dir.path() / "b.h5", model.draw(narrow), narrow, "test");
  EXPECT_EQ(bytes_of(dir.path() / "a.h5"), bytes_of(dir.path() / "b.h5"));
}

TEST(Generate, IdsAreUniqueAndDifferBetweenSeeds) {
  const Model model;
  GenerateJob other = kJob;
  other.draw.seed = 6;
  std::vector<std::uint64_t> ids = model.draw().particles.id;
  const auto more = model.draw(other).particles.id;
  ids.insert(ids.end(), more.begin(), more.end());
  std::ranges::sort(ids);
  EXPECT_EQ(std::ranges::unique(ids).begin(), ids.end());
}

// Inverse transform of the decoder's output, about an axis at eta = phi = 0, without mass.
TEST(Generate, ParticlesAreTheDecodedCodesAsMasslessVectorsInTheJetFrame) {
  const Model model;
  const GenerateResult drawn = model.draw();
  for (std::size_t j = 0; j < drawn.jets.size(); ++j) {
    const auto& codes = drawn.jets[j].codes;
    const auto n = static_cast<std::int32_t>(codes.size());
    if (n == 0) continue;
    const auto core =
        model.tokenizer.decode(Tensor::from(codes, {n}), Segments({0, n})).to_vector<float>();
    const auto particles = particles_of(drawn.particles, j);
    ASSERT_EQ(particles.size(), codes.size());
    for (std::size_t i = 0; i < particles.size(); ++i) {
      const FourVector& p = particles[i];
      EXPECT_NEAR(p.pt() / std::exp(static_cast<double>(core[3 * i]) + 1.8), 1, 1e-5);
      EXPECT_NEAR(p.eta(), static_cast<double>(core[3 * i + 1]) / 3, 1e-5);
      EXPECT_NEAR(p.phi(), static_cast<double>(core[3 * i + 2]) / 3, 1e-5);
      EXPECT_NEAR(p.p() / p.e, 1, 1e-6);
    }
  }
}

TEST(Generate, ParticleClassesComeBackFromKindAndCharge) {
  JetBlock block = empty_block();
  const float core[kCoreFeatures] = {0, 0, 0};
  for (int c = 0; c < kPidClasses; ++c) {
    push_particle(core, c, block);
    EXPECT_EQ(pid_class(block.pid.back(), block.charge.back()), c);
  }
}

TEST(Generate, CountsTokensEmptyAndTruncatedJets) {
  const Model model;
  const GenerateResult drawn = model.draw();
  std::int64_t tokens = 0, empty = 0, truncated = 0;
  double sum = 0;
  for (const GeneratedJet& jet : drawn.jets) {
    tokens += static_cast<std::int64_t>(jet.codes.size()) + 1;
    empty += jet.codes.empty() ? 1 : 0;
    truncated += jet.truncated ? 1 : 0;
    sum += jet.log_likelihood;
  }
  EXPECT_EQ(drawn.tokens, tokens);
  EXPECT_EQ(drawn.empty, empty);
  EXPECT_EQ(drawn.truncated, truncated);
  EXPECT_NEAR(drawn.mean_log_likelihood, sum / 40, 1e-9);
}

TEST(Generate, AModelOfTokensAloneWritesNoParticleIds) {
  const Model model;
  const GenerateResult drawn = generate_jets(kJob, model.gpt, model.gpt_head, model.tokenizer);
  ASSERT_FALSE(drawn.particles.pid.empty());
  EXPECT_EQ(std::ranges::count(drawn.particles.pid, 0), std::ssize(drawn.particles.pid));
}

TEST(Generate, AParticleWithoutFiniteMomentumIsAnError) {
  const Model model;
  fill(model.tokenizer.out.bias, 1000.0F);  // pt = exp(1000)
  const TempDir dir;
  try {
    write_generated(dir.path() / "a.h5", model.draw(), kJob);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
  }
}

using DataSets = std::vector<std::shared_ptr<const Dataset>>;

std::shared_ptr<const Dataset> data_set(const std::filesystem::path& directory,
                                        const std::vector<std::int64_t>& lengths,
                                        std::uint64_t first_id) {
  std::filesystem::create_directory(directory);
  write_jets(directory / "train_0.h5", random_jets(lengths, first_id));
  write_manifest(directory, make_manifest(directory, "test", {{"train", {"train_0.h5"}}}));
  return std::make_shared<const Dataset>(directory);
}

TEST(Originals, AreSpreadOverTheNonEmptyJetsOfAllSets) {
  const TempDir dir;
  const DataSets sets{data_set(dir.path() / "a", {2, 0, 3, 1}, 0),
                      data_set(dir.path() / "b", {4, 5, 0}, 100)};
  const auto ids = [&](std::int64_t count) {
    return original_jets({.validation = sets}, count).id;
  };
  EXPECT_EQ(ids(99), (std::vector<std::uint64_t>{0, 2, 3, 100, 101}));
  EXPECT_EQ(ids(2), (std::vector<std::uint64_t>{0, 3}));
  EXPECT_EQ(ids(3), (std::vector<std::uint64_t>{0, 2, 100}));
  EXPECT_TRUE(ids(0).empty());
}

TEST(Originals, HoldTheParticlesThatTheFeaturesKeep) {
  const TempDir dir;
  const DataSets sets{data_set(dir.path() / "a", random_lengths(50, 3, 20), 0)};
  const FeatureConfig features{.max_constituents = 8};
  const JetBlock kept = original_jets({.validation = sets, .features = features}, 50);
  const std::vector<std::uint64_t> jets(kept.id);  // the file numbers its jets from 0
  const Batch batch = make_batch(*sets[0], features, jets);
  const auto& offsets = batch.rows.cu_seqlens;
  EXPECT_EQ(kept.offsets, std::vector<std::int64_t>(offsets.begin(), offsets.end()));
  ASSERT_FALSE(kept.px.empty());
  for (std::size_t i = 0; i < kept.px.size(); ++i) {
    EXPECT_NEAR(std::hypot(kept.px[i], kept.py[i]), inverse_core(&batch.rows.core[3 * i]).pt, 1e-3);
  }
}

TEST(Reconstructed, AreTheSameJetsThroughTheTokenizer) {
  const TempDir dir;
  const Model model;
  const DataSets sets{data_set(dir.path() / "a", random_lengths(50, 3, 20), 0)};
  const FeatureConfig features{.max_constituents = 8};
  const UnlabelledData data{.validation = sets, .features = features};
  const JetBlock truth = original_jets(data, 30);
  const JetBlock again = reconstructed_jets(data, 30, model.tokenizer);
  EXPECT_EQ(again.id, truth.id);
  EXPECT_EQ(again.offsets, truth.offsets);
}

JetBlock sample(std::uint64_t seed, std::size_t jets = 400, std::uint64_t longest = 40) {
  return random_jets(random_lengths(jets, seed, longest), 0, seed);
}

const QuantityComparison& quantity(const GenerationComparison& c, const std::string& name) {
  return *std::ranges::find(c.quantities, name, &QuantityComparison::name);
}

TEST(Comparison, ASampleIsAtNoDistanceFromItself) {
  const JetBlock a = sample(1);
  const GenerationComparison c = compare_generated(a, a, a);
  ASSERT_EQ(c.quantities.size(), 9U);
  for (const QuantityComparison& q : c.quantities) {
    EXPECT_EQ(q.generated_distance.w1, 0) << q.name;
    EXPECT_NEAR(q.generated_distance.kld, 0, 1e-12) << q.name;
    EXPECT_NEAR(q.reconstructed_distance.kld_omnijet, 0, 1e-12) << q.name;
    EXPECT_GT(q.floor->kld, 0) << q.name;
    EXPECT_EQ(q.truth, q.generated) << q.name;
  }
}

TEST(Comparison, ASampleOfHarderJetsIsFartherThanTheFloor) {
  const JetBlock truth = sample(1);
  JetBlock hard = sample(2);
  for (std::vector<float>* v : {&hard.px, &hard.py, &hard.pz, &hard.energy}) {
    for (float& x : *v) x *= 1.5F;
  }
  const auto c = compare_generated(truth, sample(3), hard);
  for (const char* name : {"jet_pt", "jet_mass", "constituent_log_pt"}) {
    const QuantityComparison& q = quantity(c, name);
    EXPECT_GT(q.generated_distance.w1, 2 * q.reconstructed_distance.w1) << name;
    EXPECT_GT(q.generated_distance.kld, 1.5 * q.floor->kld) << name;
  }
  const double shift = quantity(c, "constituent_log_pt").generated_distance.w1;
  EXPECT_NEAR(shift, std::log(1.5), 0.1);
}

TEST(Comparison, CandidatesWhosePzReachesTheirEnergyAreCountedAndGiveNumbers) {
  const JetBlock truth = sample(1);
  const std::uint64_t before = compare_generated(truth, truth, truth).generated_floored;
  JetBlock odd = truth;
  odd.energy[3] = odd.pz[3] = 7;      // on the light cone, as rounding leaves it
  odd.energy[40] = 0.5F * odd.pz[3];  // below it
  odd.pz[40] = -7;
  odd.px[50] = odd.py[50] = odd.pz[50] = odd.energy[50] = 0;
  for (const bool odd_truth : {false, true}) {
    const auto c = compare_generated(odd_truth ? odd : truth, truth, odd);
    EXPECT_EQ(c.generated_floored, before + 3);
    ASSERT_EQ(c.quantities.size(), 9U);
    for (const QuantityComparison& q : c.quantities) {
      EXPECT_TRUE(std::ranges::all_of(q.edges, [](double e) { return std::isfinite(e); }))
          << q.name;
      EXPECT_TRUE(std::isfinite(q.generated_distance.kld + q.generated_distance.w1)) << q.name;
    }
  }
}

TEST(Comparison, TheFloorDoesNotMistakeAlternatingClassesForADifference) {
  JetBlock truth = empty_block();
  const JetBlock soft = sample(1), hard = random_jets(std::vector<std::int64_t>(400, 60), 0, 2);
  for (std::uint64_t j = 0; j < 400; ++j) {
    append_jet(soft, j, truth);
    append_jet(hard, j, truth);
  }
  const auto c = compare_generated(truth, soft, soft);
  const QuantityComparison& q = quantity(c, "n_constituents");
  EXPECT_LT(q.floor->w1, 0.2 * q.generated_distance.w1);
}

TEST(Comparison, HistogramsCountWhatLiesBetweenTheTruthsQuantiles) {
  const JetBlock truth = sample(1);
  const auto c = compare_generated(truth, truth, sample(2, 100), {.bins = 20});
  const QuantityComparison& q = quantity(c, "jet_pt");
  ASSERT_EQ(q.edges.size(), 21U);
  std::vector<std::int64_t> expected(20, 0);
  for (std::uint64_t j = 0; j < truth.jets(); ++j) {
    const double pt = sum_of(particles_of(truth, j)).pt();
    for (std::size_t i = 0; i < 20; ++i) {
      expected[i] += pt >= q.edges[i] && pt < q.edges[i + 1];
    }
  }
  EXPECT_EQ(q.truth, expected);
  EXPECT_EQ(q.truth_total, 400);
  EXPECT_EQ(q.generated_total, 100);
}

TEST(Comparison, CountsOfConstituentsHaveBinsOfWholeWidth) {
  const auto c = compare_generated(sample(1), sample(1), sample(1), {.bins = 20});
  const QuantityComparison& q = quantity(c, "n_constituents");
  EXPECT_EQ(q.edges.front() + 0.5, std::floor(q.edges.front() + 0.5));
  EXPECT_EQ(q.edges[1] - q.edges[0], 3);  // 0 .. 40 in at most 20 bins
  EXPECT_GE(std::accumulate(q.truth.begin(), q.truth.end(), std::int64_t{0}), 398);
}

TEST(Comparison, JetsBelowThreeParticlesAreAFractionAndHaveNoSubstructure) {
  const JetBlock truth = random_jets({0, 1, 2, 3, 4, 5, 6, 7}, 0, 1);
  const JetBlock pairs = random_jets({2, 2, 1, 0}, 0, 2);
  const auto c = compare_generated(truth, truth, pairs);
  EXPECT_EQ(c.truth_below_3, 3.0 / 8);
  EXPECT_EQ(c.generated_below_3, 1);
  EXPECT_EQ(c.quantities.size(), 7U);  // no tau21 and no tau32 among them
  EXPECT_EQ(quantity(compare_generated(truth, truth, truth), "tau32").truth_total, 5);
}

TEST(Comparison, RejectsASampleWithoutJets) {
  EXPECT_THROW(compare_generated(sample(1), empty_block(), sample(1)), Error);
}

}  // namespace
}  // namespace tessera
