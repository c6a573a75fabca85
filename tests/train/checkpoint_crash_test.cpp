// A save that dies or fails at any of its operations, on a disk that forgets what was not fsynced:
// the next start finds exactly the previous or the new checkpoint.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

// Three models: small, of many files, of tensors beyond a page.
Checkpoint content_of(int model, int step) {
  const float value = static_cast<float>(step);
  Checkpoint c;
  c.model["w"] = Tensor::full({4, 3}, value);
  c.state = {{"step", std::to_string(step)}, {"rng", "0x17"}};
  if (model > 0) {
    c.config_json = "{\"d\": 8}\n";
    c.optimizer["m"] = Tensor::full({15}, value + 1);
    c.ema["w"] = Tensor::full({4, 3}, value / 2);
    c.preprocess_json = "{\"input_names\": []}\n";
  }
  if (model > 1) {
    c.model["large"] = Tensor::full({50, 64}, -value);
    c.optimizer["v"] = Tensor::full({3300}, value);
  }
  return c;
}

bool same(const TensorMap& x, const TensorMap& y) {
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& p, const auto& q) {
    return p.first == q.first && p.second.shape() == q.second.shape() &&
           p.second.template to_vector<float>() == q.second.template to_vector<float>();
  });
}

bool equal(const Checkpoint& a, const Checkpoint& b) {
  return a.config_json == b.config_json && a.state == b.state && same(a.model, b.model) &&
         same(a.optimizer, b.optimizer) && same(a.ema, b.ema) &&
         a.preprocess_json == b.preprocess_json;
}

struct Crash {};

// What power loss does to data that was written and not fsynced.
enum class Loss { none, torn_half, torn_512, torn_4096, gone, reordered };
constexpr Loss kLosses[] = {Loss::none,      Loss::torn_half, Loss::torn_512,
                            Loss::torn_4096, Loss::gone,      Loss::reordered};

/// Follows the operations of a save. At power loss unsynced content is dropped or torn, names that
/// came by creation or renaming are undone unless their directory was fsynced; "reordered" keeps a
/// random part of all that. Removals, the worst case, have always reached the disk.
class ForgetfulDisk {
 public:
  ForgetfulDisk(Loss loss, std::uint64_t seed) : loss_(loss), rng_(seed) {}

  void before(const IoCall& c) {
    if (c.kind == IoKind::create) {
      names_.push_back({.made = c.path, .from = {}, .old = {}});
    } else if (c.kind == IoKind::write) {
      unsynced_[c.path] = true;
    } else if (c.kind == IoKind::sync) {
      unsynced_.erase(c.path);
    } else if (c.kind == IoKind::rename) {
      rename(c.path, c.target);
    } else if (c.kind == IoKind::sync_directory) {
      std::erase_if(names_, [&](const Name& n) { return n.made.parent_path() == c.path; });
    }
  }

  void power_loss(const IoCall& at) {
    if (at.kind == IoKind::write && fs::exists(at.path)) {  // a part of this write got through
      std::ofstream(at.path, std::ios::app) << std::string(at.bytes - at.bytes / 3, '?');
      unsynced_[at.path] = true;
    }
    if (loss_ == Loss::none) {
      return;
    }
    for (const auto& [path, dirty] : unsynced_) {
      if (fs::exists(path) && lost()) {
        fs::resize_file(path, kept_bytes(fs::file_size(path)));
      }
    }
    for (auto n = names_.rbegin(); n != names_.rend(); ++n) {
      if ((loss_ == Loss::gone || loss_ == Loss::reordered) && lost()) {
        undo(*n);
      }
    }
  }

 private:
  struct Name {
    fs::path made, from;             // `from` is empty for a creation
    std::optional<std::string> old;  // content of the file that a rename replaced
  };

  void rename(const fs::path& from, const fs::path& to) {
    Name n{.made = to, .from = from, .old = {}};
    if (fs::is_regular_file(to)) {
      n.old = read_text(to);
    }
    names_.push_back(n);
    std::map<fs::path, bool> moved;  // dirty files go along
    for (const auto& [path, dirty] : unsynced_) {
      moved[path == from ? to : path.parent_path() == from ? to / path.filename() : path] = dirty;
    }
    unsynced_ = moved;
  }

  bool lost() { return loss_ != Loss::reordered || rng_.below(2) == 0; }

  std::uintmax_t kept_bytes(std::uintmax_t size) {
    switch (loss_) {
      case Loss::torn_half:
        return size / 2;
      case Loss::torn_512:
        return (size - std::min<std::uintmax_t>(size, 1)) / 512 * 512;
      case Loss::torn_4096:
        return (size - std::min<std::uintmax_t>(size, 1)) / 4096 * 4096;
      case Loss::reordered:
        return rng_.below(size + 1);
      default:
        return 0;
    }
  }

  static void undo(const Name& n) {
    if (!fs::exists(n.made)) {
      return;
    }
    if (n.from.empty()) {
      fs::remove(n.made);
      return;
    }
    fs::rename(n.made, n.from);
    if (n.old) {
      std::ofstream(n.made) << *n.old;
    }
  }

  Loss loss_;
  Rng rng_;
  std::map<fs::path, bool> unsynced_;
  std::vector<Name> names_;  // not yet durable, in order
};

// Saves step 2 and dies before the n-th operation. True if it came to the end.
bool save_and_die(const fs::path& run, int model, int n, Loss loss) {
  int call = 0;
  ForgetfulDisk disk(loss, static_cast<std::uint64_t>(n));
  FileIo io;
  io.before_call = [&](const IoCall& c) {
    if (call++ == n) {
      disk.power_loss(c);
      throw Crash{};
    }
    disk.before(c);
    return 0;
  };
  try {
    CheckpointStore store(run, {.keep_last = 1}, io);
    store.save(2, content_of(model, 2));
  } catch (const Crash&) {
    return false;
  }
  disk.power_loss({.kind = IoKind::sync, .path = {}, .target = {}});  // right after save() returned
  return true;
}

void expect_previous_or_new(const fs::path& run, int model, const std::string& where) {
  CheckpointStore store(run);
  const auto got = store.load_latest();
  ASSERT_TRUE(got.has_value()) << where;
  EXPECT_TRUE(got->skipped.empty()) << where << ": " << got->skipped.at(0);
  EXPECT_TRUE(got->step == 1 || got->step == 2) << where;
  EXPECT_TRUE(equal(got->content, content_of(model, static_cast<int>(got->step)))) << where;
  for (const auto& e : fs::directory_iterator(run / "checkpoints")) {
    EXPECT_EQ(e.path().filename().string().find(".tmp."), std::string::npos) << where << e.path();
  }
  store.save(3, content_of(model, 3));  // and the run goes on
  EXPECT_EQ(store.load_latest()->step, 3U) << where;
}

/// A run directory with step 1, as often as it is needed.
class FirstStep {
 public:
  explicit FirstStep(int model) { CheckpointStore(dir_.path()).save(1, content_of(model, 1)); }
  void copy_to(const fs::path& run) const {
    fs::copy(dir_.path(), run, fs::copy_options::recursive);
  }

 private:
  TempDir dir_{memory_directory()};
};

TEST(CheckpointCrash, BeforeAnyOperationLeavesThePreviousOrTheNewCheckpoint) {
  for (int model = 0; model < 3; ++model) {
    const FirstStep first(model);
    for (const Loss loss : kLosses) {
      int points = 0;
      for (bool finished = false; !finished; ++points) {
        ASSERT_LT(points, 200);
        const TempDir dir(memory_directory());
        const fs::path run = dir.path() / "run";
        first.copy_to(run);
        finished = save_and_die(run, model, points, loss);
        expect_previous_or_new(
            run, model,
            fmt::format("model {} loss {} point {}", model, static_cast<int>(loss), points));
      }
      EXPECT_GT(points, 20);
    }
  }
}

// The error of a save whose n-th operation fails with `code`; empty if there is none so many.
std::optional<Error> failing_save(CheckpointStore& store, int model) {
  try {
    store.save(2, content_of(model, 2));
    return std::nullopt;
  } catch (const Error& e) {
    return e;
  }
}

TEST(CheckpointCrash, AnyFailingOperationNamesFileBytesAndErrnoAndTheStoreGoesOn) {
  for (const int code : {ENOSPC, EIO, EDQUOT, EROFS}) {
    const FirstStep first(1);
    int points = 0;
    for (bool finished = false; !finished; ++points) {
      const TempDir dir(memory_directory());
      const fs::path run = dir.path() / "run";
      first.copy_to(run);
      int call = 0;
      IoCall failed{};
      FileIo io;
      io.before_call = [&](const IoCall& c) {
        failed = c;
        return call++ == points + 1 ? code : 0;  // the first is the store's own
      };
      {
        CheckpointStore store(run, {.keep_last = 1}, io);
        const auto error = failing_save(store, 1);
        finished = !error.has_value();
        if (error) {
          EXPECT_EQ(exit_code(error->kind()), 74);
          const std::string& text = error->message();
          const fs::path named = failed.kind == IoKind::rename ? failed.target : failed.path;
          EXPECT_NE(text.find(named.string()), std::string::npos) << text;
          EXPECT_NE(text.find(fmt::format("{} (errno {})", std::strerror(code), code)),
                    std::string::npos)
              << text;
          if (failed.kind == IoKind::write) {
            EXPECT_NE(text.find(fmt::format("of {} bytes", failed.bytes)), std::string::npos)
                << text;
          }
          EXPECT_GE(store.load_latest()->step, 1U);
          store.save(5, content_of(1, 5));  // the disk has room again: the same store goes on
          EXPECT_EQ(store.load_latest()->step, 5U);
        }
      }
      if (!finished) {
        EXPECT_EQ(CheckpointStore(run).load_latest()->step, 5U);
      }
    }
    EXPECT_GT(points, 20);
  }
}

TEST(CheckpointCrash, AfterAFailedOperationTheNextStartFindsThePreviousOrTheNewCheckpoint) {
  const FirstStep first(2);
  bool finished = false;
  for (int point = 0; !finished; ++point) {
    const TempDir dir(memory_directory());
    const fs::path run = dir.path() / "run";
    first.copy_to(run);
    int call = 0;
    FileIo io;
    io.before_call = [&](const IoCall&) { return call++ == point + 1 ? ENOSPC : 0; };
    {
      CheckpointStore store(run, {.keep_last = 1}, io);
      finished = !failing_save(store, 2);
    }
    expect_previous_or_new(run, 2, fmt::format("point {}", point));
  }
}

// A true limit instead of a made one: files may not grow beyond `bytes`.
int exit_code_of_limited_save(const fs::path& run, rlim_t bytes) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      CheckpointStore(run).save(2, content_of(2, 2));
      ::_exit(0);
    } catch (const Error& e) {
      const bool named = e.message().find(std::strerror(EFBIG)) != std::string::npos;
      ::_exit(named ? exit_code(e.kind()) : 1);
    } catch (...) {
      ::_exit(2);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(CheckpointCrash, ALimitOfTheFileSizeIsAnIoErrorAndThePreviousCheckpointStays) {
  const FirstStep first(2);
  int refused = 0;
  for (rlim_t bytes = 0; bytes < 20'000; bytes += 1777) {
    const TempDir dir(memory_directory());
    const fs::path run = dir.path() / "run";
    first.copy_to(run);
    const int code = exit_code_of_limited_save(run, bytes);
    EXPECT_TRUE(code == 0 || code == 74) << code << " at " << bytes;
    refused += code == 74 ? 1 : 0;
    expect_previous_or_new(run, 2, fmt::format("limit {}", bytes));
  }
  EXPECT_GE(refused, 5);
  EXPECT_LT(refused, 12);
}

}  // namespace
}  // namespace tessera
