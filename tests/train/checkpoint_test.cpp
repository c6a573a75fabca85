#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

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

// Written by other hands, since save() refuses it.
TEST(Checkpoint, AWeightThatIsNotFiniteIsPassedOverForTheCheckpointBefore) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const TempDir dir;
    CheckpointStore store(dir.path());
    store.save(1, content_of(1));
    Checkpoint spoilt = content_of(2);
    spoilt.model["w"].span<float>()[5] = bad;
    write_checkpoint(store.path_of(2), 2, spoilt);
    const auto loaded = store.load_latest();
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->step, 1U);
    ASSERT_EQ(loaded->skipped.size(), 1U);
    EXPECT_NE(loaded->skipped[0].find("tensor 'w', element 5"), std::string::npos)
        << loaded->skipped[0];
  }
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

// Of every file: each truncation, each bit of each header and JSON, 10,000 bits of tensors. Refused
// with a message that names the file.
TEST(Checkpoint, EveryDamageOfAnyFileIsDetected) {
  const TempDir dir(memory_directory());
  const fs::path step = dir.path() / "step";
  Checkpoint content = content_of(2);
  content.model["large"] = Tensor::full({600}, 0.37F);
  content.preprocess_json = "{}";
  write_checkpoint(step, 2, content);
  Rng rng(5);
  for (const std::string& file : listing(step)) {
    const std::string good = read_text(step / file);
    const auto expect_refused = [&](const std::string& bad, std::size_t at) {
      std::ofstream(step / file, std::ios::binary) << bad;
      try {
        verify_checkpoint(step);
        ADD_FAILURE() << file << " at " << at;
      } catch (const Error& e) {
        EXPECT_TRUE(e.kind() == ErrorKind::data || e.kind() == ErrorKind::missing) << e.message();
        EXPECT_NE(e.message().find(file), std::string::npos) << e.message();
      }
    };
    const auto flip = [&](std::size_t bit) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
      expect_refused(bad, bit);
    };
    for (std::size_t keep = 0; keep < good.size(); ++keep) {
      expect_refused(good.substr(0, keep), keep);
    }
    const std::size_t header = std::min<std::size_t>(good.size(), 300);
    for (std::size_t bit = 0; bit < 8 * header; ++bit) {
      flip(bit);
    }
    for (int trial = 0; trial < 10'000 && file == "model.safetensors"; ++trial) {
      flip(8 * header + rng.below(8 * (good.size() - header)));
    }
    std::ofstream(step / file, std::ios::binary) << good;
  }
  EXPECT_NO_THROW(verify_checkpoint(step));
}

TEST(Checkpoint, TheOlderCheckpointTakesOverFromADamagedOneWithAWarning) {
  const TempDir dir;
  CheckpointStore store(dir.path());
  store.save(1, content_of(1));
  store.save(2, content_of(2));
  std::ofstream(dir.path() / "checkpoints/step-000002/model.safetensors", std::ios::app) << "x";
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
