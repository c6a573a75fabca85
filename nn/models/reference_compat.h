// What published code does otherwise than our models, for comparison with its curves. The losses of
// OmniJet-alpha are means over padded batches, pad slots included; in packed batches the pads exist
// as closed forms only. The tau reference draws its starting weights in its own way.
#pragma once

#include "nn/models/backbone.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"

namespace tessera {

/// Whose semantics a training follows.
enum class Compat {
  clean,      ///< ours: means over real particles, decay of matrices only
  reference,  ///< the published code's, quirks included, so that its curves compare
};

/// The tokenizer's loss over B * slots places.
struct PaddedTokenizerLoss {
  Tensor loss;                                 // scalar, reconstruction + alpha * quantiser
  Tensor reconstruction_loss, quantizer_loss;  // scalars without history
  std::int64_t pads = 0;                       ///< P = B * slots - T
  Tensor pad_code;  // (1) i32, the code of a pad: argmin |e'_k|, ties to the smaller index
};

/// With n = T + P places, D latent and F input features, e' the effective code of the pads:
///   L_reco = SSE / (F n);  L_vq = (T L_vq,packed + P |e'|^2 / D) / n,
/// the pads' part with the gradient of its codebook term only, beta, since their latents are
/// constants. `out` is what `model` gave for x, on the model's device; the host reads nothing of
/// it. Throws Error(usage) if a jet is longer than `slots`.
PaddedTokenizerLoss padded_tokenizer_loss(const Tokenizer& model, const TokenizerOutput& out,
                                          const Tensor& x, const Segments& segments,
                                          std::int64_t slots = 128);

/// Latents and codes with the P pads behind them, as the published codebook sees them: for
/// Codebook::observe(), where they count as used rows at zero.
struct PaddedLatents {
  Tensor latent;  // (T + P, D)
  Tensor codes;   // (T + P) i32
};
PaddedLatents with_pads(const TokenizerOutput& out, const PaddedTokenizerLoss& loss);

/// The next-token loss over B * slots places, pads with id 0 and target 0.
struct PaddedNextTokenLoss {
  Tensor loss;   // scalar
  Tensor clean;  // scalar without history: mean over the real targets, for the log
};

/// Every pad of a jet has the same input and sees the same m real tokens, so one probe token behind
/// them stands for all slots - m: it sees the jet, nobody sees it, its weight is slots - m. ids,
/// targets: (T) i32 on the backbone's device; the host does not read them. Throws Error(usage) if a
/// jet has no token or more than `slots`.
PaddedNextTokenLoss padded_next_token_loss(const GptBackbone& backbone, const NextTokenHead& head,
                                           const Tensor& ids, const Tensor& targets,
                                           const Segments& segments, std::int64_t slots = 128,
                                           const DropoutStream& dropout = {});

/// Draws a ParT-style head or model anew as HEP-KBFI/ml-tau-en-reg does: Linear weights N(0, 2 /
/// fan_out) and biases N(-b, b^2), b = fan_out^-1/2; attention q, k, v Xavier-uniform on the
/// stacked matrix, its output U(+-1/sqrt(d)), its biases 0; "cls" N(0, 0.02^2). Norms, scales and
/// residual weights stay at their start.
void start_as_tau_reference(const Module& model, Rng& rng);

}  // namespace tessera
