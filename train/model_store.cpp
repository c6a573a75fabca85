#include "train/model_store.h"

#include "train/checkpoint.h"
#include "train/hash.h"
#include "train/model_card.h"
#include "train/path_hints.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

/// Checked files and parsed card of a model directory.
struct Raw {
  ModelCard card;
  std::vector<NamedTensor> tensors;

  /// Before anything of a model's size is allocated: its card must not ask for more than the
  /// weights beside it fill.
  void check_fits(std::int64_t least) const {
    std::int64_t held = 0;
    for (const NamedTensor& t : tensors) {
      held += t.tensor.size();
    }
    TESSERA_CHECK_KIND(ErrorKind::data, least <= held,
                       "expected at least {} weights for these sizes, model.safetensors holds {}",
                       least, held);
  }
};

template <class Model, class Config>
std::unique_ptr<Model> made(const Raw& raw, const Config& config) {
  raw.check_fits(least_weights(config));
  Rng rng(0);
  return std::make_unique<Model>(config, rng);
}

/// Weights of another type would be converted; a NaN has no integer.
void check_types(const Module& model, const std::vector<NamedTensor>& tensors) {
  for (const auto& [name, target] : state(model)) {
    const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
    TESSERA_CHECK_KIND(ErrorKind::data,
                       found == tensors.end() || found->tensor.dtype() == target.dtype(),
                       "'{}': expected type {}, got {}", name, tessera::name(target.dtype()),
                       tessera::name(found->tensor.dtype()));
  }
}

/// Whatever is wrong, one line names the directory; sizes that no model can have are the file's
/// fault.
template <class Model, class Make>
Stored<Model> stored(const fs::path& directory, const char* kind, const Make& make) {
  TESSERA_CHECK_KIND(ErrorKind::missing, has_model(directory),
                     "{}: no such model; expected a folder with MANIFEST.json, which the verb "
                     "that trains it makes, got {}",
                     directory.string(), model_hint(directory));
  const Checkpoint c = read_checkpoint(directory);
  TESSERA_CHECK_KIND(ErrorKind::data, !c.config_json.empty() && !c.model.empty(),
                     "{}: expected a MANIFEST.json that lists config.json and model.safetensors",
                     directory.string());
  try {
    const Raw raw{parse_card(c.config_json, "config.json", kind),
                  tensor_list<NamedTensor>(c.model)};
    Stored<Model> result{.model = make(raw), .features = raw.card.features};
    check_types(*result.model, raw.tensors);
    load(*result.model, raw.tensors);
    result.model->freeze();
    return result;
  } catch (const nlohmann::json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: config.json: {}", directory.string(), e.what());
  } catch (const Error& e) {
    const bool of_content = e.kind() == ErrorKind::usage;  // sizes that a model cannot have
    TESSERA_FAIL(of_content ? ErrorKind::data : e.kind(), "{}: {}", directory.string(),
                 e.message());
  }
}

}  // namespace

void save_model(const fs::path& directory, const std::string& config, const Module& model) {
  Checkpoint c;
  c.config_json = config;
  c.model = tensor_map(state(model));
  check_finite(c.model, ErrorKind::numeric, directory.string());
  const FileIo io;
  io.make_directory(directory.parent_path());
  io.replace(directory, [&](const fs::path& temporary) { write_checkpoint(temporary, 0, c, io); });
}

bool has_model(const fs::path& directory) {
  std::error_code code;
  return fs::exists(directory / "MANIFEST.json", code);
}

Stored<Tokenizer> load_tokenizer(const fs::path& directory) {
  return stored<Tokenizer>(directory, "tokenizer", [](const Raw& raw) {
    return made<Tokenizer>(raw, config_in<TokenizerConfig>(raw.card.model));
  });
}

Stored<PretrainModel> load_pretrained(const fs::path& directory) {
  return stored<PretrainModel>(directory, "pretrained", [](const Raw& raw) {
    const auto backbone = config_in<BackboneConfig>(raw.card.model.at("backbone"));
    const auto objective = config_in<PretrainConfig>(raw.card.model.at("objective"));
    raw.check_fits(least_weights(backbone) +
                   (objective.codes + objective.max_particles) * backbone.width);
    Rng rng(0);
    return std::make_unique<PretrainModel>(backbone, objective, rng);
  });
}

Stored<GptPretrainModel> load_gpt_pretrained(const fs::path& directory) {
  return stored<GptPretrainModel>(directory, "pretrained-gpt", [](const Raw& raw) {
    return made<GptPretrainModel>(raw, config_in<GptConfig>(raw.card.model));
  });
}

Stored<TaskModel> load_task_model(const fs::path& directory) {
  return stored<TaskModel>(directory, "task-model", [](const Raw& raw) {
    return made<TaskModel>(raw, config_in<TaskModelConfig>(raw.card.model));
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

std::string tokenizer_hash(const Tokenizer& tokenizer) {
  const VqDistance distance = tokenizer.config.distance;
  return state_hash(tokenizer) +
         (distance == VqDistance::f32 ? "" : fmt::format(" by {}", name(distance)));
}

}  // namespace tessera
