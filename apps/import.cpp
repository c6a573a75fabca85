// tessera import: tokenizer and backbone of a published checkpoint as if this run had trained them.
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

// What an imported model depends on; a training's settings never equal it.
std::string settings_for(const RunConfig& c, const std::string& table, const std::string& file) {
  return settings_of(c, {"data.contract", "data.max_particles", table}) + "imported " +
         (fs::exists(file) ? hash_file(file) : "") + "\n";
}

void import_model(const RunConfig& c, const Options& options, const std::string& name,
                  const std::string& file, const std::string& card, Module& model,
                  std::span<const ImportRule> rules) {
  const std::string table = name == "tokenizer" ? "tokenizer." : "backbone.";
  const Stage stage(c, options, name, settings_for(c, table, file), {}, {model_product(name)});
  if (stage.done()) {
    print_err("{}: imported before, kept ({})\n", name, stage.model());
    return;
  }
  const Stopwatch watch;
  const ImportReport report =
      import_weights(model, read_weights(options.import, file, stage), rules, file);
  stage.keep(card, model);
  stage.finish({watch.seconds(), state_hash(model)});
  print_out("{}: {} tensors of {}, {} left out; {} parameters in {}\n", name, report.used.size(),
            file, report.left_out.size(), model.parameter_count(), stage.model());
}

}  // namespace

void import_verb(const RunConfig& c, const Options& options) {
  const ImportArguments& a = options.import;
  TESSERA_CHECK(tokens_in(c), "import: expected backbone.kind = 'gpt', as -c omnijet-alpha has it");
  TESSERA_CHECK(!a.tokenizer.empty() || !a.backbone.empty(),
                "import: expected --tokenizer FILE, --backbone FILE, or both");
  Rng rng(0);
  if (!a.tokenizer.empty()) {
    Tokenizer model(tokenizer_config(c), rng);
    import_model(c, options, "tokenizer", a.tokenizer,
                 tokenizer_card(model.config, feature_config(c)), model, omnijet_tokenizer_rules());
  }
  if (!a.backbone.empty()) {
    GptPretrainModel model(gpt_config(c), rng);
    import_model(c, options, "pretrain", a.backbone,
                 gpt_pretrain_card(gpt_config(c), feature_config(c)), model,
                 omnijet_backbone_rules());
    print_out("pretrain: {} heads of {}, from backbone.heads: weights do not tell it\n",
              c.backbone.heads, c.backbone.width / c.backbone.heads);
  }
}

}  // namespace tessera::apps
