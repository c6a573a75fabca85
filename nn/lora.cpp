#include "nn/lora.h"

namespace tessera {
namespace {

/// Calls visit(linear, adapters): the packed projection carries one adapter each for q, k and v.
template <class Model, class Visit>
void for_linears(Model& backbone, Visit visit) {
  for (const auto& block : backbone.blocks()) {
    visit(block->attn.qkv, 3);
    visit(block->attn.out, 1);
    visit(block->ff.fc1, 1);
    visit(block->ff.fc2, 1);
  }
}

template <class Model>
void equip(Model& backbone, const LoraConfig& config, Rng& rng) {
  backbone.freeze();
  for_linears(backbone,
              [&](Linear& linear, int adapters) { linear.add_lora(config, adapters, rng); });
}

template <class Model>
void merge(Model& backbone) {
  for_linears(backbone, [](Linear& linear, int) { linear.merge_lora(); });
}

}  // namespace

void add_lora(Backbone& backbone, const LoraConfig& config, Rng& rng) {
  equip(backbone, config, rng);
}
void add_lora(GptBackbone& backbone, const LoraConfig& config, Rng& rng) {
  equip(backbone, config, rng);
}
void merge_lora(Backbone& backbone) { merge(backbone); }
void merge_lora(GptBackbone& backbone) { merge(backbone); }

}  // namespace tessera
