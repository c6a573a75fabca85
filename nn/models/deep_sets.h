// Networks on sets of particles: F(pool_i phi(x_i)). The individual methods of low cost.
#pragma once

#include <memory>
#include <vector>

#include "core/segments.h"
#include "kernels/segment/segment.h"
#include "nn/dropout.h"
#include "nn/linear.h"

namespace tessera {

struct DeepSetsConfig {
  std::int64_t features, outputs;
  std::vector<std::int64_t> phi, f;  ///< widths of phi; hidden widths of F
  Pool pool = Pool::mean;
  Activation activation = Activation::gelu;  ///< after every layer but the last of F
  Activation pooled = Activation::none;      ///< of the pooled vector
  float dropout = 0;                         ///< after the hidden layers of phi and of F

  /// The tau reference's: mean pool and GELU. HEP-KBFI/ml-tau-en-reg: 13 features, width 128,
  /// dropout 0.1.
  static DeepSetsConfig tau(std::int64_t features, std::int64_t width, std::int64_t outputs);
  /// Particle-flow network: sum pool and ReLU, phi 100-100-256, F 100-100-100. Komiske, Metodiev,
  /// Thaler 2018 (1810.05165).
  static DeepSetsConfig pfn(std::int64_t features, std::int64_t outputs);
};

/// phi is applied to each particle, F to the pooled vector of each jet; an empty jet gives F(0).
struct DeepSets : Module {
  DeepSetsConfig config;
  std::vector<std::unique_ptr<Linear>> phi, rho;
  Dropout drop;
  DeepSets(const DeepSetsConfig& config, Rng& rng);
  DeepSets(std::int64_t features, std::int64_t width, std::int64_t outputs, Rng& rng)
      : DeepSets(DeepSetsConfig::tau(features, width, outputs), rng) {}
  /// (T, features) -> (B, outputs)
  Tensor operator()(const Tensor& x, const Segments& segments,
                    const DropoutStream& dropout = {}) const;
};

}  // namespace tessera
