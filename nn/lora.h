// Low-rank adapters: fine-tuning that leaves the pre-trained weights untouched.
#pragma once

#include "nn/models/backbone.h"

namespace tessera {

/// Freezes the backbone and equips the Linears of its blocks with adapters: W + (alpha / rank) B A
/// on q, k and v each, out, fc1 and fc2. A ~ U(+-1/sqrt(fan_in)), B = 0, so the first step computes
/// the base. The adapters are the only parameters with a gradient, named "...lora_a" and
/// "...lora_b"; the base stays in named_parameters(), for checkpoints: an optimizer takes
/// trainable(). Throws Error(usage) where adapters exist already. Hu et al. 2021 (2106.09685).
void add_lora(Backbone& backbone, const LoraConfig& config, Rng& rng);
void add_lora(GptBackbone& backbone, const LoraConfig& config, Rng& rng);

/// Adds the adapters to the weights and drops them: a plain, frozen backbone of the same function.
void merge_lora(Backbone& backbone);
void merge_lora(GptBackbone& backbone);

}  // namespace tessera
