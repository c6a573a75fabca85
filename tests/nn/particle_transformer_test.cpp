#include "nn/models/particle_transformer.h"

#include <algorithm>

#include "core/parallel.h"
#include "support/golden_model.h"

namespace tessera {
namespace {

using namespace test;  // NOLINT

ParticleTransformer golden_model() {
  Rng rng(0);
  return ParticleTransformer({.outputs = 2,
                              .width = 32,
                              .heads = 4,
                              .class_blocks = 1,
                              .embed = {32, 64, 32},
                              .pair = {16, 16, 16}},
                             rng);
}

/// Jets of massive particles with falling momenta.
struct Jets {
  Segments segments;
  Tensor x, p4;

  explicit Jets(const std::vector<std::int32_t>& lengths, std::uint64_t seed = 1)
      : segments(Segments::from_lengths(lengths)) {
    Rng rng(seed);
    const std::int64_t t = segments.total();
    x = normal_init({t, 13}, 1.0F, rng);
    p4 = normal_init({t, 4}, 3.0F, rng);
    const auto v = p4.span<float>();
    for (std::size_t i = 0; i < v.size(); i += 4) {
      v[i] += 20;
      v[i + 3] = std::sqrt(v[i] * v[i] + v[i + 1] * v[i + 1] + v[i + 2] * v[i + 2] + 0.1F);
    }
  }
  [[nodiscard]] Jets jet(int j) const {
    Jets one({segments.length(j)});
    const auto begin = segments.cu_seqlens()[static_cast<std::size_t>(j)];
    one.x = x.slice(0, begin, begin + segments.length(j));
    one.p4 = p4.slice(0, begin, begin + segments.length(j));
    return one;
  }
};

std::vector<float> run(const ParticleTransformer& model, const Jets& jets) {
  return model(jets.x, jets.p4, jets.segments).to_vector<float>();
}

TEST(ParticleTransformer, MatchesPyTorchWithBatchStatistics) {
  const GoldenFile file("part");
  const ParticleTransformer model = golden_model();
  const auto parameters = model.named_parameters("part");
  load_parameters(parameters, file);
  const Tensor x = leaf(file), p4 = floats(file, "in/p4");
  EXPECT_LE(relative_error(model.pair_bias(p4, segments(file)).transpose(0, 1).to_vector<float>(),
                           file.at("out/pair_bias").values),
            1e-5);
  expect_output_and_gradients(model(x, p4, segments(file)), x, parameters, file);
}

TEST(ParticleTransformer, PairFeaturesMatchPyTorchAndAreSymmetric) {
  const GoldenFile file("part");
  const Segments s = segments(file);
  const auto half = pair_features(floats(file, "in/p4"), s).to_vector<float>();
  const auto index = pair_index(s).to_vector<std::int32_t>();
  std::vector<float> full;
  for (const std::int32_t row : index) {
    full.insert(full.end(), half.begin() + 4 * row, half.begin() + 4 * row + 4);
  }
  EXPECT_LE(relative_error(full, file.at("out/pair_features").values), 1e-6);
}

TEST(ParticleTransformer, ASelfPairHasTheStatedFeatures) {
  const double e = std::sqrt(9.0 + 16.0 + 0.25);
  const Tensor p4 = Tensor::from(std::vector<float>{3, 4, 0, static_cast<float>(e)}, {1, 4});
  const auto f = pair_features(p4, Segments({0, 1})).to_vector<float>();
  EXPECT_NEAR(f[0], std::log(1e-8), 1e-5);
  EXPECT_NEAR(f[1], std::log(0.5), 1e-6);
  EXPECT_NEAR(f[2], std::log(1e-8), 1e-5);
  EXPECT_NEAR(f[3], std::log(4 * 0.25), 1e-5);
}

TEST(ParticleTransformer, PairsAlongTheBeamOrAtRestAreFinite) {
  const Tensor p4 =
      Tensor::from(std::vector<float>{0, 0, 5, 5, 0, 0, -5, 4.99F, 0, 0, 0, 0, 1, 0, 0, 1}, {4, 4});
  for (const float v : pair_features(p4, Segments({0, 4})).to_vector<float>()) {
    EXPECT_TRUE(std::isfinite(v));
  }
}

TEST(ParticleTransformer, TrainingMovesTheRunningStatisticsATenthOfTheWay) {
  const GoldenFile file("part");
  const ParticleTransformer model = golden_model();
  load_parameters(model.named_parameters("part"), file);
  model(floats(file, "in/x"), floats(file, "in/p4"), segments(file));
  std::size_t compared = 0;
  for (const NamedTensor& b : model.named_buffers("part")) {
    const bool mean = b.name.ends_with(".running_mean");
    const std::string bn = b.name.substr(0, b.name.rfind('.'));
    std::vector<double> expected =
        file.at("out/" + bn + (mean ? ".batch_mean" : ".batch_var")).values;
    for (double& v : expected) {
      v = (mean ? 0.0 : 0.9) + 0.1 * v;
    }
    EXPECT_LE(relative_error(b.tensor.to_vector<float>(), expected), 1e-5) << b.name;
    ++compared;
  }
  EXPECT_EQ(compared, 12U);
}

TEST(ParticleTransformer, EvaluationKeepsBuffersAndTreatsEachJetAlone) {
  ParticleTransformer model = golden_model();
  const Jets jets({4, 0, 9, 1, 16});
  run(model, jets);  // moves the running statistics
  model.set_training(false);
  std::vector<float> before, after;
  for (const NamedTensor& b : model.named_buffers()) {
    std::ranges::copy(b.tensor.to_vector<float>(), std::back_inserter(before));
  }
  const auto together = run(model, jets);
  for (int j = 0; j < 5; ++j) {
    const auto alone = run(model, jets.jet(j));
    EXPECT_NEAR(together[2 * static_cast<std::size_t>(j)], alone[0], 2e-5) << "jet " << j;
  }
  for (const NamedTensor& b : model.named_buffers()) {
    std::ranges::copy(b.tensor.to_vector<float>(), std::back_inserter(after));
  }
  EXPECT_EQ(before, after);
}

TEST(ParticleTransformer, NanInOneJetReachesNoOtherInEvaluation) {
  ParticleTransformer model = golden_model();
  model.set_training(false);
  Jets jets({4, 9, 1});
  const auto clean = run(model, jets);
  fill(jets.p4.slice(0, 4, 13), NAN);
  const auto dirty = run(model, jets);
  for (std::size_t i = 0; i < clean.size(); ++i) {
    if (i / 2 == 1) {
      EXPECT_TRUE(std::isnan(dirty[i]));
    } else {
      EXPECT_EQ(clean[i], dirty[i]) << i;
    }
  }
}

TEST(ParticleTransformer, FrozenModelsKeepWeightsAndBuffersBitwise) {
  ParticleTransformer model = golden_model();
  run(model, Jets({4, 9}));
  model.freeze();
  const auto tensors = [&] {
    std::vector<float> all;
    for (const NamedTensor& t : state(model)) {
      std::ranges::copy(t.tensor.to_vector<float>(), std::back_inserter(all));
    }
    return all;
  };
  const auto before = tensors();
  model.set_training(true);
  const Jets jets({7, 3});
  for (int step = 0; step < 50; ++step) {
    EXPECT_FALSE(model(jets.x, jets.p4, jets.segments).requires_grad());
  }
  EXPECT_EQ(tensors(), before);
}

TEST(ParticleTransformer, OutputsAndGradientsAreBitEqualForAnyThreadCount) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const ParticleTransformer model = golden_model();
    const Jets jets({31, 0, 1, 33, 64, 2});
    const Tensor y = model(jets.x, jets.p4, jets.segments);
    backward_with(y, Tensor::full(y.shape(), 1.0F));
    std::vector<float> all = y.to_vector<float>();
    for (const NamedTensor& p : model.named_parameters()) {
      std::ranges::copy(p.tensor.grad().to_vector<float>(), std::back_inserter(all));
    }
    results.push_back(all);
  }
  for (const auto& r : results) {
    EXPECT_EQ(r, results[0]);
  }
}

TEST(ParticleTransformer, BatchesOfEmptyJetsTrainToFiniteValues) {
  const ParticleTransformer model = golden_model();
  for (const float y : run(model, Jets({0, 0}))) {
    EXPECT_TRUE(std::isfinite(y));
  }
  for (const float v : model.named_buffers()[0].tensor.to_vector<float>()) {
    EXPECT_EQ(v, 0.0F);  // no particle, no step of the running mean
  }
}

// HEP-KBFI/ml-tau-en-reg with one output, and the JetClass ParT, instantiated from the published
// classes.
TEST(ParticleTransformer, HasThePublishedParameterCounts) {
  Rng rng(0);
  EXPECT_EQ(ParticleTransformer({}, rng).parameter_count(), 3449013);
  EXPECT_EQ(ParticleTransformer({.features = 10}, rng).parameter_count(), 3448233);
  EXPECT_EQ(
      ParticleTransformer(ParticleTransformerConfig::jet_class(17, 10), rng).parameter_count(),
      2143486);
  EXPECT_EQ(ParticleTransformer(ParticleTransformerConfig::small(13, 1), rng).parameter_count(),
            170741);
}

}  // namespace
}  // namespace tessera
