// tessera import: models of published checkpoints, as if this run had trained them.
#include <filesystem>

#include "apps/output.h"
#include "apps/programs.h"
#include "apps/stages.h"
#include "train/file_kind.h"
#include "train/hash.h"
#include "train/import_weights.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

/// Names and tensors of a checkpoint; one of PyTorch's is first rewritten by a child process, whose
/// output lies in the stage's directory for a moment.
TensorMap read_weights(const ImportArguments& a, const std::string& file, const Stage& stage) {
  check_plain_file(file);
  if (file.ends_with(".safetensors")) {
    return read_safetensors(file).tensors;
  }
  const std::string rewritten = stage.directory() + "/imported.safetensors";
  fs::remove(rewritten);
  constexpr std::uint64_t kMemory = std::uint64_t{4} << 30U;
  auto argv = helper_command(a.helpers, "import_checkpoint.py");
  argv.insert(argv.end(), {file, rewritten});
  run_bounded(argv, file, reader_bounds(file, kMemory + 4 * fs::file_size(file)));
  TensorMap tensors = read_safetensors(rewritten).tensors;
  fs::remove(rewritten);
  return tensors;
}

/// One import: the checkpoint file, and the stage of the run that stores it.
struct Source {
  const RunConfig& config;
  const Options& options;
  std::string stage;   ///< its name, a folder of the run
  std::string file;    ///< the checkpoint
  std::string tables;  ///< of the configuration, the one that its sizes come from
  std::string more{};  ///< lines of settings.txt beside those
};

/// A model with the weights of a checkpoint.
struct Imported {
  std::string card;
  std::unique_ptr<Module> model;
  ImportReport report;
};

// What an imported model depends on; a training's settings never equal it.
std::string settings_for(const Source& s) {
  return settings_of(s.config, {"data.contract", "data.max_particles", s.tables}) + "imported " +
         (fs::exists(s.file) ? hash_file(s.file) : "") + "\n" + s.more;
}

/// Fills the stage's directory with what `make` makes of the checkpoint's tensors; once only.
void import_as(const Source& s, const std::function<Imported(const TensorMap&)>& make) {
  const Stage stage(s.config, s.options, s.stage, settings_for(s), {},
                    {model_product(s.stage)});
  if (stage.done()) {
    print_err("{}: imported before, kept ({})\n", s.stage, stage.model());
    return;
  }
  const Stopwatch watch;
  const Imported made = make(read_weights(s.options.import, s.file, stage));
  stage.keep(made.card, *made.model);
  stage.finish({watch.seconds(), state_hash(*made.model)});
  print_out("{}: {} tensors of {}, {} left out; {} parameters in {}\n", s.stage,
            made.report.used.size(), s.file, made.report.left_out.size(),
            made.model->parameter_count(), stage.model());
}

void say_heads(const Source& s) {
  const auto& b = s.config.backbone;
  print_out("{}: {} heads of {}, from backbone.heads: weights do not tell it\n", s.stage, b.heads,
            b.width / b.heads);
}

void import_tokenizer(const Source& s) {
  import_as(s, [&](const TensorMap& theirs) {
    Rng rng(0);
    auto model = std::make_unique<Tokenizer>(tokenizer_config(s.config), rng);
    ImportReport report = import_weights(*model, theirs, omnijet_tokenizer_rules(), s.file);
    const std::string card = tokenizer_card(model->config, feature_config(s.config));
    return Imported{card, std::move(model), std::move(report)};
  });
}

void import_backbone(const Source& s) {
  import_as(s, [&](const TensorMap& theirs) {
    TESSERA_CHECK_KIND(
        ErrorKind::data, !omnijet_head(theirs),
        "{}: expected a next-token head, got a classifier's; give it as --classifier", s.file);
    Rng rng(0);
    const GptConfig sizes = gpt_config(s.config);
    auto model = std::make_unique<GptPretrainModel>(sizes, rng);
    ImportReport report = import_weights(*model, theirs, omnijet_backbone_rules(), s.file);
    return Imported{gpt_pretrain_card(sizes, feature_config(s.config)), std::move(model),
                    std::move(report)};
  });
  say_heads(s);
}

/// Names of a classifier's outputs: as asked for, or JetClass's ten.
std::vector<std::string> class_names(const ImportArguments& a, std::int64_t outputs) {
  static const std::vector<std::string> kJetClass{"QCD",  "Hbb", "Hcc", "Hgg",  "H4q",
                                                  "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"};
  const std::vector<std::string>& names = a.classes.empty() ? kJetClass : a.classes;
  TESSERA_CHECK(std::ssize(names) == outputs,
                "--classes: expected {} names in the order of the checkpoint's outputs, got {}",
                outputs, a.classes.empty() ? "none" : fmt::format("{}", a.classes.size()));
  return names;
}

Imported task_model(const Source& s, const TaskModelConfig& sizes, const TensorMap& theirs,
                    std::span<const ImportRule> rules) {
  Rng rng(0);
  auto model = std::make_unique<TaskModel>(sizes, rng);
  ImportReport report = import_weights(*model, theirs, rules, s.file);
  return {task_card(sizes, feature_config(s.config)), std::move(model), std::move(report)};
}

// A fine-tuned model holds the tokenizer whose tokens it was trained on: the one of this run.
void import_classifier(Source s) {
  const std::string directory = s.config.run.directory + "/tokenizer/model";
  TESSERA_CHECK_KIND(ErrorKind::missing, has_model(directory),
                     "--classifier: {} holds no tokenizer, which no classifier's checkpoint has; "
                     "give it as --tokenizer FILE",
                     directory);
  const Stored<Tokenizer> tokenizer = load_tokenizer(directory);
  check_contract(tokenizer.features, feature_config(s.config), directory);
  s.more += "tokenizer " + tokenizer_hash(*tokenizer.model) + "\n";
  import_as(s, [&](TensorMap theirs) {
    const auto head = omnijet_head(theirs);
    TESSERA_CHECK_KIND(ErrorKind::data, head.has_value(),
                       "{}: expected the head of a classifier, by sum or class attention, got none",
                       s.file);
    TaskModelConfig sizes{.task = Task::tag,
                          .method = Method::omnijet,
                          .gpt = gpt_config(s.config),
                          .tokenizer = tokenizer.model->config,
                          .slots = token_slots(s.config),
                          .head = {.kind = head->kind},
                          .outputs = head->outputs,
                          .classes = class_names(s.options.import, head->outputs)};
    for (const auto& [name, tensor] : state(*tokenizer.model)) {
      theirs["tokenizer." + name] = tensor;
    }
    return task_model(s, sizes, theirs, omnijet_classifier_rules(head->kind));
  });
  say_heads(s);
}

void import_part(const Source& s) {
  const std::string& version = s.options.import.weaver;
  TESSERA_CHECK(!version.empty(),
                "--part: expected --weaver VERSION too, of the weaver-core that trained {}: before "
                "0.5 its channels had another order, which weights do not tell",
                s.file);
  const WeaverLayout layout = weaver_layout(version);
  import_as(s, [&](const TensorMap& theirs) {
    const TensorMap ours = weaver_part(theirs, layout, s.file);
    const auto last = ours.find("fc.0.weight");
    TESSERA_CHECK_KIND(ErrorKind::data, last != ours.end() && last->second.rank() == 2,
                       "{}: expected a Particle Transformer with 'fc.0.weight', got none", s.file);
    const std::int64_t outputs = last->second.shape(0);
    return task_model(s,
                      {.task = Task::tag,
                       .method = Method::part,
                       .part = PartSize::jet_class,
                       .outputs = outputs,
                       .classes = class_names(s.options.import, outputs)},
                      ours, weaver_part_rules());
  });
}

}  // namespace

void import_verb(const RunConfig& c, const Options& options) {
  const ImportArguments& a = options.import;
  const bool omnijet = !a.tokenizer.empty() || !a.backbone.empty() || !a.classifier.empty();
  TESSERA_CHECK(omnijet || !a.part.empty(),
                "import: expected one or more of --tokenizer, --backbone, --classifier and --part, "
                "each with a FILE");
  TESSERA_CHECK(!omnijet || tokens_in(c),
                "import: expected backbone.kind = 'gpt', as -c omnijet-alpha has it");
  std::string names;
  for (const std::string& name : a.classes) {
    names += "class " + name + "\n";
  }
  const auto source = [&](const char* stage, const std::string& file, const char* table) {
    return Source{c, options, stage, file, table};
  };
  if (!a.tokenizer.empty()) {
    import_tokenizer(source("tokenizer", a.tokenizer, "tokenizer."));
  }
  if (!a.backbone.empty()) {
    import_backbone(source("pretrain", a.backbone, "backbone."));
  }
  if (!a.classifier.empty()) {
    Source s = source("finetune/tag__omnijet__imported", a.classifier, "backbone.");
    s.more = names + fmt::format("slots {}\n", token_slots(c));
    import_classifier(s);
  }
  if (!a.part.empty()) {
    Source s = source("finetune/tag__part__imported", a.part, "data.contract");
    s.more = names + "weaver " + a.weaver + "\n";
    import_part(s);
  }
}

}  // namespace tessera::apps
