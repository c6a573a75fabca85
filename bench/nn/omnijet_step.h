// The training step that benches of the cpu and of GPUs measure, on 64 jets of 30 to 128 particles;
// step_peer.py has the same in PyTorch.
#pragma once

#include <optional>

#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/models/pretraining.h"
#include "train/trainer.h"

namespace tessera::bench {

constexpr int kJets = 64;
constexpr std::int64_t kWidth = 256, kHeads = 8;

// Particles of jet j; step_peer.py has the same rule.
inline std::vector<std::int32_t> lengths() {
  std::vector<std::int32_t> n;
  for (int j = 0; j < kJets; ++j) {
    n.push_back(30 + j * 37 % 99);
  }
  return n;
}

// Multiply-adds count twice; backward is twice the forward. A block of width d: 12 d^2 a token in
// its matrices, 2 d a pair of tokens in its attention, of which a causal mask leaves half.
inline double block_flops(const Segments& s, double attended) {
  constexpr auto d = static_cast<double>(kWidth);
  double pairs = 0;
  for (int j = 0; j < s.count(); ++j) {
    pairs += attended * s.length(j) * s.length(j);
  }
  return 3 * 2 * (12 * d * d * s.total() + 2 * d * pairs);
}

/// The generative pre-training step of OmniJet-alpha: [start, codes] to [codes, stop] over 8194
/// tokens, gradients, clipping and AdamW of 6.57 M parameters.
class OmnijetStep {
 public:
  explicit OmnijetStep(Device device = kCpu) {
    backbone_.to(device);
    head_.to(device);
    trainer_.emplace(std::vector<ParameterGroup>{{parameters()}},
                     TrainerConfig{.clip_norm = 5, .steps = 1'000'000});
    std::vector<std::int32_t> n = lengths(), ids, targets;
    for (std::int32_t& length : n) {
      length += 1;  // start
      for (std::int32_t i = 0; i < length; ++i) {
        ids.push_back(static_cast<std::int32_t>(rng_.below(8193)));
        targets.push_back(1 + static_cast<std::int32_t>(rng_.below(8193)));
      }
    }
    segments_ = Segments::from_lengths(n);
    const auto rows = static_cast<std::int64_t>(ids.size());
    in_ = Tensor::from(ids, {rows}, device);
    want_ = Tensor::from(targets, {rows}, device);
  }
  void operator()() {
    trainer_->step([&] {
      return linear_cross_entropy(backbone_(in_, segments_), head_.ntp.weight, head_.ntp.bias,
                                  want_);
    });
  }
  [[nodiscard]] GraphQueue::Counts graphs() const { return trainer_->graphs(); }
  [[nodiscard]] double flops() const {
    const double d = kWidth, vocabulary = static_cast<double>(backbone_.config.vocabulary);
    return 3 * block_flops(segments_, 0.5) + 3 * 2 * d * vocabulary * segments_.total();
  }

 private:
  [[nodiscard]] std::vector<NamedTensor> parameters() const {
    std::vector<NamedTensor> all = backbone_.named_parameters();
    const std::vector<NamedTensor> of_head = head_.named_parameters("head.");
    all.insert(all.end(), of_head.begin(), of_head.end());
    return all;
  }

  Rng rng_{1};
  GptBackbone backbone_{{}, rng_};
  NextTokenHead head_{kWidth, backbone_.config.vocabulary, rng_};
  std::optional<Trainer> trainer_;
  Segments segments_;
  Tensor in_, want_;
};

}  // namespace tessera::bench
