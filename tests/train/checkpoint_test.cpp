#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <set>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

Checkpoint content_of(float value) {
  Checkpoint c;
  c.config_json = "{\"d\": 8}\n";
  c.model["w"] = Tensor::full({4, 3}, value);
  c.model["b"] = Tensor::full({3}, -value);
  c.optimizer["m"] = Tensor::full({15}, value + 1);
  c.state = {{"step", std::to_string(value)}, {"rng", "0x17"}};
  return c;
}

bool equal(const Checkpoint& a, const Checkpoint& b) {
  const auto same = [](const TensorMap& x, const TensorMap& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& p, const auto& q) {
      return p.first == q.first && p.second.shape() == q.second.shape() &&
             p.second.template to_vector<float>() == q.second.template to_vector<float>();
    });
  };
  return a.config_json == b.config_json && a.state == b.state && same(a.model, b.model) &&
         same(a.optimizer, b.optimizer);
}

std::vector<std::string> listing(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(directory)) {
    names.push_back(e.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Checkpoint, WhatWasSavedComesBackEqual) {
  const TempDir dir;
  CheckpointStore store(dir.path());
  EXPECT_FALSE(store.load_latest().has_value());
  store.save(7, content_of(7));
  store.save(14, content_of(14));
  const auto got = store.load_latest();
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->step, 14U);
  EXPECT_TRUE(equal(got->content, content_of(14)));
  EXPECT_EQ(read_text(dir.path() / "checkpoints/latest"), "step-000014\n");
  EXPECT_EQ(find_checkpoint(dir.path()), dir.path() / "checkpoints/step-000014");
}

TEST(Checkpoint, SameContentGivesTheSameBytes) {
  const TempDir dir;
  write_checkpoint(dir.path() / "a", 3, content_of(3));
  write_checkpoint(dir.path() / "b", 3, content_of(3));
  for (const std::string& file : listing(dir.path() / "a")) {
    EXPECT_EQ(read_text(dir.path() / "a" / file), read_text(dir.path() / "b" / file));
  }
}

TEST(Checkpoint, PruningKeepsTheLastOnesAndTheMilestones) {
  const TempDir dir;
  CheckpointStore store(dir.path(), {.keep_last = 2, .keep_every = 10});
  for (std::uint64_t step = 5; step <= 35; step += 5) {
    store.save(step, content_of(1));
  }
  EXPECT_EQ(store.steps(), (std::vector<std::uint64_t>{10, 20, 30, 35}));
}

TEST(Checkpoint, ASecondProcessInTheRunDirectoryIsRefused) {
  const TempDir dir;
  const CheckpointStore store(dir.path());
  EXPECT_THROW(CheckpointStore(dir.path()), Error);
}

TEST(Checkpoint, NonFiniteWeightsAreNeverSaved) {
  const TempDir dir;
  CheckpointStore store(dir.path());
  store.save(1, content_of(1));
  try {
    store.save(2, content_of(std::numeric_limits<float>::quiet_NaN()));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
    EXPECT_NE(e.message().find("'b'"), std::string::npos);
  }
  EXPECT_EQ(store.load_latest()->step, 1U);
}

TEST(Checkpoint, ResumingFromAnOlderStepSetsNewerOnesAside) {
  const TempDir dir;
  CheckpointStore store(dir.path());
  for (const std::uint64_t step : {1, 2, 3}) {
    store.save(step, content_of(static_cast<float>(step)));
  }
  EXPECT_TRUE(equal(store.load(1).content, content_of(1)));
  EXPECT_EQ(store.steps(), (std::vector<std::uint64_t>{1}));
  EXPECT_TRUE(fs::exists(dir.path() / "checkpoints/stale-step-000003"));
}

// Every truncation and many flipped bits of every file: reading the directory is refused, the run
// falls back.
TEST(Checkpoint, EveryDamageOfAnyFileIsDetectedAndTheOlderCheckpointTakesOver) {
  const TempDir dir;
  {
    CheckpointStore store(dir.path());
    store.save(1, content_of(1));
    store.save(2, content_of(2));
  }
  const fs::path newest = dir.path() / "checkpoints/step-000002";
  Rng rng(5);
  for (const std::string& file : listing(newest)) {
    const std::string good = read_text(newest / file);
    const auto expect_refused = [&](const std::string& bad) {
      std::ofstream(newest / file, std::ios::binary) << bad;
      EXPECT_THROW(verify_checkpoint(newest), Error) << file;
    };
    for (std::size_t keep = 0; keep < good.size(); keep += 1 + good.size() / 60) {
      expect_refused(good.substr(0, keep));
    }
    for (int trial = 0; trial < 150; ++trial) {
      std::string bad = good;
      const std::size_t at = rng.below(bad.size());
      bad[at] = static_cast<char>(bad[at] ^ (1 << rng.below(8)));
      expect_refused(bad);
    }
    std::ofstream(newest / file, std::ios::binary) << good;
  }
  EXPECT_NO_THROW(verify_checkpoint(newest));
  std::ofstream(newest / "model.safetensors", std::ios::app) << "x";
  CheckpointStore store(dir.path());
  const auto got = store.load_latest();
  EXPECT_EQ(got->step, 1U);
  ASSERT_EQ(got->skipped.size(), 1U);
  EXPECT_NE(got->skipped[0].find("model.safetensors"), std::string::npos);
}

TEST(Checkpoint, WhenNothingVerifiesTheRunStopsInsteadOfStartingAfresh) {
  const TempDir dir;
  CheckpointStore store(dir.path());
  store.save(1, content_of(1));
  fs::remove(dir.path() / "checkpoints/step-000001/MANIFEST.json");
  EXPECT_THROW((void)store.load_latest(), Error);
}

struct Crash {};

enum class Loss { none, torn_write, unsynced_gone, unsynced_torn };

// A disk that forgets at power loss what was not fsynced: written data is dropped or torn, renames
// are undone unless their directory was fsynced; removals, the worst case, have always reached the
// disk.
class ForgetfulDisk {
 public:
  explicit ForgetfulDisk(Loss loss) : loss_(loss) {}

  void before(const IoCall& c) {
    if (c.kind == IoKind::write) {
      unsynced_.insert(c.path);
    } else if (c.kind == IoKind::sync) {
      unsynced_.erase(c.path);
    } else if (c.kind == IoKind::rename) {
      renames_.emplace_back(c.path, c.target);
      moves_.emplace_back(c.path, c.target);
    } else if (c.kind == IoKind::sync_directory) {
      std::erase_if(renames_, [&](const auto& r) { return r.second.parent_path() == c.path; });
    }
  }

  void power_loss(const IoCall& at) const {
    if (at.kind == IoKind::write && loss_ == Loss::torn_write) {
      std::ofstream(at.path, std::ios::app) << std::string(at.bytes / 2, '?');
    }
    if (loss_ != Loss::unsynced_gone && loss_ != Loss::unsynced_torn) {
      return;
    }
    for (const fs::path& written : unsynced_) {
      const fs::path path = fs::exists(written) ? written : renamed(written);
      if (fs::exists(path)) {
        fs::resize_file(path, loss_ == Loss::unsynced_gone ? 0 : fs::file_size(path) / 2);
      }
    }
    for (auto r = renames_.rbegin(); r != renames_.rend(); ++r) {
      if (fs::is_directory(r->second)) {
        fs::rename(r->second, r->first);
      }
    }
  }

 private:
  // Where a file went with its directory.
  [[nodiscard]] fs::path renamed(const fs::path& path) const {
    for (const auto& [from, to] : moves_) {
      if (path.parent_path() == from) {
        return to / path.filename();
      }
    }
    return path;
  }
  Loss loss_;
  std::set<fs::path> unsynced_;
  std::vector<std::pair<fs::path, fs::path>> renames_;  // not yet durable
  std::vector<std::pair<fs::path, fs::path>> moves_;    // all
};

// Saves step 2 and dies before the n-th operation. True if it came to the end.
bool save_and_die(const fs::path& run, int n, Loss loss) {
  int call = 0;
  ForgetfulDisk disk(loss);
  FileIo io;
  io.before_call = [&](const IoCall& c) {
    if (call++ == n) {
      disk.power_loss(c);
      throw Crash{};
    }
    disk.before(c);
  };
  try {
    CheckpointStore store(run, {.keep_last = 1}, io);
    store.save(2, content_of(2));
  } catch (const Crash&) {
    return false;
  }
  disk.power_loss({.kind = IoKind::sync, .path = {}, .target = {}});  // right after save() returned
  return true;
}

TEST(Checkpoint, ACrashBeforeAnyOperationLeavesThePreviousOrTheNewCheckpoint) {
  for (const Loss loss : {Loss::none, Loss::torn_write, Loss::unsynced_gone, Loss::unsynced_torn}) {
    int points = 0;
    bool finished = false;
    for (int n = 0; !finished; ++n, ++points) {
      ASSERT_LT(n, 200);
      const TempDir dir;
      { CheckpointStore(dir.path()).save(1, content_of(1)); }
      finished = save_and_die(dir.path(), n, loss);
      CheckpointStore store(dir.path());
      const auto got = store.load_latest();
      ASSERT_TRUE(got.has_value()) << n;
      EXPECT_TRUE(got->skipped.empty()) << n;
      EXPECT_TRUE(equal(got->content, content_of(static_cast<float>(got->step)))) << n;
      for (const std::string& name : listing(dir.path() / "checkpoints")) {
        EXPECT_EQ(name.find(".tmp."), std::string::npos) << name;
      }
      store.save(2, content_of(2));  // and the run goes on
      EXPECT_EQ(store.load_latest()->step, 2U);
    }
    EXPECT_GT(points, 20);
  }
}

TEST(Checkpoint, AFailingOperationIsAnIoErrorAndThePreviousCheckpointStays) {
  for (int n = 0;; ++n) {
    const TempDir dir;
    int call = 0;
    FileIo io;
    io.before_call = [&](const IoCall& c) {
      if (call++ == n) {
        TESSERA_FAIL(ErrorKind::io, "{}: no space left on device", c.path.string());
      }
    };
    try {
      { CheckpointStore(dir.path()).save(1, content_of(1)); }
      CheckpointStore store(dir.path(), {.keep_last = 1}, io);
      store.save(2, content_of(2));
      EXPECT_GT(n, 20);
      break;  // no operation left to fail
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::io);
      EXPECT_NE(e.message().find(dir.path().string()), std::string::npos);
    }
    EXPECT_GE(CheckpointStore(dir.path()).load_latest()->step, 1U);
  }
}

TEST(FileIo, WritingWithoutPermissionNamesTheFileAndTheReason) {
  try {
    FileIo().write_text("/proc/tessera_cannot_exist", "x");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_NE(e.message().find("/proc/tessera_cannot_exist"), std::string::npos);
    EXPECT_NE(e.message().find("errno"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera
