// Particle Transformer: attention over particles with a bias from the features of their pairs. The
// individual method that a pre-trained backbone is held against.
#pragma once

#include "nn/batch_norm.h"
#include "nn/models/heads.h"
#include "nn/models/pair_features.h"

namespace tessera {

/// Defaults: the tau reference's ParT with 13 features (HEP-KBFI/ml-tau-en-reg), 3 449 013
/// parameters at one output.
struct ParticleTransformerConfig {
  std::int64_t features = 13, outputs = 1;
  std::int64_t width = 256, heads = 8, particle_blocks = 2, class_blocks = 2;
  std::vector<std::int64_t> embed{256, 512,
                                  256};        ///< widths of the particle embedding, last = width
  std::vector<std::int64_t> pair{64, 64, 64};  ///< hidden widths of the pair embedding
  float dropout = 0;                           ///< of the particle blocks; 0.1 in the reference

  /// The published classifier of JetClass: 8 + 2 blocks of width 128.
  static ParticleTransformerConfig jet_class(std::int64_t features, std::int64_t outputs);
  /// 2 + 1 blocks of width 64: trains in minutes on a few cores.
  static ParticleTransformerConfig small(std::int64_t features, std::int64_t outputs);
};

/// x -> BN, then [LN, Linear, GELU] for each width; pairs -> BN, then [Linear, BN, GELU] down to
/// one bias a head; ParT blocks and class blocks as in ClassAttentionHead. In training mode batch
/// statistics run over all real particles, and over all real pairs i >= j once each.
class ParticleTransformer : public Module {
 public:
  ParticleTransformerConfig config;
  ParticleTransformer(const ParticleTransformerConfig& config, Rng& rng);
  /// x: (T, features); four_momenta: (T, 4) px, py, pz, E in GeV -> (B, outputs).
  Tensor operator()(const Tensor& x, const Tensor& four_momenta, const Segments& segments,
                    const DropoutStream& dropout = {}) const;
  /// The bias of every particle block, (H, sum n^2), as attention() takes it.
  [[nodiscard]] Tensor pair_bias(const Tensor& four_momenta, const Segments& segments) const;
  [[nodiscard]] const Linear& last() const { return trunk_.fc; }

 private:
  struct Embed : Module {
    struct Stage : Module {
      LayerNorm norm;
      Linear fc;
      Stage(std::int64_t in, std::int64_t out, Rng& rng);
    };
    BatchNorm bn;
    std::vector<std::unique_ptr<Stage>> stages;
    Embed(const ParticleTransformerConfig& config, Rng& rng);
    Tensor operator()(const Tensor& x) const;
  };
  struct Pair : Module {
    struct Stage : Module {
      Linear conv;  // a convolution of width one is a Linear over pairs
      BatchNorm bn;
      Stage(std::int64_t in, std::int64_t out, Rng& rng);
    };
    BatchNorm bn;
    std::vector<std::unique_ptr<Stage>> stages;
    Pair(const ParticleTransformerConfig& config, Rng& rng);
    Tensor operator()(const Tensor& features) const;
  };
  Embed embed_;
  Pair pair_;
  ClassAttentionHead trunk_;
};

}  // namespace tessera
