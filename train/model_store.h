// Finished models as directories that can be shared: config.json (architecture and data contract),
// model.safetensors, MANIFEST.json.
#pragma once

#include "nn/models/tokenizer.h"
#include "train/gpt_pretrain_job.h"
#include "train/task_model.h"

namespace tessera {

/// config.json of a model. Equal models on equal data contracts give equal text.
std::string tokenizer_card(const TokenizerConfig& config, const FeatureConfig& features);
std::string pretrain_card(const BackboneConfig& backbone, const PretrainConfig& objective,
                          const FeatureConfig& features);
std::string gpt_pretrain_card(const GptConfig& backbone, const FeatureConfig& features);
std::string task_card(const TaskModelConfig& config, const FeatureConfig& features);

/// Writes `directory` as a whole or not at all; one that exists is replaced. Throws Error(io), or
/// Error(numeric) naming a weight that is not finite.
void save_model(const std::filesystem::path& directory, const std::string& card,
                const Module& model);
/// Whether a finished model lies there.
bool has_model(const std::filesystem::path& directory);

/// The stored model, frozen. Throws Error(missing | data), naming the directory, if it is absent,
/// damaged or of another kind.
template <class Model>
struct Stored {
  std::unique_ptr<Model> model;
  FeatureConfig features;  ///< the data contract that it was trained on
};
Stored<Tokenizer> load_tokenizer(const std::filesystem::path& directory);
Stored<PretrainModel> load_pretrained(const std::filesystem::path& directory);
Stored<GptPretrainModel> load_gpt_pretrained(const std::filesystem::path& directory);
Stored<TaskModel> load_task_model(const std::filesystem::path& directory);

/// Throws Error(usage) naming both sides if a model's contract is not the wanted one.
void check_contract(const FeatureConfig& model, const FeatureConfig& wanted,
                    const std::string& what);

/// XXH3-128 over names and bytes of all parameters and buffers.
std::string state_hash(const Module& module);
std::string state_hash(const std::vector<NamedTensor>& tensors);
/// What tokens depend on: state_hash, and the distance of codes where it is not f32.
std::string tokenizer_hash(const Tokenizer& tokenizer);

}  // namespace tessera
