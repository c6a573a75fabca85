// tessera VERB: dispatch, help, and the one place where an error becomes a line and an exit code.
#include <CLI/CLI.hpp>

#include <cstdio>
#include <functional>
#include <new>

#include "apps/command.h"
#include "apps/data_verbs.h"
#include "core/parallel.h"

namespace {

using tessera::apps::Options;
using tessera::apps::RunConfig;

struct Arguments {
  std::string config_path, preset = "omnijet-alpha";
  std::vector<std::string> overrides;
  Options options;
};

std::string keys_help() {
  return "Configuration keys (override with key=value):\n" + tessera::apps::run_schema().help() +
         "\nExit codes: 0 done, 64 usage, 65 bad data, 66 input missing, 70 numeric or internal, "
         "71 out of memory, "
         "74 I/O.";
}

CLI::App* add_run_verb(CLI::App& app, Arguments& args, const char* verb, const char* help) {
  CLI::App* sub = app.add_subcommand(verb, help);
  sub->add_option("-c,--config", args.config_path, "TOML file of the run");
  sub->add_option("overrides", args.overrides, "key=value, later ones win");
  sub->add_flag("--dry-run", args.options.dry_run,
                "Print the resolved configuration, write nothing");
  sub->add_flag("--quiet", args.options.quiet, "No progress");
  sub->footer(keys_help());
  return sub;
}

RunConfig resolve(const Arguments& args) {
  const auto schema = tessera::apps::run_schema();
  RunConfig config;
  if (!args.config_path.empty()) {
    schema.read_file(args.config_path, config);
  }
  for (const std::string& text : args.overrides) {
    schema.apply(text, config);
  }
  if (config.threads > 0) {
    tessera::set_num_threads(static_cast<int>(config.threads));
  }
  return config;
}

int guarded(const std::function<void()>& body) {
  try {
    body();
    return 0;
  } catch (const tessera::Error& e) {
    fmt::print(stderr, "tessera: {} error: {}\n", name(e.kind()), e.message());
    return exit_code(e.kind());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "tessera: resource error: out of memory\n");
    return 71;
  } catch (const std::exception& e) {
    fmt::print(stderr, "tessera: internal error: {}\n", e.what());
    return 70;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tessera: a foundation model for collider jets, from one engine.", "tessera");
  app.require_subcommand(1);
  Arguments args;
  std::function<void()> action;
  const auto run_verb = [&](const char* verb, const char* help, auto f) {
    add_run_verb(app, args, verb, help)->callback([&args, &action, f] {
      action = [&args, f] { f(resolve(args), args.options); };
    });
  };
  run_verb("train-tokenizer", "Train the particle tokenizer on unlabelled jets",
           tessera::apps::train_tokenizer_verb);
  run_verb("pretrain", "Pre-train the backbone on unlabelled jets", tessera::apps::pretrain_verb);
  run_verb("finetune", "Fine-tune to every task, next to its controls; writes table.csv",
           tessera::apps::finetune_verb);
  tessera::apps::add_data_verbs(app, action);
  std::string manifest_of;
  CLI::App* inspect =
      app.add_subcommand("inspect", "Parameter counts of a preset; manifests of data");
  inspect->add_option("--write-manifest", manifest_of,
                      "Hash the native files of a folder and write its manifest.json");
  inspect->add_option("--preset", args.preset, "omnijet-alpha, tiny or tessera-s");
  inspect->add_flag("--json", args.options.json, "One JSON object on stdout");
  inspect->callback([&] {
    action = [&] {
      if (!manifest_of.empty()) {
        tessera::apps::write_manifest_verb(manifest_of);
      } else {
        tessera::apps::inspect_verb(args.preset, args.options);
      }
    };
  });
  app.add_subcommand("doctor", "What this build and this machine can run")->callback([&] {
    action = [&] { tessera::apps::doctor_verb(args.options); };
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 64;
  }
  return guarded(action);
}
