// 200 kills over all verbs that write: by SIGKILL after a random time, and by a power failure
// before a random file operation, after which the disk forgets what was not fsynced. Each time the
// same command then completes, and its files have the bits of an undisturbed run.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "support/power_loss.h"
#include "support/run_directory.h"
#include "train/hash.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// How often a verb is killed, on what it works, and what it must leave.
struct Victim {
  const char* name;
  std::string arguments;              ///< "@" stands for the folder of the attempt
  const char* before;                 ///< the template that an attempt begins with
  std::vector<std::string> products;  ///< relative to the attempt
  int kills;
  const char* template_of = "";  ///< the template that its undisturbed run makes
  bool repeats = true;           ///< false: it refuses to overwrite its result
};

constexpr int kAllKills = 200;

std::string with_folder(std::string text, const fs::path& folder) {
  for (std::size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at)) {
    text.replace(at, 1, folder.string());
  }
  return text;
}

std::string sizes(const SmallRun& small) {
  const std::string all = small.arguments("");
  std::string rest = all.substr(all.find(" --quiet"));
  const std::string own = "run.directory=" + small.run();
  return rest.replace(rest.find(own), own.size(), "run.directory=@/run");
}

constexpr std::string_view kPythonVerbs[] = {"convert", "report"};
constexpr int kPythonKills = 10;

// Whether the interpreter has what convert and report import.
bool python_is_complete() {
  static const bool complete =
      std::system(TESSERA_PYTHON " -c 'import awkward, h5py, matplotlib, uproot' 2>/dev/null") == 0;
  return complete;
}

std::vector<Victim> victims(const SmallRun& small) {
  const std::string s = sizes(small) + " finetune.tasks=tag ";
  const std::string model =
      (small.dir().path() / "whole/finetune/run/finetune/tag__tessera__frozen__seed0/model")
          .string();
  const std::string on = " " + model + " " + small.jets() + " --split val -o @/";
  const std::string study = "run/eval/tag__tessera__frozen__seed0";
  std::vector<Victim> all{
      {"train-tokenizer",
       "train-tokenizer" + s,
       "",
       {"run/tokenizer/model", "run/eval/tokenizer.json", "run/tokenizer/metrics.jsonl"},
       30,
       "tokenizer"},
      {"pretrain",
       "pretrain" + s,
       "tokenizer",
       {"run/pretrain/model", "run/eval/pretrain.json", "run/pretrain/metrics.jsonl"},
       30,
       "pretrain"},
      {"generate",
       "generate" + s,
       "pretrain",
       {"run/generate/jets.h5", "run/eval/generation.json"},
       24},
      {"finetune",
       "finetune" + s,
       "pretrain",
       {"run/table.csv", "run/differences.csv", study + ".json", study + ".safetensors",
        "run/finetune/tag__tessera__frozen__seed0/model"},
       34},
      {"import",
       "import -c omnijet-alpha --quiet run.directory=@/run tokenizer.width=16 tokenizer.blocks=2 "
       "tokenizer.heads=4 tokenizer.codes=64 --tokenizer " TESSERA_SOURCE_DIR
       "/tests/golden/omnijet_tokenizer.ckpt",
       "",
       {"run/tokenizer/model"},
       14},
      {"simulate",
       "simulate --quiet --overwrite --file " TESSERA_SOURCE_DIR
       "/tests/fixtures/ee_tautau.particles --source 21:0:20 -o "
       "sim.h5",
       "",
       {"sim.h5"},
       16},
      {"inspect", "inspect --write-manifest @/data", "data", {"data/manifest.json"}, 14},
      {"evaluate", "evaluate" + on + "e.json", "", {"e.json"}, 12},
      {"predict", "predict" + on + "p.csv", "", {"p.csv"}, 16},
      {"convert",
       "convert --dataset jetclass --id-base 1000 --python " TESSERA_PYTHON " " TESSERA_SOURCE_DIR
       "/tests/fixtures/jetclass.root @/c.h5",
       "",
       {"c.h5"},
       6,
       "",
       false},
      {"report", "report @/run --python " TESSERA_PYTHON, "pretrain", {"run/report.html"}, 4}};
  std::erase_if(all, [](const Victim& v) {
    return std::ranges::find(kPythonVerbs, v.name) != std::end(kPythonVerbs) &&
           !python_is_complete();
  });
  return all;
}

/// The bits of a file, or of all files below a folder.
std::string bits_of(const fs::path& path) {
  if (!fs::is_directory(path)) {
    return fs::exists(path) ? hash_file(path) : "absent";
  }
  std::vector<std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) {
      all.push_back(entry.path().filename().string() + " " + hash_file(entry.path()));
    }
  }
  std::ranges::sort(all);
  return fmt::format("{}", fmt::join(all, "\n"));
}

/// One run of a verb in a process group of its own; `before` is shell code, `kill_after` in
/// microseconds ends the group, 0 does not.
int run_group(const std::string& command, const fs::path& log, std::int64_t kill_after) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(file, 1);
    ::dup2(file, 2);
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  if (kill_after > 0) {
    ::usleep(static_cast<useconds_t>(kill_after));
    ::kill(-child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class Kills {
 public:
  explicit Kills(const SmallRun& small) : small_(small), root_(small.dir().path()) {}

  /// Runs everything once, undisturbed; false if a verb fails.
  [[nodiscard]] bool prepare() {
    fs::create_directories(root_ / "before/data/data");
    for (const auto& entry : fs::directory_iterator(small_.jets())) {
      if (entry.path().extension() == ".h5") {
        fs::copy(entry.path(), root_ / "before/data/data");
      }
    }
    for (const Victim& v : victims(small_)) {
      const fs::path place = root_ / "whole" / v.name;
      begin_in(place, v);
      const auto start = Clock::now();
      const int code = run_group(preload(root_, place, 0) + command_of(v, place), root_ / "log", 0);
      if (code != 0) {
        ADD_FAILURE() << v.name << ": " << code << ": " << read_text(root_ / "log");
        return false;
      }
      whole_[v.name] = {
          std::chrono::duration<double>(Clock::now() - start).count(), counted_calls(), {}};
      for (const std::string& product : v.products) {
        whole_[v.name].bits.push_back(bits_of(place / product));
      }
      if (v.template_of[0] != 0) {
        fs::copy(place, root_ / "before" / v.template_of, fs::copy_options::recursive);
      }
    }
    return true;
  }

  /// Kills a verb once and lets it complete. What went wrong, or nothing.
  [[nodiscard]] std::string kill_once(const Victim& v, int number, const fs::path& place) const {
    fs::remove_all(place);
    fs::create_directories(place / "saved");
    const fs::path work = place / "work";
    begin_in(work, v);
    const std::string how = disturb(v, number, place);
    const bool ended_before = !v.repeats && fs::exists(work / v.products[0]);
    const int code = ended_before ? 0 : run_group(command_of(v, work), place / "log", 0);
    std::string wrong = code != 0 ? fmt::format("exit code {}", code) : "";
    for (std::size_t i = 0; i < v.products.size(); ++i) {
      if (bits_of(work / v.products[i]) != whole_.at(v.name).bits[i]) {
        wrong += fmt::format(" other bits in {}", v.products[i]);
      }
    }
    for (const auto& entry : fs::recursive_directory_iterator(work)) {
      if (entry.path().filename().string().find(".tmp.") != std::string::npos) {
        wrong += fmt::format(" left {}", entry.path().filename().string());
      }
    }
    return wrong.empty() ? ""
                         : fmt::format("{} {}: {}: {}: {}", v.name, number, how, wrong,
                                       read_text(place / "log"));
  }

 private:
  struct Whole {
    double seconds;
    std::uint64_t calls;
    std::vector<std::string> bits;
  };

  void begin_in(const fs::path& folder, const Victim& v) const {
    fs::create_directories(folder);
    if (v.before[0] != 0) {
      fs::copy(root_ / "before" / v.before, folder, fs::copy_options::recursive);
    }
  }

  // One kill in three comes after a time, the others at a file operation.
  [[nodiscard]] std::string disturb(const Victim& v, int number, const fs::path& place) const {
    Rng rng = Rng(2026).fork(v.name).fork(static_cast<std::uint64_t>(number));
    const Whole& whole = whole_.at(v.name);
    const std::string command = command_of(v, place / "work");
    if (number % 3 == 0) {
      const auto after = 1 + rng.below(static_cast<std::uint64_t>(1e6 * whole.seconds));
      run_group(command, place / "log", static_cast<std::int64_t>(after));
      return fmt::format("killed after {} us", after);
    }
    const std::uint64_t at = 1 + rng.below(whole.calls);
    run_group(preload(place, place / "work", at) + command, place / "log", 0);
    PowerLoss(place / "ops", place / "saved", rng).happen();
    return fmt::format("no power at file operation {} of {}", at, whole.calls);
  }

  // In the folder, so that what a file says of its own making holds no path of it.
  static std::string command_of(const Victim& v, const fs::path& work) {
    return "cd " + work.string() + " && exec " TESSERA_EXECUTABLE " " +
           with_folder(v.arguments, work);
  }

  static std::string preload(const fs::path& place, const fs::path& work, std::uint64_t at) {
    std::ofstream(place / "counter", std::ios::binary) << std::string(8, '\0');
    fs::create_directories(place / "saved");
    return fmt::format(
        "export LD_PRELOAD={0} POWER_DIRECTORY={1} POWER_COUNTER={2}/counter POWER_LOG={2}/ops "
        "POWER_SAVED={2}/saved POWER_AT={3}; ",
        TESSERA_POWER_LOSS, work.string(), place.string(), at);
  }

  [[nodiscard]] std::uint64_t counted_calls() const {
    std::uint64_t calls = 0;
    std::ifstream(root_ / "counter", std::ios::binary).read(reinterpret_cast<char*>(&calls), 8);
    return calls;
  }

  const SmallRun& small_;
  fs::path root_;
  std::map<std::string, Whole> whole_;
};

TEST(TwoHundredKills, TheSameCommandCompletesWithTheBitsOfAnUndisturbedRun) {
  const SmallRun small;
  Kills kills(small);
  ASSERT_TRUE(kills.prepare());
  struct Attempt {
    Victim victim;
    int number;
  };
  std::vector<Attempt> attempts;
  for (const Victim& v : victims(small)) {
    for (int i = 0; i < v.kills; ++i) {
      attempts.push_back({v, i});
    }
  }
  ASSERT_EQ(std::ssize(attempts), python_is_complete() ? kAllKills : kAllKills - kPythonKills);
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> workers;
  std::vector<std::string> wrong(attempts.size());
  for (int w = 0; w < 2; ++w) {
    workers.emplace_back([&, w] {
      const fs::path place = small.dir().path() / ("attempt" + std::to_string(w));
      for (std::size_t i = next++; i < attempts.size(); i = next++) {
        try {
          wrong[i] = kills.kill_once(attempts[i].victim, attempts[i].number, place);
        } catch (const std::exception& e) {
          wrong[i] = e.what();
        }
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  for (const std::string& text : wrong) {
    EXPECT_EQ(text, "");
  }
}

}  // namespace
}  // namespace tessera
