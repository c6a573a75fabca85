// The particle tokenizer: a NormFormer VQ-VAE (OmniJet-alpha, arXiv 2403.05618). Jet of n particles
// -> n codes.
#pragma once

#include <memory>

#include "core/segments.h"
#include "kernels/vq/distance.h"
#include "nn/attention_block.h"

namespace tessera {

struct TokenizerConfig {
  std::int64_t features = 3;  ///< ln pT, d eta, d phi
  std::int64_t width = 128, blocks = 4, heads = 8, mlp_factor = 1;
  std::int64_t codes = 8192, latent = 4;
  bool causal_decoder = false;
  float dropout = 0;       ///< of every block, in training mode; 0.1 in OmniJet-alpha
  float alpha = 10.0F;     ///< weight of the quantiser's loss
  float beta = 0.9F;       ///< weight of the codebook term inside it
  float nu = 1.0F;         ///< synchronised straight-through
  float affine_lr = 2.0F;  ///< factor on the affine parameters
  VqDistance distance = VqDistance::f32;  ///< by which codes are chosen
};

/// The quantiser's state: codebook (K, D), affine scale and bias (D); and, saved but not trained,
/// what Codebook keeps of its use: i32 counters (K) and whether it was started from data (1).
struct Quantizer : Module {
  Tensor codebook, scale, bias;
  Tensor lru, initialised;
  Quantizer(std::int64_t codes, std::int64_t latent, Rng& rng);
};

/// What one training pass gives.
struct TokenizerOutput {
  Tensor loss;            // scalar: mean (x_reco - x)^2 + alpha * quantiser loss
  Tensor reconstruction;  // (T, features)
  Tensor latent;          // (T, D), before the quantiser
  Tensor codes;           // (T) i32
  Tensor vq_loss;         // scalar: the quantiser's, before alpha
  Tensor reconstruction_loss, quantizer_loss;  // scalars without history
};

/// x -> Linear -> encoder -> Linear -> quantiser -> Linear -> decoder -> Linear. No positional
/// encoding: permutation-equivariant, and conditional: the same particle in another jet may get
/// another code.
class Tokenizer : public Module {
 public:
  TokenizerConfig config;
  Linear in;
  std::vector<std::unique_ptr<NormFormerBlock>> enc;
  Linear to_latent;
  Quantizer vq;
  Linear from_latent;
  std::vector<std::unique_ptr<NormFormerBlock>> dec;
  Linear out;

  Tokenizer(const TokenizerConfig& config, Rng& rng);
  /// Loss and everything that training logs. x: (T, features), transformed.
  TokenizerOutput operator()(const Tensor& x, const Segments& segments,
                             const DropoutStream& dropout = {}) const;
  /// Latent vectors before the quantiser, (T, D).
  [[nodiscard]] Tensor encode_latent(const Tensor& x, const Segments& segments,
                                     const DropoutStream& dropout = {}) const;
  /// Codes, i32 (T), without gradient. Data of other trainings: products are f32 at any
  /// precision(), here and in decode.
  [[nodiscard]] Tensor encode(const Tensor& x, const Segments& segments) const;
  /// Reconstructed features (T, features) of codes, without gradient.
  [[nodiscard]] Tensor decode(const Tensor& codes, const Segments& segments) const;

 private:
  [[nodiscard]] Tensor decode_latent(const Tensor& z, const Segments& segments,
                                     const DropoutStream& dropout = {}) const;
};

}  // namespace tessera
