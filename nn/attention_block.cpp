#include "nn/attention_block.h"

#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

/// Runs a block with attention inside segments.
template <class Block>
Tensor run_full(const Block& block, const Tensor& x, const Segments& segments,
                const std::vector<std::uint8_t>& causal, const DropoutStream& dropout) {
  const auto mix = [&](const SelfAttention& attn, const Tensor& rows) {
    return attn(rows, segments, causal, {}, fork(dropout, "attention"));
  };
  return block(x, mix, dropout);
}

}  // namespace

SelfAttention::SelfAttention(const Config& c, Rng& rng)
    : config(c),
      qkv({.in = c.width, .out = 3 * c.width, .bias = c.qkv_bias}, rng),
      out({.in = c.width, .out = c.width, .scale = c.out_scale}, rng),
      drop(c.dropout) {
  TESSERA_CHECK(c.width % c.heads == 0, "attention: width {} is not a multiple of {} heads",
                c.width, c.heads);
  child("qkv", qkv);
  child("out", out);
  child("drop", drop);
}

Tensor SelfAttention::operator()(const Tensor& x, const Segments& segments,
                                 std::vector<std::uint8_t> causal_segments, const Tensor& bias,
                                 const DropoutStream& dropout) const {
  const std::int64_t t = x.shape(0), h = config.heads, d = config.width / h;
  const Tensor packed = qkv(x).reshape({t, 3, h, d});  // (T, 3, H, D)
  const Tensor mixed = attention(packed, segments,
                                 {.causal_segments = std::move(causal_segments),
                                  .dropout = drop.active_rate(),
                                  .key = drop.key(dropout),
                                  .bias = bias});  // (T, H, D)
  return out(mixed.reshape({t, config.width}));
}

Tensor SelfAttention::step(const Tensor& x, const KeyValueCache& cache,
                           std::span<const std::int32_t> slots,
                           std::span<const std::int32_t> positions) const {
  const std::int64_t b = x.shape(0), h = config.heads, d = config.width / h;
  const Tensor packed = qkv(x).reshape({b, 3, h, d});                      // (B, 3, H, D)
  const Tensor mixed = decode_attention(packed, cache, slots, positions);  // (B, H, D)
  return out(mixed.reshape({b, config.width}));
}

Tensor SelfAttention::cross(const Tensor& q_rows, const Tensor& kv_rows, const Segments& q_segments,
                            const Segments& kv_segments, std::vector<std::uint8_t> causal_segments,
                            const DropoutStream& dropout) const {
  const std::int64_t w = config.width, h = config.heads, d = w / h;
  const std::int64_t tq = q_rows.shape(0), tk = kv_rows.shape(0);
  const Tensor q = qkv.rows(q_rows, 0, w).reshape({tq, h, d});
  const Tensor kv = qkv.rows(kv_rows, w, 3 * w).reshape({tk, 2, h, d});
  const Tensor mixed = cross_attention(q, kv, q_segments, kv_segments,
                                       {.causal_segments = std::move(causal_segments),
                                        .dropout = drop.active_rate(),
                                        .key = drop.key(dropout)});  // (Tq, H, D)
  return out(mixed.reshape({tq, w}));
}

void start_as_torch(const SelfAttention& attn, Rng& rng) {
  const float bound = std::sqrt(6.0F / (4.0F * static_cast<float>(attn.config.width)));
  copy_into(attn.qkv.weight, uniform_init(attn.qkv.weight.shape(), bound, rng));
  fill(attn.qkv.bias, 0.0F);
  fill(attn.out.bias, 0.0F);
}

NormFormerBlock::Mlp::Mlp(std::int64_t width, std::int64_t hidden, float dropout, Rng& rng)
    : norm(width),
      fc1({.in = width, .out = hidden}, rng),
      fc2({.in = hidden, .out = width}, rng),
      drop(dropout) {
  child("norm", norm);
  child("fc1", fc1);
  child("fc2", fc2);
  child("drop", drop);
  fill(fc2.weight, 0.0F);
  fill(fc2.bias, 0.0F);
}

Tensor NormFormerBlock::Mlp::operator()(const Tensor& normed, const DropoutStream& dropout) const {
  return fc2(drop(fc1(normed, Activation::silu), dropout));
}

NormFormerBlock::NormFormerBlock(std::int64_t width, std::int64_t heads, std::int64_t mlp_factor,
                                 Rng& rng, float dropout)
    : norm1(width, 0.0F),
      attn({.width = width, .heads = heads, .dropout = dropout}, rng),
      norm2(width),
      mlp(width, mlp_factor * width, dropout, rng) {
  child("norm1", norm1);
  child("attn", attn);
  child("norm2", norm2);
  child("mlp", mlp);
  start_as_torch(attn, rng);
}

Tensor NormFormerBlock::operator()(const Tensor& x, Mix mix, const DropoutStream& dropout) const {
  const auto [r, normed] = mlp.norm.of_sum(x, norm2(mix(attn, norm1(x))));
  return add(r, mlp(normed, fork(dropout, "hidden")));
}

Tensor NormFormerBlock::operator()(const Tensor& x, const Segments& segments,
                                   const std::vector<std::uint8_t>& causal,
                                   const DropoutStream& dropout) const {
  return run_full(*this, x, segments, causal, dropout);
}

FeedForward::FeedForward(std::int64_t width, std::int64_t hidden, Activation act, float out_scale,
                         Rng& rng, float dropout)
    : fc1({.in = width, .out = hidden}, rng),
      fc2({.in = hidden, .out = width, .scale = out_scale}, rng),
      activation(act),
      drop(dropout) {
  child("fc1", fc1);
  child("fc2", fc2);
  child("drop", drop);
}

Tensor FeedForward::operator()(const Tensor& x, const DropoutStream& dropout) const {
  return fc2(drop(fc1(x, activation), dropout));
}

PostNormBlock::PostNormBlock(std::int64_t width, std::int64_t heads, Rng& rng, float dropout)
    : attn({.width = width, .heads = heads, .qkv_bias = false, .dropout = dropout}, rng),
      ff(width, 4 * width, Activation::relu, 1.0F, rng, dropout),
      norm1(width),
      norm2(width) {
  child("attn", attn);
  child("ff", ff);
  child("norm1", norm1);
  child("norm2", norm2);
}

Tensor PostNormBlock::operator()(const Tensor& x, Mix mix, const DropoutStream& dropout) const {
  const Tensor y = norm1.of_sum(x, mix(attn, x)).normed;
  return norm2.of_sum(y, ff(y, fork(dropout, "hidden"))).normed;
}

Tensor PostNormBlock::operator()(const Tensor& x, const Segments& segments,
                                 const std::vector<std::uint8_t>& causal,
                                 const DropoutStream& dropout) const {
  return run_full(*this, x, segments, causal, dropout);
}

PreNormBlock::PreNormBlock(const Config& c, Rng& rng)
    : norm1(c.width),
      attn({.width = c.width, .heads = c.heads, .out_scale = c.out_scale, .dropout = c.dropout},
           rng),
      norm2(c.width),
      ff(c.width, c.ff_factor * c.width, Activation::gelu, c.out_scale, rng, c.dropout) {
  child("norm1", norm1);
  child("attn", attn);
  gate1 = parameter("gate1", Tensor::full({c.width}, 1.0F));
  child("norm2", norm2);
  child("ff", ff);
  gate2 = parameter("gate2", Tensor::full({c.width}, 1.0F));
}

Tensor PreNormBlock::operator()(const Tensor& x, Mix mix, const DropoutStream& dropout) const {
  const auto [y, normed] = norm2.of_sum(x, mul_rows(mix(attn, norm1(x)), gate1));
  return add(y, mul_rows(ff(normed, fork(dropout, "hidden")), gate2));
}

Tensor PreNormBlock::operator()(const Tensor& x, const Segments& segments,
                                const std::vector<std::uint8_t>& causal,
                                const DropoutStream& dropout) const {
  return run_full(*this, x, segments, causal, dropout);
}

std::vector<std::uint8_t> all_causal(const Segments& segments) {
  return std::vector<std::uint8_t>(static_cast<std::size_t>(segments.count()), 1);
}

}  // namespace tessera
