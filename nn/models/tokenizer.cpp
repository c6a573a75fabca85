#include "nn/models/tokenizer.h"

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/matmul/precision.h"
#include "kernels/reduce/reduce.h"
#include "kernels/vq/vq.h"

namespace tessera {
namespace {

std::vector<std::unique_ptr<NormFormerBlock>> make_blocks(const TokenizerConfig& c, Rng& rng) {
  std::vector<std::unique_ptr<NormFormerBlock>> blocks;
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks.push_back(
        std::make_unique<NormFormerBlock>(c.width, c.heads, c.mlp_factor, rng, c.dropout));
  }
  return blocks;
}

}  // namespace

Quantizer::Quantizer(std::int64_t codes, std::int64_t latent, Rng& rng) {
  codebook = parameter("codebook", normal_init({codes, latent}, 1.0F, rng));
  scale = parameter("affine.scale", Tensor::zeros({latent}));
  bias = parameter("affine.bias", Tensor::zeros({latent}));
  lru = buffer("lru", Tensor::zeros({codes}, DType::i32));
  initialised = buffer("initialised", Tensor::zeros({1}, DType::i32));
}

Tokenizer::Tokenizer(const TokenizerConfig& c, Rng& rng)
    : config(c),
      in({.in = c.features, .out = c.width}, rng),
      enc(make_blocks(c, rng)),
      to_latent({.in = c.width, .out = c.latent}, rng),
      vq(c.codes, c.latent, rng),
      from_latent({.in = c.latent, .out = c.width}, rng),
      dec(make_blocks(c, rng)),
      out({.in = c.width, .out = c.features}, rng) {
  child("in", in);
  for (std::size_t i = 0; i < enc.size(); ++i) {
    child(fmt::format("enc.{}", i), *enc[i]);
  }
  child("to_latent", to_latent);
  child("vq", vq);
  child("from_latent", from_latent);
  for (std::size_t i = 0; i < dec.size(); ++i) {
    child(fmt::format("dec.{}", i), *dec[i]);
  }
  child("out", out);
}

Tensor Tokenizer::encode_latent(const Tensor& x, const Segments& segments,
                                const DropoutStream& dropout) const {
  Tensor h = in(x).to(row_type(x.device()));  // (T, d)
  for (std::size_t i = 0; i < enc.size(); ++i) {
    h = (*enc[i])(h, segments, {}, fork(dropout, i));
  }
  return to_latent(h.to(DType::f32));  // (T, D)
}

Tensor Tokenizer::decode_latent(const Tensor& z, const Segments& segments,
                                const DropoutStream& dropout) const {
  const std::vector<std::uint8_t> causal =
      config.causal_decoder ? all_causal(segments) : std::vector<std::uint8_t>{};
  Tensor h = from_latent(z).to(row_type(z.device()));  // (T, d)
  for (std::size_t i = 0; i < dec.size(); ++i) {
    h = (*dec[i])(h, segments, causal, fork(dropout, i));
  }
  return out(h.to(DType::f32));  // (T, features)
}

TokenizerOutput Tokenizer::operator()(const Tensor& x, const Segments& segments,
                                      const DropoutStream& dropout) const {
  TokenizerOutput result;
  result.latent = encode_latent(x, segments, fork(dropout, "encoder"));
  const VqResult q = vector_quantize(result.latent, vq.codebook, vq.scale, vq.bias,
                                     {.beta = config.beta,
                                      .nu = config.nu,
                                      .affine_lr = config.affine_lr,
                                      .distance = config.distance});
  result.codes = q.codes;
  result.reconstruction = decode_latent(q.quantized, segments, fork(dropout, "decoder"));
  const Tensor reco = mean(squared_error(result.reconstruction, x));
  result.reconstruction_loss = reco.detach();
  result.vq_loss = q.loss;
  result.quantizer_loss = q.loss.detach();
  result.loss = add(reco, scale(q.loss, config.alpha));
  return result;
}

Tensor Tokenizer::encode(const Tensor& x, const Segments& segments) const {
  const NoGrad off;
  const PrecisionScope exact(Precision::f32);
  return vq_assign(encode_latent(x, segments),
                   vq_effective_codebook(vq.codebook, vq.scale, vq.bias, config.affine_lr),
                   config.distance);
}

Tensor Tokenizer::decode(const Tensor& codes, const Segments& segments) const {
  const NoGrad off;
  const PrecisionScope exact(Precision::f32);
  return decode_latent(
      vq_lookup(codes, vq_effective_codebook(vq.codebook, vq.scale, vq.bias, config.affine_lr)),
      segments);
}

}  // namespace tessera
