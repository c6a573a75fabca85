#include "nn/models/class_attention_ref.h"

#include "kernels/gather/gather.h"

namespace tessera {

ClassAttentionRef::Block::Block(std::int64_t width, std::int64_t heads, Rng& rng)
    : norm(width, 0.0F), attn({.width = width, .heads = heads}, rng) {
  child("norm", norm);
  child("attn", attn);
  start_as_torch(attn, rng);
}

ClassAttentionRef::ClassAttentionRef(const Config& c, Rng& rng)
    : fc1({.in = c.width, .out = c.width}, rng),
      fc2({.in = c.width, .out = c.width}, rng),
      fc3({.in = c.width, .out = c.outputs}, rng),
      drop(c.dropout) {
  cls = parameter("cls", normal_init({1, c.width}, 1.0F, rng));
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks.push_back(std::make_unique<Block>(c.width, c.heads, rng));
    child(fmt::format("block.{}", i), *blocks.back());
  }
  child("fc1", fc1);
  child("fc2", fc2);
  child("fc3", fc3);
  child("drop", drop);
}

Tensor ClassAttentionRef::operator()(const Tensor& h, const Segments& segments,
                                     const DropoutStream& dropout) const {
  const WithClass rows(segments);
  Tensor token = rows.repeat(cls);  // (B, d)
  for (const auto& block : blocks) {
    const Tensor all = block->norm(rows.table(token, h));  // (B + T, d)
    token = block->attn.cross(token, all, rows.queries, rows.all);
  }
  token = drop(fc1(token, Activation::silu), fork(dropout, 0));
  token = drop(fc2(token, Activation::silu), fork(dropout, 1));
  return fc3(token);
}

}  // namespace tessera
