// The verbs that make data, from their command lines.
#include "apps/data_verbs.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/dataset.h"

namespace tessera::apps {
namespace {

const std::filesystem::path kRoot = TESSERA_SOURCE_DIR;

void run(const std::string& line) {
  CLI::App app("test", "tessera");
  app.require_subcommand(1);
  std::function<void()> action;
  add_data_verbs(app, action);
  app.parse(line, false);
  action();
}

ErrorKind kind_of(const std::string& line) {
  try {
    run(line);
  } catch (const Error& e) {
    return e.kind();
  }
  return ErrorKind::internal;
}

std::string stream() { return (kRoot / "tests/fixtures/ee_tautau.particles").string(); }

TEST(DataVerbs, SimulateWritesADataSetThatItsManifestOpens) {
  const TempDir d;
  const auto file = (d.path() / "z-train.h5").string();
  run("simulate --output " + file + " --quiet --source 21:99:20 --mantissa-bits 14 --file " +
      stream());
  write_manifest_verb(d.path().string());
  EXPECT_EQ(Dataset(d.path()).size(), 20U);
  EXPECT_EQ(H5File::open(file).read_attribute<std::string>("command"),
            "tessera simulate --output " + file + " --mantissa-bits 14 --source 21:99:20");
}

TEST(DataVerbs, WhatIsWrongDecidesTheKindOfError) {
  const TempDir d;
  const auto out = (d.path() / "x.h5").string();
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99"), ErrorKind::usage);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 13:0:5 --file " + stream()),
            ErrorKind::usage);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:20 --file " + out),
            ErrorKind::missing);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:9999 --file " + stream()),
            ErrorKind::missing);
  std::ofstream(d.path() / "bad") << "no events";
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:20 --file " +
                    (d.path() / "bad").string()),
            ErrorKind::data);
  EXPECT_FALSE(std::filesystem::exists(out));
  EXPECT_THROW(write_manifest_verb(out), Error);
}

TEST(DataVerbs, TheCommittedSampleRecordsTheCommandsThatMakeIt) {
  for (const char* name : {"jets/train", "jets/val", "jets/test", "tau/z-train", "tau/qq-test"}) {
    const std::string path = std::string("apps/sample/") + name + ".h5";
    const auto command = H5File::open(kRoot / path).read_attribute<std::string>("command");
    EXPECT_TRUE(command.starts_with("tessera simulate --output " + path)) << command;
    CLI::App app("test", "tessera");
    std::function<void()> action;
    add_data_verbs(app, action);
    EXPECT_NO_THROW(app.parse(command.substr(sizeof("tessera"), std::string::npos), false))
        << command;
  }
}

}  // namespace
}  // namespace tessera::apps
