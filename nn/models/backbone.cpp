#include "nn/models/backbone.h"

#include <cmath>

#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "nn/models/packing.h"

namespace tessera {

GptBackbone::Embed::Embed(const GptConfig& c, Rng& rng) : token(c.vocabulary, c.width, 1.0F, rng) {
  child("token", token);
}

GptBackbone::GptBackbone(const GptConfig& c, Rng& rng) : config(c), embed_(c, rng) {
  child("embed", embed_);
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks_.push_back(std::make_unique<PostNormBlock>(c.width, c.heads, rng, c.dropout));
    child(fmt::format("block.{}", i), *blocks_.back());
  }
}

Tensor GptBackbone::operator()(const Tensor& ids, const Segments& segments,
                               const DropoutStream& dropout) const {
  const Tensor rows = embed_.token(ids);  // (T, d)
  Tensor h = rows.to(row_type(rows.device()));
  const std::vector<std::uint8_t> causal = all_causal(segments);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    h = (*blocks_[i])(h, segments, causal, fork(dropout, i));
  }
  return h.to(DType::f32);
}

Backbone::Embed::Embed(const BackboneConfig& c, Rng& rng)
    : core({.in = 3, .out = c.width}, rng),
      pid(c.pid_classes, c.width, 0.02F, rng),
      ctx({.in = c.context_features, .out = c.width, .bias = false}, rng) {
  child("core", core);
  child("pid", pid);
  child("ctx", ctx);
}

Backbone::Backbone(const BackboneConfig& c, Rng& rng) : config(c), embed_(c, rng), norm_(c.width) {
  child("embed", embed_);
  registers = parameter("registers", normal_init({c.registers, c.width}, 0.02F, rng));
  start = parameter("start", normal_init({1, c.width}, 0.02F, rng));
  const float out_scale = 1.0F / std::sqrt(2.0F * static_cast<float>(c.blocks));
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks_.push_back(std::make_unique<PreNormBlock>(
        PreNormBlock::Config{
            .width = c.width, .heads = c.heads, .out_scale = out_scale, .dropout = c.dropout},
        rng));
    child(fmt::format("block.{}", i), *blocks_.back());
  }
  child("norm", norm_);
}

Tensor Backbone::embed(const ParticleFeatures& f) const {
  const Tensor x = add(embed_.core(f.core), embed_.pid(f.pid));  // (T, d)
  return f.context.defined() ? add(x, embed_.ctx(f.context)) : x;
}

Tensor Backbone::run(const Tensor& rows, const Segments& segments,
                     const std::vector<std::uint8_t>& causal, const DropoutStream& dropout) const {
  Tensor h = rows.to(row_type(rows.device()));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    h = (*blocks_[i])(h, segments, causal, fork(dropout, i));
  }
  return norm_(h).to(DType::f32);
}

Tensor Backbone::operator()(const ParticleFeatures& f, const DropoutStream& dropout) const {
  RowPacker packer(config.registers);
  const std::int32_t particles =
      static_cast<std::int32_t>(config.registers);  // rows: registers | particles
  for (int j = 0; j < f.segments.count(); ++j) {
    packer.begin_segment();
    const auto at = static_cast<std::size_t>(j);
    packer.append_range(particles + f.segments.cu_seqlens()[at], f.segments.length(j));
  }
  const Tensor parts[] = {registers, embed(f)};
  const Tensor h =
      run(gather_rows(concat_rows(parts), packer.index()), packer.segments(), {}, dropout);
  return gather_rows(h, packer.payload());  // registers dropped
}

}  // namespace tessera
