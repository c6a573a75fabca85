#include "train/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"

namespace tessera {
namespace {

struct Inner {
  double lr = 1e-3;
  std::int32_t steps = 100;
  std::string kind = "cosine";
  bool operator==(const Inner&) const = default;
};

struct RunConfig {
  std::uint64_t seed = 1;
  bool fast = false;
  float weight = 0.1F;
  std::string name = "run";
  std::vector<std::string> files;
  std::vector<std::int64_t> sizes{1, 2};
  std::vector<double> grid;
  Inner train;
  bool operator==(const RunConfig&) const = default;
};

Schema<Inner> inner_schema() {
  Schema<Inner> s;
  s.add("lr", [](Inner& c) { return &c.lr; }, {.min = 0, .max = 1, .help = "Peak learning rate."})
      .add("steps", [](Inner& c) { return &c.steps; }, {.min = 1, .unit = "steps", .help = "N."})
      .add("kind", [](Inner& c) { return &c.kind; },
           {.help = "Schedule.", .choices = {"cosine", "constant"}});
  return s;
}

Schema<RunConfig> schema() {
  Schema<RunConfig> s;
  s.add("seed", [](RunConfig& c) { return &c.seed; }, {.help = "Seed."})
      .add("fast", [](RunConfig& c) { return &c.fast; }, {.help = "Fast."})
      .add("weight", [](RunConfig& c) { return &c.weight; }, {.help = "Weight."})
      .add("name", [](RunConfig& c) { return &c.name; }, {.help = "Name."})
      .add("data.files", [](RunConfig& c) { return &c.files; }, {.help = "Files."})
      .add("data.sizes", [](RunConfig& c) { return &c.sizes; }, {.min = 0, .help = "Sizes."})
      .add("data.grid", [](RunConfig& c) { return &c.grid; }, {.min = 0, .help = "Grid."})
      .add_table(
          "train", [](RunConfig& c) { return &c.train; }, inner_schema());
  return s;
}

std::string error_of(const std::string& text) {
  RunConfig run;
  try {
    schema().read_text(text, "run.toml", run);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    return e.message();
  }
  return "";
}

std::string override_error(const std::string& assignment) {
  RunConfig run;
  try {
    schema().apply(assignment, run);
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

TEST(Config, ValuesOfEveryTypeAreRead) {
  RunConfig run;
  schema().read_text(R"(
seed = 7
fast = true
weight = 2
name = "tau \"id\""
[data]
files = ["a.h5", "b.h5"]
sizes = []
grid = [1, 0.5]
[train]
lr = 3e-4
kind = "constant"
)",
                     "run.toml", run);
  RunConfig want;
  want.seed = 7, want.fast = true, want.weight = 2, want.name = "tau \"id\"";
  want.files = {"a.h5", "b.h5"}, want.sizes = {}, want.grid = {1, 0.5};
  want.train = {.lr = 3e-4, .steps = 100, .kind = "constant"};
  EXPECT_EQ(run, want);
}

TEST(Config, MistakesNameLineColumnAndTheNearestKey) {
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(error_of(text).find(part), std::string::npos) << "got: " << error_of(text);
  };
  expect("seed = 1\n[train]\nlrr = 1",
         "run.toml:3:1: train.lrr: unknown key; the nearest known one is 'train.lr'");
  expect("[trian]\nlr = 1", "run.toml:1:2: trian: unknown key");
  expect("seed = \"one\"", "expected an integer, got a value of type string");
  expect("seed = 1.5", "run.toml:1:1");
  expect("seed = -1", "got -1");
  expect("[train]\nsteps = 0", "expected 1 to any steps, got 0");
  expect("[train]\nlr = 2.0", "expected 0 to 1, got 2");
  expect("[train]\nlr = nan", "got nan");
  expect("[train]\nlr = inf", "got inf");
  expect("weight = 1e300", "got inf");
  expect("[train]\nkind = \"cosin\"", "expected one of cosine, constant, got 'cosin'");
  expect("fast = 1", "expected true or false");
  expect("[data]\nfiles = \"a\"", "expected a list");
  expect("[data]\nsizes = [1, -2]", "got -2");
  expect("seed = ", "run.toml:1:");
  expect("seed = 1\nseed = 2", "run.toml:2:");
  expect("train = 3", "unknown key");
  expect("seed = 1\n\xc3\xa9 = 2", "run.toml:2:1: a character that needs quotes");
  expect("a.\x02 = 2", "run.toml:1:3: a character that needs quotes");
  expect("[seed]\nx = 1", "expected an integer, got a value of type table");
}

TEST(Config, CharactersBeyondAsciiAreReadInQuotesAndComments) {
  RunConfig run;
  schema().read_text("# \xc3\xa9 'x\nname = \"\xc3\xa9 \\\" # \xc3\xa9\" # \xc3\xa9\n\nseed = 4",
                     "x", run);
  EXPECT_EQ(run.name, "\xc3\xa9 \" # \xc3\xa9");
  EXPECT_EQ(run.seed, 4U);
  schema().read_text("name = \"\"\"a\n\xc3\xa9 \"b\"\"\"\"", "x", run);
  EXPECT_EQ(run.name, "a\n\xc3\xa9 \"b\"");
  schema().read_text("name = '\\'\nseed = 5", "x", run);
  EXPECT_EQ(run.name, "\\");
}

TEST(Config, OverridesAreTomlValuesAndTextsMayGoUnquoted) {
  RunConfig run;
  const auto s = schema();
  s.apply("train.lr=3e-4", run);
  s.apply("train.lr=5e-4", run);  // the later wins
  s.apply("name=simple", run);
  s.apply("data.files=[\"x.h5\"]", run);
  s.apply("fast=true", run);
  EXPECT_EQ(run.train.lr, 5e-4);
  EXPECT_EQ(run.name, "simple");
  EXPECT_EQ(run.files, std::vector<std::string>{"x.h5"});
  EXPECT_TRUE(run.fast);
  s.apply("name='a=b'", run);
  EXPECT_EQ(run.name, "a=b");
  EXPECT_NE(override_error("train.lrr=1").find("'train.lr'"), std::string::npos);
  EXPECT_NE(override_error("train.lr=fast"), "");
  EXPECT_NE(override_error("train.lr"), "");
  EXPECT_NE(override_error("=1"), "");
  EXPECT_NE(override_error("seed=1\nx=2"), "");
}

TEST(Config, DumpReadsBackToTheSameValues) {
  Rng rng(9);
  for (int trial = 0; trial < 2000; ++trial) {
    RunConfig run;
    run.seed = rng.next_u64() >> 1;
    run.fast = rng.below(2) == 1;
    run.weight =
        static_cast<float>(std::ldexp(rng.uniform() - 0.5F, static_cast<int>(rng.below(60)) - 30));
    run.train.lr =
        std::ldexp(static_cast<double>(rng.next_u64()), -64 - static_cast<int>(rng.below(40)));
    run.train.steps = static_cast<int>(1 + rng.below(1000));
    run.name.clear();
    for (std::uint64_t n = rng.below(20); n > 0; --n) {
      run.name += static_cast<char>(1 + rng.below(127));
    }
    run.files = {run.name, ""};
    run.grid = {run.train.lr, 1e300, 0, 3};
    RunConfig back;
    const std::string text = schema().dump(run);
    schema().read_text(text, "dump", back);
    ASSERT_EQ(back, run) << text;
    ASSERT_EQ(schema().dump(back), text);
  }
}

TEST(Config, MutatedFilesAreReadOrRefusedButNeverCrash) {
  const std::string good = schema().dump({});
  Rng rng(4);
  for (int trial = 0; trial < 5000; ++trial) {
    std::string bad = good;
    for (std::uint64_t edits = 1 + rng.below(4); edits > 0; --edits) {
      bad[rng.below(bad.size())] = static_cast<char>(rng.below(256));
    }
    (void)error_of(bad);
  }
}

TEST(Config, HelpNamesEveryFieldWithDefaultRangeAndUnit) {
  const std::string help = schema().help();
  const auto s = schema();
  for (const Field& f : s.fields()) {
    EXPECT_NE(help.find("  " + f.name + " = "), std::string::npos) << f.name;
  }
  EXPECT_NE(help.find("train.steps = 100 steps (1 to any)"), std::string::npos) << help;
  EXPECT_NE(help.find("(cosine, constant)"), std::string::npos);
}

TEST(Config, FilesAreReadAndMissingOnesNamed) {
  const TempDir dir;
  std::ofstream(dir.path() / "a.toml") << "seed = 3\n";
  RunConfig run;
  schema().read_file(dir.path() / "a.toml", run);
  EXPECT_EQ(run.seed, 3U);
  EXPECT_THROW(schema().read_file(dir.path() / "b.toml", run), Error);
}

}  // namespace
}  // namespace tessera
