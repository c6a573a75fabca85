// Weights that others trained, into our models: which of their tensors goes where.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "nn/module.h"
#include "train/safetensors.h"

namespace tessera {

/// "#" stands for the number of a block, a last "*" for whatever follows. A tensor that matches the
/// first pattern goes to the name that the second one makes, as part `part` of `parts` equal blocks
/// of rows; it is left out where that is empty.
struct ImportRule {
  const char* theirs;
  const char* ours;
  int part = 0, parts = 1;
};

/// OmniJet-alpha (uhh-pd-ml/omnijet_alpha 1c8d442): its VQ-VAE of NormFormer blocks into Tokenizer,
/// its GPT with the next-token head into GptPretrainModel. vqtorch's affine parameters are stored
/// raw; the factor 2 on them is TokenizerConfig::affine_lr.
std::span<const ImportRule> omnijet_tokenizer_rules();
std::span<const ImportRule> omnijet_backbone_rules();

/// What became of every tensor of the file.
struct ImportReport {
  std::vector<std::string> used, left_out;
};

/// Fills every parameter and buffer of `model`. Shapes may differ by axes of one; whole numbers may
/// come as floats. Throws Error(data) that names `file` and the first tensors without a place, of
/// another shape or with a value that is not finite, and parameters that nothing filled.
ImportReport import_weights(Module& model, const TensorMap& theirs,
                            std::span<const ImportRule> rules, const std::string& file);

}  // namespace tessera
