#include "apps/stages.h"

#include <unistd.h>

#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/output.h"
#include "apps/run_record.h"
#include "apps/signals.h"
#include "apps/stage_record.h"
#include "train/checkpoint.h"
#include "train/file_io.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

std::string value_text(const Metrics& values) {
  std::string text;
  for (const Metric& m : values) {
    text += m.name == "lr" || m.name == "gradient_norm"
                ? ""
                : fmt::format(" {} {:.4f}", m.name, m.value);
  }
  return text;
}

std::string now_utc() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

// Those of all phases; absent is no error.
void drop_checkpoints(const fs::path& directory) {
  std::error_code code;
  std::vector<fs::path> checkpoints;
  for (fs::recursive_directory_iterator entry(directory, code), end; !code && entry != end;
       entry.increment(code)) {
    if (entry->path().filename() == "checkpoints") {
      checkpoints.push_back(entry->path());
    }
  }
  for (const fs::path& path : checkpoints) {
    FileIo().remove_all(path);
  }
}

}  // namespace

Stage::Stage(const RunConfig& config, const Options& options, const std::string& name,
             const std::string& settings, DataUse use, std::vector<std::string> products)
    : config_(config),
      name_(name),
      directory_(config.run.directory + "/" + name),
      settings_(settings + data_settings(config, use)),
      products_(std::move(products)),
      has_model_(std::ranges::find(products_, model_product(name)) != products_.end()) {
  TESSERA_CHECK(config.run.on_save_fail == "stop" || config.run.on_save_fail == "warn",
                "run.on_save_fail: expected stop or warn, got '{}'", config.run.on_save_fail);
  std::error_code code;
  TESSERA_CHECK(options.resume != "never" || !fs::exists(directory_, code),
                "{}: not empty, and --resume never was asked; choose another run.directory",
                directory_);
  FileIo().make_directory(directory_);
  const FileLock lock(config.run.directory + "/run.lock", IfLocked::wait);
  for (const std::string& below : {std::string(), std::string("/eval"), "/" + name}) {
    remove_leftovers(config.run.directory + below);
  }
  hold_settings(config, name, settings_);
  write_if_changed(config.run.directory + "/config.toml", run_schema().dump(config));
  if (has_model_) {
    stop_at_once();
  }
}

bool Stage::done() const {
  const std::string& run = config_.run.directory;
  if (has_model_ && !trained()) {
    return false;
  }
  const auto record = read_record(run, name_);
  if (!record) {
    return adopt();
  }
  bool whole = record->settings == settings_;
  for (const std::string& product : products_) {
    whole =
        whole && std::ranges::find(record->files, product, &Product::path) != record->files.end();
  }
  for (const Product& product : record->files) {
    if (!unchanged(run, product)) {
      warn_damaged(run + "/" + product.path);
      whole = false;
    }
  }
  if (whole) {
    update_run_record(config_);
    drop_checkpoints(directory_);
  }
  return whole;
}

// A stage without done.json that an older version finished, which run.json then tells. A stage that
// was stopped between its last product and its record is none: its products are made again from its
// model, and its record gets the hash of the weights.
bool Stage::adopt() const {
  const std::string& run = config_.run.directory;
  const auto stages = read_run_record(run).value("stages", nlohmann::json::object());
  const std::string entry_name = fs::path(name_).filename();
  bool whole = stages.empty() || stages.contains(entry_name);  // empty: run.json is lost
  for (const std::string& product : products_) {
    std::error_code code;
    const bool good = readable(run, product);
    if (!good && fs::exists(fs::path(run) / product, code)) {
      warn_damaged(run + "/" + product);
    }
    whole = whole && good;
  }
  if (!whole) {
    return false;
  }
  const auto entry = stages.value(entry_name, nlohmann::json::object());
  record({entry.value("seconds", 0.0), entry.value("weights", "")},
         entry.value("ended", now_utc()));
  return true;
}

bool Stage::trained() const {
  if (!has_model(model())) {
    return false;
  }
  try {
    verify_checkpoint(model());
    return true;
  } catch (const Error& e) {
    fs::path aside = model() + ".damaged";
    std::error_code code;
    for (int copy = 1; fs::exists(aside, code); ++copy) {
      aside = fmt::format("{}.damaged.{}", model(), copy);
    }
    print_err("WARNING: {}; set aside as {}, and made again\n", e.message(), aside.string());
    FileIo().rename(model(), aside);
    return false;
  }
}

RunFiles Stage::files(const std::string& card) const {
  stop_by_checkpoint();
  return {.directory = directory_,
          .checkpoint_every = config_.run.checkpoint_every,
          .config_json = card,
          .settings = settings_,
          .stop = stop_requested,
          .warn = [](const std::string& text) { print_err("WARNING: {}\n", text); },
          .stop_on_failed_save = config_.run.on_save_fail == "stop",
          .most_skipped = config_.run.on_non_finite == "skip" ? config_.run.most_skipped : 0};
}

void Stage::keep(const std::string& card, const Module& model) const {
  save_model(this->model(), card, model);
  stop_at_once();
  TESSERA_CHECK_KIND(ErrorKind::requeue, !stop_requested(),
                     "{}: stopped; the model is stored, the same command goes on", name_);
}

void Stage::record(const StageResult& result, const std::string& ended) const {
  StageRecord r{.stage = name_,
                .settings = settings_,
                .seconds = result.seconds,
                .ended = ended,
                .weights = result.weights,
                .files = {}};
  for (const std::string& product : products_) {
    r.files.push_back(describe_product(config_.run.directory, product));
  }
  write_record(config_.run.directory, r);
  update_run_record(config_);
  drop_checkpoints(directory_);
}

void Stage::finish(const StageResult& result) const { record(result, now_utc()); }

void write_if_changed(const std::string& path, const std::string& text) {
  std::error_code code;
  if (!fs::exists(path, code) || read_text(path) != text) {
    write_text(path, text);
  }
}

void warn_damaged(const std::string& path) {
  print_err("WARNING: {}: damaged; it is made again from what is whole\n", path);
}

void write_text(const std::string& path, const std::string& text) {
  const FileIo io;
  io.make_directory(fs::path(path).parent_path());
  io.replace_text(path, text);
}

Observer console_observer(const Options& options) {
  using Clock = std::chrono::steady_clock;
  if (options.quiet) {
    return {};
  }
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto pause = std::chrono::milliseconds(terminal ? 200 : 10'000);
  auto last = std::make_shared<Clock::time_point>();
  return [=](const Progress& p) {
    const auto now = Clock::now();
    const bool end = p.step == p.total_steps;
    if (!end && now - *last < pause) {
      return;
    }
    *last = now;
    print_err("{}{:28} {:6}/{}{}  {:.0f} jets/s  ETA {:.0f} s{}", terminal ? "\r\033[K" : "", p.job,
              p.step, p.total_steps, value_text(p.values), p.jets_per_second, p.eta_seconds,
              terminal && !end ? "" : "\n");
    std::fflush(stderr);
  };
}

}  // namespace tessera::apps
