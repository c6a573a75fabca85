#include "apps/stages.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/output.h"
#include "train/file_io.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

volatile std::sig_atomic_t g_stop = 0;

void on_signal(int signal) {
  g_stop = 1;
  std::signal(signal, SIG_DFL);  // the second one ends the process
}

// The first line of `b` that `a` does not hold at the same place, or of `a` beyond the end of `b`.
std::string first_difference(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string x, y;
  while (std::getline(right, y)) {
    if (!std::getline(left, x) || x != y) {
      return fmt::format("'{}', now '{}'", x, y);
    }
  }
  std::getline(left, x);
  return fmt::format("'{}', now without it", x);
}

void write_if_changed(const std::string& path, const std::string& text) {
  if (!fs::exists(path) || read_text(path) != text) {
    write_text(path, text);
  }
}

std::string value_text(const Metrics& values) {
  std::string text;
  for (const Metric& m : values) {
    text += m.name == "lr" || m.name == "gradient_norm"
                ? ""
                : fmt::format(" {} {:.4f}", m.name, m.value);
  }
  return text;
}

}  // namespace

bool stop_requested() { return g_stop != 0; }

void catch_signals() {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    std::signal(signal, on_signal);
  }
}

Stage::Stage(const RunConfig& config, const Options& options, const std::string& name,
             const std::string& settings)
    : directory_(config.run.directory + "/" + name),
      checkpoint_every_(config.run.checkpoint_every),
      stop_on_failed_save_(config.run.on_save_fail == "stop"),
      most_skipped_(config.run.on_non_finite == "skip" ? config.run.most_skipped : 0) {
  TESSERA_CHECK(stop_on_failed_save_ || config.run.on_save_fail == "warn",
                "run.on_save_fail: expected stop or warn, got '{}'", config.run.on_save_fail);
  const std::string path = directory_ + "/settings.txt";
  if (!fs::exists(path)) {
    write_text(path, settings);
  } else {
    TESSERA_CHECK(options.resume != "never",
                  "{}: not empty, and --resume never was asked; choose another run.directory",
                  directory_);
    const std::string before = read_text(path);
    TESSERA_CHECK(
        before == settings,
        "{}: made with other settings: {}; choose another run.directory, or delete this one",
        directory_, first_difference(before, settings));
  }
  write_if_changed(config.run.directory + "/config.toml", run_schema().dump(config));
}

bool Stage::done() const { return has_model(model()); }

RunFiles Stage::files(const std::string& card) const {
  return {.directory = directory_,
          .checkpoint_every = checkpoint_every_,
          .config_json = card,
          .stop = stop_requested,
          .warn = [](const std::string& text) { print_err("WARNING: {}\n", text); },
          .stop_on_failed_save = stop_on_failed_save_,
          .most_skipped = most_skipped_};
}

void Stage::finish(const std::string& card, const Module& model) const {
  save_model(this->model(), card, model);
  std::vector<fs::path> checkpoints;
  for (const auto& entry : fs::recursive_directory_iterator(directory_)) {
    if (entry.path().filename() == "checkpoints") {
      checkpoints.push_back(entry.path());
    }
  }
  for (const fs::path& path : checkpoints) {
    fs::remove_all(path);
  }
}

void write_text(const std::string& path, const std::string& text) {
  const fs::path target(path), temporary(path + ".tmp");
  fs::create_directories(target.parent_path());
  std::ofstream out(temporary, std::ios::binary);
  out << text;
  out.close();
  TESSERA_CHECK_KIND(ErrorKind::io, out.good(), "{}: write failed", path);
  fs::rename(temporary, target);
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
