#include "train/trainer.h"

#include <cmath>
#include <numbers>

#include "core/autograd.h"
#include "kernels/adamw/adamw.h"

namespace tessera {
namespace {

std::vector<NamedTensor> all_parameters(const std::vector<ParameterGroup>& groups) {
  std::vector<NamedTensor> all;
  for (const ParameterGroup& g : groups) {
    all.insert(all.end(), g.parameters.begin(), g.parameters.end());
  }
  return all;
}

// Decay belongs to the matrices of linear layers.
bool decays(const NamedTensor& p) {
  const bool table = p.name.find("embed.pid") != std::string::npos ||
                     p.name.find("embed.token") != std::string::npos;
  return p.tensor.rank() == 2 && p.name.ends_with("weight") && !table;
}

}  // namespace

float warmup_cosine(std::int64_t step, std::int64_t steps, std::int64_t warmup,
                    float final_fraction) {
  if (step < warmup) {
    return static_cast<float>(step + 1) / static_cast<float>(warmup + 1);
  }
  const double t = static_cast<double>(step - warmup) /
                   static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, t)));
  return final_fraction + (1.0F - final_fraction) * static_cast<float>(cosine);
}

Trainer::Trainer(const std::vector<ParameterGroup>& groups, const TrainerConfig& config)
    : config_(config), flat_(all_parameters(groups)) {
  for (const ParameterGroup& g : groups) {
    lr_scale_.insert(lr_scale_.end(), g.parameters.size(), g.lr_scale);
  }
  m_ = Tensor::zeros(flat_.values.shape());
  v_ = Tensor::zeros(flat_.values.shape());
}

float Trainer::step(const std::function<Tensor()>& loss_function) {
  flat_.zero_gradients();
  float loss_value = 0;
  {
    const ArenaScope scope(arena_);
    const Tensor loss = loss_function();
    loss_value = loss.item();
    TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(loss_value),
                       "training: the loss is {} at step {}", loss_value, done_);
    backward(loss);
  }
  arena_.reset();
  const float lr =
      config_.lr * warmup_cosine(done_, config_.steps, config_.warmup, config_.final_lr_fraction);
  std::vector<AdamWSpan> spans;
  for (std::size_t i = 0; i < flat_.parameters.size(); ++i) {
    const std::int64_t begin = flat_.offsets[i];
    spans.push_back({.begin = begin,
                     .end = begin + flat_.parameters[i].tensor.size(),
                     .lr_scale = lr_scale_[i],
                     .weight_decay_scale = decays(flat_.parameters[i]) ? 1.0F : 0.0F});
  }
  norm_ = adamw_step(flat_.values, flat_.gradients, m_, v_, spans,
                     {.lr = lr,
                      .beta2 = config_.beta2,
                      .weight_decay = config_.weight_decay,
                      .clip_norm = config_.clip_norm,
                      .step = done_ + 1});
  ++done_;
  return loss_value;
}

void Trainer::restore(const std::vector<float>& weights) const {
  copy_into(flat_.values, Tensor::from(weights, flat_.values.shape()));
}

std::vector<NamedTensor> Trainer::optimizer_state() const {
  return {{"adamw.m", m_}, {"adamw.v", v_}};
}

void Trainer::load_optimizer_state(const std::vector<NamedTensor>& state, std::int64_t steps_done) {
  TESSERA_CHECK_KIND(ErrorKind::data, state.size() == 2 && state[0].tensor.shape() == m_.shape(),
                     "optimizer: the checkpoint holds other moments than this model needs");
  copy_into(m_, state[0].tensor);
  copy_into(v_, state[1].tensor);
  done_ = steps_done;
}

}  // namespace tessera
