#include "nn/models/particle_transformer.h"

#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"

namespace tessera {
namespace {

/// Fills `stages` with one Stage(in, out) for each width, as children "0", "1", ... of a module
/// that `adopt` registers them with.
template <class Stage, class Adopt>
void make_stages(std::vector<std::unique_ptr<Stage>>& stages, std::int64_t in,
                 const std::vector<std::int64_t>& widths, Rng& rng, Adopt adopt) {
  for (const std::int64_t out : widths) {
    stages.push_back(std::make_unique<Stage>(in, out, rng));
    adopt(fmt::format("{}", stages.size() - 1), *stages.back());
    in = out;
  }
}

}  // namespace

ParticleTransformerConfig ParticleTransformerConfig::jet_class(std::int64_t features,
                                                               std::int64_t outputs) {
  return {.features = features,
          .outputs = outputs,
          .width = 128,
          .particle_blocks = 8,
          .embed = {128, 512, 128}};
}

ParticleTransformerConfig ParticleTransformerConfig::small(std::int64_t features,
                                                           std::int64_t outputs) {
  return {.features = features,
          .outputs = outputs,
          .width = 64,
          .heads = 4,
          .class_blocks = 1,
          .embed = {64, 128, 64},
          .pair = {16, 16}};
}

ParticleTransformer::Embed::Stage::Stage(std::int64_t in, std::int64_t out, Rng& rng)
    : norm(in), fc({.in = in, .out = out}, rng) {
  child("norm", norm);
  child("fc", fc);
}

ParticleTransformer::Embed::Embed(const ParticleTransformerConfig& c, Rng& rng) : bn(c.features) {
  TESSERA_CHECK(!c.embed.empty() && c.embed.back() == c.width,
                "particle transformer: the embedding must end at width {}, got {} widths", c.width,
                c.embed.size());
  child("bn", bn);
  make_stages(stages, c.features, c.embed, rng,
              [&](const std::string& name, Stage& stage) { child(name, stage); });
}

Tensor ParticleTransformer::Embed::operator()(const Tensor& x) const {
  Tensor h = bn(x);
  for (const auto& stage : stages) {
    h = stage->fc(stage->norm(h), Activation::gelu);
  }
  return h;
}

ParticleTransformer::Pair::Stage::Stage(std::int64_t in, std::int64_t out, Rng& rng)
    : conv({.in = in, .out = out}, rng), bn(out) {
  child("conv", conv);
  child("bn", bn);
}

ParticleTransformer::Pair::Pair(const ParticleTransformerConfig& c, Rng& rng) : bn(kPairFeatures) {
  child("bn", bn);
  std::vector<std::int64_t> widths = c.pair;
  widths.push_back(c.heads);
  make_stages(stages, kPairFeatures, widths, rng,
              [&](const std::string& name, Stage& stage) { child(name, stage); });
}

Tensor ParticleTransformer::Pair::operator()(const Tensor& features) const {
  Tensor h = bn(features);
  for (const auto& stage : stages) {
    h = gelu(stage->bn(stage->conv(h)));
  }
  return h;
}

ParticleTransformer::ParticleTransformer(const ParticleTransformerConfig& c, Rng& rng)
    : config(c),
      embed_(c, rng),
      pair_(c, rng),
      trunk_({.width = c.width,
              .heads = c.heads,
              .outputs = c.outputs,
              .blocks = c.class_blocks,
              .particle_blocks = c.particle_blocks,
              .dropout = c.dropout},
             rng) {
  child("embed", embed_);
  child("pair", pair_);
  child("", trunk_);
}

Tensor ParticleTransformer::pair_bias(const Tensor& four_momenta, const Segments& segments) const {
  const Tensor half = pair_(pair_features(four_momenta, segments).to(device()));  // (P, H)
  const Tensor full = gather_rows(half, pair_index(segments));                    // (sum n^2, H)
  return full.transpose(0, 1).contiguous();                                       // (H, sum n^2)
}

Tensor ParticleTransformer::operator()(const Tensor& x, const Tensor& four_momenta,
                                       const Segments& segments,
                                       const DropoutStream& dropout) const {
  return trunk_(embed_(x), segments, pair_bias(four_momenta, segments), dropout);
}

}  // namespace tessera
