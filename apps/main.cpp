// tessera VERB: dispatch, help, and the one place where an error becomes a line and an exit code.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <new>
#include <sstream>

#include "apps/command.h"
#include "apps/data_verbs.h"
#include "apps/output.h"
#include "apps/presets.h"
#include "apps/revision.h"
#include "core/parallel.h"
#include "core/simd_level.h"
#include "kernels/matmul/precision.h"
#include "train/file_kind.h"
#include "train/names.h"
#include "train/suggestion.h"

namespace tessera::apps {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 64 usage, 65 bad data, 66 input missing, 70 numeric or internal, 71 out "
    "of "
    "memory, 74 I/O, 75 stopped by a signal with a checkpoint: the same command goes on.";

/// Everything that the command line may hold; `action` is what the chosen verb does.
struct CommandLine {
  std::string config_path, device = "cpu", manifest_of, directory;
  Helpers helpers;
  std::vector<std::string> overrides;
  std::int64_t threads = 0;
  Options options;
  InspectArguments inspect{.what = "omnijet-alpha"};
  ManifestArguments manifest;
  ModelArguments model;
  bool json = false;
  std::function<void()> action;
};

RunConfig resolve(const CommandLine& line) {
  const auto schema = run_schema();
  RunConfig config;
  if (const char* preset = preset_text(line.config_path)) {
    schema.read_text(preset, "preset " + line.config_path, config);
  } else if (!line.config_path.empty()) {
    TESSERA_CHECK_KIND(ErrorKind::missing, is_plain_file(line.config_path),
                       "-c {}: expected a TOML file or one of the presets {}, got neither; the "
                       "nearest preset is '{}'",
                       line.config_path, preset_names(), nearest_preset(line.config_path));
    std::error_code
        code;  // all defaults would be a wrong reading of a file that power loss emptied
    TESSERA_CHECK_KIND(ErrorKind::data, std::filesystem::file_size(line.config_path, code) > 0,
                       "{}: expected a configuration, got an empty file; a verb that is called "
                       "without it writes config.toml of a run again",
                       line.config_path);
    schema.read_file(line.config_path, config);
  }
  for (const std::string& text : line.overrides) {
    schema.apply(text, config);
  }
  if (line.threads > 0) {
    config.run.threads = line.threads;
  }
  if (config.run.threads > 0) {
    set_num_threads(static_cast<int>(config.run.threads));
  }
  return config;
}

// What the rest of the verb multiplies at.
PrecisionScope scope_of(const std::string& text, Device device) {
  const Precision precision = parse_precision(text);
  check_precision(precision, device);
  return PrecisionScope(precision);
}

using RunVerb = void (*)(const RunConfig&, const Options&);

/// `tables`: of the configuration, those that the verb reads.
CLI::App* add_run_verb(CLI::App& app, CommandLine& line, const std::string& verb, const char* help,
                       std::vector<std::string> tables, RunVerb function) {
  tables.insert(tables.begin(), {"run.", "data."});
  CLI::App* sub = app.add_subcommand(verb, help);
  Options& o = line.options;
  sub->add_option("-c,--config", line.config_path,
                  "TOML file of the run, or a preset: " + preset_names());
  sub->add_option("overrides", line.overrides, "key=value, later ones win");
  sub->add_option("--threads", line.threads, "The same as run.threads=N");
  sub->add_option("--device", line.device, "Where the verb computes: a device that doctor lists");
  sub->add_option("--resume", o.resume, "auto: go on from what the run directory holds; never")
      ->check(CLI::IsMember({"auto", "never"}));
  sub->add_flag("--dry-run", o.dry_run,
                "Print the configuration, parameters, memory and step time; write nothing");
  sub->add_flag("--quiet", o.quiet, "No progress");
  sub->footer(
      "Configuration keys of this verb (override with key=value; a file may hold those of every "
      "verb):\n" +
      help_of(tables) + "\n" + kExitCodes);
  sub->callback([&line, verb, function] {
    line.action = [&line, verb, function] {
      const RunConfig config = resolve(line);
      line.options.device = parse_device(line.device);
      const PrecisionScope products = scope_of(config.run.precision, line.options.device);
      if (line.options.dry_run) {
        dry_run(config, verb);
      } else {
        function(config, line.options);
      }
    };
  });
  return sub;
}

void add_training_verbs(CLI::App& app, CommandLine& line) {
  add_run_verb(app, line, "train-tokenizer", "Train the particle tokenizer on unlabelled jets",
               {"tokenizer."}, train_tokenizer_verb);
  add_run_verb(app, line, "pretrain", "Pre-train the backbone on unlabelled jets",
               {"tokenizer.codes", "backbone.", "pretrain."}, pretrain_verb);
  CLI::App* import =
      add_run_verb(app, line, "import",
                   "Take models from published checkpoints of OmniJet-alpha and of weaver's ParT",
                   {"tokenizer.", "backbone."}, import_verb);
  ImportArguments& files = line.options.import;
  import->add_option("--tokenizer", files.tokenizer, ".ckpt of PyTorch, or .safetensors");
  import->add_option("--backbone", files.backbone, "The same, with its next-token head");
  import->add_option("--classifier", files.classifier,
                     "The same, fine-tuned, with the head by sum or class attention; becomes "
                     "RUN/finetune/tag__omnijet__imported/model and needs the run's tokenizer");
  import->add_option("--part", files.part,
                     "Weaver's Particle Transformer for JetClass, 13 features; becomes "
                     "RUN/finetune/tag__part__imported/model");
  import->add_option("--weaver", files.weaver,
                     "Version of weaver-core that trained --part, such as 0.4: before 0.5 the "
                     "channels behind its attention had another order");
  import->add_option("--classes", files.classes,
                     "Class names A,B,... in the order of the checkpoint's outputs; of ten outputs "
                     "JetClass's by default")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_helper_options(*import, files.helpers, "Interpreter that reads a .ckpt; no library needed");
  add_run_verb(app, line, "generate", "Draw jets from the pre-trained model and compare them",
               {"backbone.kind", "generate."}, generate_verb);
  add_run_verb(
      app, line, "finetune",
      "Fine-tune to every task, next to its controls; writes table.csv and differences.csv",
      {"backbone.", "finetune."}, finetune_verb)
      ->add_option("--from", line.options.from, "Run directory with the pre-trained backbone");
}

// One value at a time, else the option would take the arguments behind it.
CLI::Option* add_list(CLI::App& verb, const char* name, std::vector<std::string>& list,
                      const std::string& help) {
  return verb.add_option(name, list, help + "; repeated, or with commas")
      ->delimiter(',')
      ->allow_extra_args(false);
}

CLI::App* add_model_verb(CLI::App& app, CommandLine& line, const char* verb, const char* help,
                         void (*function)(const ModelArguments&)) {
  CLI::App* sub = app.add_subcommand(verb, help);
  ModelArguments& m = line.model;
  sub->add_option("model", m.model, "Directory of a fine-tuned model, RUN/finetune/NAME/model")
      ->required();
  sub->add_option("data", m.data, "Dataset directory, or a lone native file")->required();
  add_list(*sub, "--split", m.splits, "train, val or test (the default) of a directory");
  sub->add_option("-o,--output", m.output, "File or device to write; - is standard output");
  sub->add_flag("--json", m.json, "One JSON object");
  sub->add_option("--precision", m.precision,
                  "Of matrix products: f32, or bf16 where doctor has it")
      ->check(CLI::IsMember({"f32", "bf16"}));
  sub->add_option("--device", line.device, "Where the model computes: a device that doctor lists");
  sub->footer(kExitCodes);
  sub->callback([&line, function] {
    line.action = [&line, function] {
      line.model.device = parse_device(line.device);
      const PrecisionScope products = scope_of(line.model.precision, line.model.device);
      function(line.model);
    };
  });
  return sub;
}

void add_evaluate(CLI::App& app, CommandLine& line) {
  CLI::App* sub = add_model_verb(
      app, line, "evaluate", "Metrics of a fine-tuned model, with bootstrap errors", evaluate_verb);
  sub->add_option("--against", line.model.against,
                  "Another model: differences on the same jets, with 68 % and 95 % intervals");
  sub->add_option("--seed", line.model.seed, "Of the bootstrap");
  sub->add_option("--weights", line.model.weights, "The jets' weights: use or ignore")
      ->check(CLI::IsMember({"use", "ignore"}));
}

void add_predict(CLI::App& app, CommandLine& line) {
  CLI::App* sub = add_model_verb(
      app, line, "predict",
      "Answers of a fine-tuned model to every jet: CSV, JSON, or by the name of --output Parquet "
      "(.parquet) or ROOT (.root); the data need no labels",
      predict_verb);
  add_list(*sub, "--observers", line.model.observers,
           "Columns of the data to copy beside the answers, such as jet/sdmass");
  sub->add_flag("--ignore-labels", line.model.ignore_labels,
                "Do not read class labels: for data of classes that the model does not have");
  add_helper_options(*sub, line.model.helpers,
                     "Interpreter that has pyarrow and, for ROOT, uproot and awkward");
}

void add_inspection_verbs(CLI::App& app, CommandLine& line) {
  CLI::App* inspect = app.add_subcommand(
      "inspect", "Parameter counts of a preset; what a model or dataset directory holds");
  inspect->add_option("what,--preset", line.inspect.what, preset_names() + ", or a directory");
  inspect->add_option("--write-manifest", line.manifest_of,
                      "Hash the native files of a folder and write its manifest.json");
  inspect->add_option("--split", line.manifest.splits,
                      "train=FILE, val=FILE or test=FILE, repeated, * allowed: for the manifest; "
                      "else folder, attribute 'split', whole words of the name, or the chunks of "
                      "simulate tell the split");
  inspect->add_flag("--allow-equal-jets", line.manifest.allow_equal_jets,
                    "Write the manifest though a jet is there twice under different ids");
  inspect->add_flag("--json", line.inspect.json, "One JSON object on stdout");
  inspect->callback([&line] {
    line.action = [&line] {
      line.manifest_of.empty() ? inspect_verb(line.inspect)
                               : write_manifest_verb(line.manifest_of, line.manifest);
    };
  });
  CLI::App* doctor = app.add_subcommand("doctor", "What this build and this machine can run");
  doctor->add_flag("--json", line.json, "One JSON object on stdout");
  doctor->callback([&line] { line.action = [&line] { doctor_verb(line.json); }; });
  CLI::App* verify = app.add_subcommand("verify", "Check every hash below a directory");
  verify->add_option("directory", line.directory, "Run, model or dataset directory")->required();
  verify->callback([&line] { line.action = [&line] { verify_verb(line.directory); }; });
  CLI::App* report = app.add_subcommand("report", "Draw RUN/report.html");
  report->add_option("run", line.directory, "Run directory")->required();
  add_helper_options(*report, line.helpers, "Interpreter that has matplotlib and mplhep");
  report->callback(
      [&line] { line.action = [&line] { report_verb(line.directory, line.helpers); }; });
}

// A message may quote a file's own words, which may be as long as the file.
std::string clipped(const std::string& message) {
  constexpr std::size_t kMost = 2000, kEnd = 500;
  return message.size() <= kMost ? message
                                 : message.substr(0, kMost - kEnd) + " ... " +
                                       message.substr(message.size() - kEnd);
}

int guarded(const std::function<void()>& body) {
  try {
    body();
    return 0;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::requeue) {  // stopped as it was asked to: no error
      print_err("tessera: {}\n", one_line(e.message()));
    } else if (!e.message().empty()) {  // else a child said it
      print_err("tessera: {} error: {}\n", name(e.kind()), clipped(one_line(e.message())));
    }
    return exit_code(e.kind());
  } catch (const std::bad_alloc&) {
    print_err("tessera: resource error: out of memory\n");
    return exit_code(ErrorKind::resource);
  } catch (const std::filesystem::filesystem_error& e) {
    print_err("tessera: {} error: {}\n", name(ErrorKind::io), one_line(e.what()));
    return exit_code(ErrorKind::io);
  } catch (const std::exception& e) {
    print_err("tessera: internal error: {}\n", one_line(e.what()));
    return exit_code(ErrorKind::internal);
  }
}

// Help, version, or what is wrong with the command line; returns the exit code.
int say(const CLI::App& app, const CLI::ParseError& what) {
  std::ostringstream out, err;
  const bool asked_for = app.exit(what, out, err) == 0;
  write_err(err.str());
  const int code = guarded([&] { write_out(out.str()); });
  return asked_for ? code : exit_code(ErrorKind::usage);
}

// CLI11 would only say that a subcommand is required.
void check_verb(const CLI::App& app, std::string_view typed) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    verbs.push_back(verb->get_name());
  }
  TESSERA_CHECK(typed.starts_with('-') || std::ranges::find(verbs, typed) != verbs.end(),
                "expected a verb, got '{}'; the nearest one is '{}'; --help lists them", typed,
                nearest_name(typed, verbs));
}

int run(int argc, char** argv) {
  CLI::App app("Tessera: a foundation model for collider jets, from one engine.", "tessera");
  app.require_subcommand(1);
  app.set_version_flag("--version", TESSERA_VERSION " (" TESSERA_REVISION ")");
  CommandLine line;
  add_training_verbs(app, line);
  add_evaluate(app, line);
  add_predict(app, line);
  add_data_verbs(app, line.action);
  add_inspection_verbs(app, line);
  if (argc < 2) {
    print_err("{}", app.help());
    return exit_code(ErrorKind::usage);
  }
  if (const int code = guarded([&] { check_verb(app, argv[1]); }); code != 0) {
    return code;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return say(app, e);
  }
  return guarded([&] {
    (void)simd_level();  // a wrong TESSERA_SIMD is refused by every verb
    line.action();
  });
}

}  // namespace
}  // namespace tessera::apps

int main(int argc, char** argv) {
  tessera::apps::guard_standard_streams();
  return tessera::apps::close_standard_output(tessera::apps::run(argc, argv));
}
