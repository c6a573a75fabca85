// Weights that others trained, into our models: which of their tensors goes where.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/module.h"
#include "train/safetensors.h"
#include "train/task_model.h"

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

/// The head of a fine-tuned OmniJet-alpha, by the names and shapes of its checkpoint.
struct ImportedHead {
  HeadKind kind;         ///< sum or class_attention_ref
  std::int64_t outputs;  ///< classes
};
/// Nothing where the checkpoint has none of the two heads.
std::optional<ImportedHead> omnijet_head(const TensorMap& theirs);
/// The GPT with such a head into TaskModel. Its tokenizer is none of their file: tensors under our
/// own names, "tokenizer." in front, are to stand beside theirs.
std::vector<ImportRule> omnijet_classifier_rules(HeadKind kind);

/// How a checkpoint of weaver's Particle Transformer orders the channels behind its attention.
enum class WeaverLayout {
  heads_outer,  ///< since weaver-core 0.5: channel h (d / H) + k of head h, as here
  heads_inner,  ///< before: channel k H + h
};
/// That of a version such as "0.4.17". Throws Error(usage) on a text that is none.
WeaverLayout weaver_layout(const std::string& version);

/// A ParT of jet-universe/particle_transformer with the 13 features of JetClass_kinpid.yaml, its
/// names with or without "mod.", as weaver_part_rules() take it: features in the order of
/// FeatureRows::particles; of the older layout the rows of out_proj, weight and bias, moved and
/// scaled by c_attn, which becomes 1. The answers stay the same. Throws Error(data) naming `file`
/// and a tensor of a shape that cannot be moved.
TensorMap weaver_part(const TensorMap& theirs, WeaverLayout layout, const std::string& file);
/// Into the network "part" of TaskModel.
std::span<const ImportRule> weaver_part_rules();

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
