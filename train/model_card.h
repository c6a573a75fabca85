// config.json of a stored model: its architecture and data contract, read as if a stranger wrote
// it.
#pragma once

#include <nlohmann/json.hpp>

#include "train/gpt_pretrain_job.h"
#include "train/task_model.h"

namespace tessera {

struct ModelCard {
  nlohmann::json model;  ///< sizes, by kind
  FeatureConfig features;
};
/// Throws Error(data), or the library's exception, on a card of another kind or of a data contract
/// that this version does not have.
ModelCard parse_card(const std::string& text, const std::string& name, const std::string& kind);

/// Whether a checkpoint's card is the one of this run: equal, but for names of outputs that a card
/// from before they were stored lacks.
bool same_card(const std::string& stored, const std::string& now);

/// Sizes out of a card's model. Each throws Error(data), or the library's exception, naming the key
/// that is missing, of another type or out of range.
template <class Config>
Config config_in(const nlohmann::json& model);
template <>
TokenizerConfig config_in(const nlohmann::json& model);
template <>
BackboneConfig config_in(const nlohmann::json& model);
template <>
GptConfig config_in(const nlohmann::json& model);
template <>
PretrainConfig config_in(const nlohmann::json& model);
template <>
TaskModelConfig config_in(const nlohmann::json& model);

/// Fewer weights than a model of these sizes has: its largest matrices alone.
std::int64_t least_weights(const TokenizerConfig& config);
std::int64_t least_weights(const BackboneConfig& config);
std::int64_t least_weights(const GptConfig& config);
std::int64_t least_weights(const TaskModelConfig& config);

}  // namespace tessera
