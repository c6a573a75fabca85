#include "train/model_store.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "train/checkpoint.h"
#include "train/hash.h"
#include "train/json_text.h"

namespace tessera {

using Json = nlohmann::json;
namespace fs = std::filesystem;

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TokenizerConfig, features, width, blocks, heads, mlp_factor,
                                   codes, latent, causal_decoder, alpha, beta, nu, affine_lr)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BackboneConfig, width, blocks, heads, registers, pid_classes,
                                   context_features)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(GptConfig, vocabulary, width, blocks, heads)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PretrainConfig, codes, max_particles, mask_fraction)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FeatureConfig, contract, max_constituents, max_delta, use_tracks)

namespace {

std::string card(const char* kind, Json model, const FeatureConfig& features) {
  return Json{{"format", "tessera-model"},
              {"version", 1},
              {"kind", kind},
              {"model", std::move(model)},
              {"features", features},
              {"contract", Json::parse(contract_json(features))},
              {"contract_hash", contract_hash(features)}}
      .dump(1);
}

/// Checked files and parsed card of a model directory.
struct Raw {
  Json model;
  FeatureConfig features;
  std::vector<NamedTensor> tensors;
};

Raw read_model(const fs::path& directory, const std::string& kind) {
  TESSERA_CHECK_KIND(ErrorKind::missing, has_model(directory),
                     "{}: no such model; run the verb that trains it before", directory.string());
  const Checkpoint c = read_checkpoint(directory);
  try {
    const Json j = parse_json(c.config_json, (directory / "config.json").string());
    TESSERA_CHECK_KIND(ErrorKind::data, j.at("kind") == kind, "{}: expected a {}, got a {}",
                       directory.string(), kind, j.at("kind").get<std::string>());
    Raw raw{j.at("model"), j.at("features").get<FeatureConfig>(),
            tensor_list<NamedTensor>(c.model)};
    TESSERA_CHECK_KIND(ErrorKind::data, j.at("contract_hash") == contract_hash(raw.features),
                       "{}: its data contract is not one of this version", directory.string());
    return raw;
  } catch (const Json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: config.json: {}", directory.string(), e.what());
  }
}

template <class Model, class Make>
Stored<Model> stored(const fs::path& directory, const char* kind, const Make& make) {
  const Raw raw = read_model(directory, kind);
  Stored<Model> result{.model = nullptr, .features = raw.features};
  try {
    result.model = make(raw.model);
  } catch (const Json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: config.json: {}", directory.string(), e.what());
  }
  load(*result.model, raw.tensors);
  result.model->freeze();
  return result;
}

}  // namespace

std::string tokenizer_card(const TokenizerConfig& config, const FeatureConfig& features) {
  return card("tokenizer", config, features);
}

std::string pretrain_card(const BackboneConfig& backbone, const PretrainConfig& objective,
                          const FeatureConfig& features) {
  return card("pretrained", {{"backbone", backbone}, {"objective", objective}}, features);
}

std::string gpt_pretrain_card(const GptConfig& backbone, const FeatureConfig& features) {
  return card("pretrained-gpt", backbone, features);
}

namespace {

/// The sizes of a method, under its own name.
Json sizes_of(const TaskModelConfig& c) {
  switch (c.method) {
    case Method::tessera:
      return {{"backbone", c.backbone}};
    case Method::omnijet:
      return {{"gpt", c.gpt}, {"tokenizer", c.tokenizer}, {"slots", c.slots}};
    case Method::deepsets:
      return {{"width", c.width}};
    case Method::part:
      return {{"part", name(c.part)}};
    case Method::pfn:
      break;
  }
  return Json::object();
}

TaskModelConfig task_config(const Json& model) {
  TaskModelConfig c{.task = parse_task(model.at("task")),
                    .method = parse_method(model.at("method")),
                    .outputs = model.at("outputs")};
  const auto read = [&](const char* key, auto& value) {
    if (model.contains(key)) {
      model.at(key).get_to(value);
    }
  };
  read("backbone", c.backbone);
  read("gpt", c.gpt);
  read("tokenizer", c.tokenizer);
  read("slots", c.slots);
  read("width", c.width);
  if (model.contains("part")) {
    c.part = parse_part_size(model.at("part"));
  }
  if (foundation(c.method)) {
    const Json& head = model.at("head");
    c.head = {.kind = parse_head(head.at("kind")),
              .blocks = head.at("blocks"),
              .particle_blocks = head.at("particle_blocks")};
  }
  return c;
}

}  // namespace

std::string task_card(const TaskModelConfig& c, const FeatureConfig& features) {
  Json model = sizes_of(c);
  model["task"] = name(c.task);
  model["method"] = name(c.method);
  model["outputs"] = c.outputs;
  if (foundation(c.method)) {
    model["head"] = {{"kind", name(c.head.kind)},
                     {"blocks", c.head.blocks},
                     {"particle_blocks", c.head.particle_blocks}};
  }
  return card("task-model", std::move(model), features);
}

void save_model(const fs::path& directory, const std::string& config, const Module& model) {
  fs::create_directories(directory.parent_path());
  fs::path temporary = directory;
  temporary += fmt::format(".tmp.{}", ::getpid());
  fs::remove_all(temporary);
  Checkpoint c;
  c.config_json = config;
  c.model = tensor_map(state(model));
  write_checkpoint(temporary, 0, c);
  fs::remove_all(directory);
  fs::rename(temporary, directory);
}

bool has_model(const fs::path& directory) { return fs::exists(directory / "MANIFEST.json"); }

Stored<Tokenizer> load_tokenizer(const fs::path& directory) {
  return stored<Tokenizer>(directory, "tokenizer", [](const Json& model) {
    Rng rng(0);
    return std::make_unique<Tokenizer>(model.get<TokenizerConfig>(), rng);
  });
}

Stored<PretrainModel> load_pretrained(const fs::path& directory) {
  return stored<PretrainModel>(directory, "pretrained", [](const Json& model) {
    Rng rng(0);
    return std::make_unique<PretrainModel>(model.at("backbone").get<BackboneConfig>(),
                                           model.at("objective").get<PretrainConfig>(), rng);
  });
}

Stored<GptPretrainModel> load_gpt_pretrained(const fs::path& directory) {
  return stored<GptPretrainModel>(directory, "pretrained-gpt", [](const Json& model) {
    Rng rng(0);
    return std::make_unique<GptPretrainModel>(model.get<GptConfig>(), rng);
  });
}

Stored<TaskModel> load_task_model(const fs::path& directory) {
  return stored<TaskModel>(directory, "task-model", [](const Json& model) {
    Rng rng(0);
    return std::make_unique<TaskModel>(task_config(model), rng);
  });
}

void check_contract(const FeatureConfig& model, const FeatureConfig& wanted,
                    const std::string& what) {
  TESSERA_CHECK(contract_hash(model) == contract_hash(wanted),
                "{}: it was trained on the data contract {}, this run asks for {}", what,
                contract_json(model), contract_json(wanted));
}

std::string state_hash(const Module& module) { return state_hash(state(module)); }

std::string state_hash(const std::vector<NamedTensor>& tensors) {
  std::string text;
  for (const auto& [name, tensor] : tensors) {
    const Tensor host = tensor.detach().to(kCpu).contiguous();
    const auto bytes = host.dtype() == DType::i32 ? std::as_bytes(host.span<std::int32_t>())
                                                  : std::as_bytes(host.span<float>());
    text += fmt::format("{} {}\n", name, hash_bytes(bytes));
  }
  return hash_text(text);
}

}  // namespace tessera
