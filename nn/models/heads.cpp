#include "nn/models/heads.h"

#include "kernels/segment/segment.h"

namespace tessera {

SumHead::SumHead(std::int64_t width, std::int64_t outputs, Rng& rng)
    : fc1({.in = width, .out = width}, rng), fc2({.in = width, .out = outputs}, rng) {
  child("fc1", fc1);
  child("fc2", fc2);
}

Tensor SumHead::operator()(const Tensor& h, const Segments& segments) const {
  return fc2(segment_pool(fc1(h, Activation::relu), segments, Pool::sum));
}

ClassAttentionHead::ClassAttentionHead(const Config& c, Rng& rng)
    : norm(c.width), fc({.in = c.width, .out = c.outputs}, rng) {
  cls = parameter("cls", normal_init({1, c.width}, 0.02F, rng));
  for (std::int64_t i = 0; i < c.particle_blocks; ++i) {
    particle_blocks.push_back(std::make_unique<PartBlock>(
        PartBlock::Config{.width = c.width, .heads = c.heads, .dropout = c.dropout}, rng));
    child(fmt::format("block.{}", i), *particle_blocks.back());
  }
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks.push_back(
        std::make_unique<PartBlock>(PartBlock::Config{.width = c.width, .heads = c.heads}, rng));
    child(fmt::format("cls_block.{}", i), *blocks.back());
  }
  child("norm", norm);
  child("fc", fc);
}

Tensor ClassAttentionHead::operator()(const Tensor& h, const Segments& segments, const Tensor& bias,
                                      const DropoutStream& dropout) const {
  const DType rows_in_memory = row_type(h.device());
  Tensor x = h.to(rows_in_memory);
  for (std::size_t i = 0; i < particle_blocks.size(); ++i) {
    x = (*particle_blocks[i])(x, segments, bias, fork(dropout, i));
  }
  const WithClass rows(segments);
  Tensor token = rows.repeat(cls).to(rows_in_memory);  // (B, d)
  for (const auto& block : blocks) {
    token = block->attend(token, x, rows);
  }
  return fc(norm(token).to(DType::f32));
}

}  // namespace tessera
