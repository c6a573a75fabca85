#include "train/model_card.h"

#include "train/class_names.h"
#include "train/json_text.h"
#include "train/model_store.h"
#include "train/names.h"
#include "train/task_outputs.h"

namespace tessera {

using Json = nlohmann::json;

namespace {

// One table for each configuration: what is written, and in which range it is read back. Larger
// sizes than any run configuration may ask for come from damage or malice.

void fields(auto& io, TokenizerConfig& c) {
  io.whole("features", c.features, 1, 64);
  io.whole("width", c.width, 1, 4096);
  io.whole("blocks", c.blocks, 0, 96);
  io.whole("heads", c.heads, 1, 64);
  io.whole("mlp_factor", c.mlp_factor, 1, 16);
  io.whole("codes", c.codes, 1, 65536);
  io.whole("latent", c.latent, 1, 256);
  io.flag("causal_decoder", c.causal_decoder);
  io.number("alpha", c.alpha, 0, 1e4);
  io.number("beta", c.beta, 0, 1);
  io.number("nu", c.nu, 0, 1);
  io.number("affine_lr", c.affine_lr, 0, 100);
  io.distance("distance", c.distance);
}

void fields(auto& io, BackboneConfig& c) {
  io.whole("width", c.width, 1, 4096);
  io.whole("blocks", c.blocks, 0, 96);
  io.whole("heads", c.heads, 1, 64);
  io.whole("registers", c.registers, 0, 64);
  io.whole("pid_classes", c.pid_classes, 1, 64);
  io.whole("context_features", c.context_features, 1, 64);
}

void fields(auto& io, GptConfig& c) {
  io.whole("vocabulary", c.vocabulary, 3, 65538);
  io.whole("width", c.width, 1, 4096);
  io.whole("blocks", c.blocks, 0, 96);
  io.whole("heads", c.heads, 1, 64);
}

void fields(auto& io, PretrainConfig& c) {
  io.whole("codes", c.codes, 1, 65536);
  io.whole("max_particles", c.max_particles, 1, 4096);
  io.number("mask_fraction", c.mask_fraction, 0, 1);
}

void fields(auto& io, FeatureConfig& c) {
  io.text("contract", c.contract);
  io.whole("max_constituents", c.max_constituents, 1, 65536);
  io.number("max_delta", c.max_delta, 0, 100);
  io.flag("use_tracks", c.use_tracks);
}

struct Writer {
  Json object = Json::object();
  void whole(const char* key, const auto& value, std::int64_t, std::int64_t) {
    object[key] = value;
  }
  void number(const char* key, const auto& value, double, double) { object[key] = value; }
  void flag(const char* key, bool value) { object[key] = value; }
  void text(const char* key, const std::string& value) { object[key] = value; }
  void distance(const char* key, VqDistance value) { object[key] = name(value); }
};

/// The library's own conversions take -1 and 1.5 for counts, true for a number, and are undefined
/// for 1e300.
struct Reader {
  const Json& object;
  template <class T>
  void whole(const char* key, T& value, std::int64_t least, std::int64_t most) {
    value = static_cast<T>(whole_at(object, key, least, most));
  }
  template <class T>
  void number(const char* key, T& value, double least, double most) {
    value = static_cast<T>(number_at(object, key, least, most));
  }
  void flag(const char* key, bool& value) { value = object.at(key).get<bool>(); }
  void text(const char* key, std::string& value) { value = object.at(key).get<std::string>(); }
  // Cards from before the key existed are of distance f32.
  void distance(const char* key, VqDistance& value) {
    value = parse_vq_distance(object.value(key, std::string(name(VqDistance::f32))));
  }
};

template <class Config>
Json json_of(Config config) {
  Writer writer;
  fields(writer, config);
  return writer.object;
}

template <class Config>
Config read_fields(const Json& object) {
  Config config;
  Reader reader{object};
  fields(reader, config);
  return config;
}

/// The sizes of a method, under its own name.
Json sizes_of(const TaskModelConfig& c) {
  switch (c.method) {
    case Method::tessera:
      return {{"backbone", json_of(c.backbone)}};
    case Method::omnijet:
      return {{"gpt", json_of(c.gpt)}, {"tokenizer", json_of(c.tokenizer)}, {"slots", c.slots}};
    case Method::deepsets:
      return {{"width", c.width}};
    case Method::part:
      return {{"part", name(c.part)}};
    case Method::pfn:
      break;
  }
  return Json::object();
}

/// Names of the outputs in order, or the quantity of a regression.
void write_outputs(Json& model, const TaskModelConfig& c) {
  model["outputs"] = c.outputs;
  if (!c.classes.empty()) {
    model["classes"] = c.classes;
  }
  if (const auto q = quantity_of(c.task)) {
    model["target"] = {{"name", q->name}, {"meaning", q->meaning}, {"unit", q->unit}};
  }
}

/// Cards from before names were stored have neither key: the names of a task that fixes them are
/// known, those of tag are not.
void read_outputs(const Json& model, TaskModelConfig& c) {
  const auto fixed = fixed_classes(c.task);
  c.classes = model.value("classes", fixed);
  TESSERA_CHECK_KIND(ErrorKind::data, fixed.empty() || c.classes == fixed,
                     "'classes': expected {} for {}, got {}", list_of(fixed), name(c.task),
                     list_of(c.classes));
  const bool named = c.task != Task::tag || model.contains("classes");
  const std::int64_t expected = c.task == Task::tau_pt ? 1 : std::ssize(c.classes);
  TESSERA_CHECK_KIND(ErrorKind::data, !named || expected == c.outputs,
                     "'outputs': expected {}, as many as {} has names, got {}", expected,
                     name(c.task), c.outputs);
  check_names(c.classes, "'classes'");
  if (const auto q = quantity_of(c.task); q && model.contains("target")) {
    const auto got = model.at("target").at("name").get<std::string>();
    TESSERA_CHECK_KIND(ErrorKind::data, got == q->name, "'target': expected '{}', got '{}'",
                       q->name, got);
  }
}

std::string card(const char* kind, Json model, const FeatureConfig& features) {
  return Json{{"format", "tessera-model"},
              {"version", 1},
              {"kind", kind},
              {"model", std::move(model)},
              {"features", json_of(features)},
              {"contract", Json::parse(contract_json(features))},
              {"contract_hash", contract_hash(features)}}
      .dump(1);
}

}  // namespace

std::string tokenizer_card(const TokenizerConfig& config, const FeatureConfig& features) {
  return card("tokenizer", json_of(config), features);
}

std::string pretrain_card(const BackboneConfig& backbone, const PretrainConfig& objective,
                          const FeatureConfig& features) {
  return card("pretrained", {{"backbone", json_of(backbone)}, {"objective", json_of(objective)}},
              features);
}

std::string gpt_pretrain_card(const GptConfig& backbone, const FeatureConfig& features) {
  return card("pretrained-gpt", json_of(backbone), features);
}

std::string task_card(const TaskModelConfig& c, const FeatureConfig& features) {
  Json model = sizes_of(c);
  model["task"] = name(c.task);
  model["method"] = name(c.method);
  write_outputs(model, c);
  if (foundation(c.method)) {
    model["head"] = {{"kind", name(c.head.kind)},
                     {"blocks", c.head.blocks},
                     {"particle_blocks", c.head.particle_blocks}};
  }
  return card("task-model", std::move(model), features);
}

ModelCard parse_card(const std::string& text, const std::string& name, const std::string& kind) {
  const Json j = parse_json(text, name);
  TESSERA_CHECK_KIND(ErrorKind::data, j.at("kind") == kind, "expected a {}, got a {}", kind,
                     j.at("kind").get<std::string>());
  ModelCard card{j.at("model"), read_fields<FeatureConfig>(j.at("features"))};
  TESSERA_CHECK_KIND(ErrorKind::data, j.at("contract_hash") == contract_hash(card.features),
                     "its data contract is not one of this version");
  return card;
}

bool same_card(const std::string& stored, const std::string& now) {
  if (stored == now) {
    return true;
  }
  try {
    const Json before = parse_json(stored, "stored card");
    Json after = parse_json(now, "card");
    for (const char* key : {"classes", "target"}) {
      if (!before.at("model").contains(key)) {
        after.at("model").erase(key);
      }
    }
    return before == after;
  } catch (const Error&) {
    return false;
  } catch (const Json::exception&) {
    return false;
  }
}

template <>
TokenizerConfig config_in(const Json& model) {
  return read_fields<TokenizerConfig>(model);
}
template <>
BackboneConfig config_in(const Json& model) {
  return read_fields<BackboneConfig>(model);
}
template <>
GptConfig config_in(const Json& model) {
  return read_fields<GptConfig>(model);
}
template <>
PretrainConfig config_in(const Json& model) {
  return read_fields<PretrainConfig>(model);
}

template <>
TaskModelConfig config_in(const Json& model) {
  TaskModelConfig c{.task = parse_task(model.at("task")),
                    .method = parse_method(model.at("method")),
                    .outputs = whole_at(model, "outputs", 1, 100'000)};
  read_outputs(model, c);
  if (c.method == Method::tessera) c.backbone = read_fields<BackboneConfig>(model.at("backbone"));
  if (c.method == Method::omnijet) {
    c.gpt = read_fields<GptConfig>(model.at("gpt"));
    c.tokenizer = read_fields<TokenizerConfig>(model.at("tokenizer"));
    c.slots = whole_at(model, "slots", 0, 65536);
  }
  if (c.method == Method::deepsets) c.width = whole_at(model, "width", 1, 4096);
  if (c.method == Method::part) c.part = parse_part_size(model.at("part"));
  if (foundation(c.method)) {
    const Json& head = model.at("head");
    c.head = {.kind = parse_head(head.at("kind")),
              .blocks = whole_at(head, "blocks", 1, 64),
              .particle_blocks = whole_at(head, "particle_blocks", 0, 64)};
  }
  return c;
}

std::int64_t least_weights(const TokenizerConfig& c) {
  return c.codes * c.latent + 2 * c.blocks * (4 + 2 * c.mlp_factor) * c.width * c.width +
         2 * c.width * c.latent;
}
std::int64_t least_weights(const BackboneConfig& c) {
  return (12 * c.blocks * c.width + c.registers + c.pid_classes + c.context_features) * c.width;
}
std::int64_t least_weights(const GptConfig& c) {
  return (12 * c.blocks * c.width + c.vocabulary) * c.width;
}
std::int64_t least_weights(const TaskModelConfig& c) {
  const std::int64_t heads = c.outputs + 4 * (c.head.blocks + c.head.particle_blocks);
  switch (c.method) {
    case Method::tessera:
      return least_weights(c.backbone) + heads * c.backbone.width;
    case Method::omnijet:
      return least_weights(c.gpt) + least_weights(c.tokenizer) + heads * c.gpt.width;
    case Method::deepsets:
      return (c.width + c.outputs) * c.width;
    case Method::pfn:
    case Method::part:
      break;
  }
  return c.outputs;
}

}  // namespace tessera
