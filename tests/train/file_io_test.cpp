// The one way to a final file: whole and durable or not at all, and nothing left beside it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <thread>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/file_io.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename());
  }
  return names;
}

/// A process id that no process has.
pid_t dead_process() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  return child;
}

TEST(FileIo, AReplacedFileIsSyncedBeforeItsNameAndTheNameBeforeTheReturn) {
  const TempDir dir;
  std::vector<IoKind> kinds;
  FileIo io;
  io.before_call = [&](const IoCall& c) {
    kinds.push_back(c.kind);
    return 0;
  };
  io.replace_text(dir.path() / "a.json", "{}");
  const auto renamed = std::ranges::find(kinds, IoKind::rename);
  ASSERT_NE(renamed, kinds.end());
  EXPECT_NE(std::find(kinds.begin(), renamed, IoKind::sync), renamed);
  EXPECT_NE(std::find(renamed, kinds.end(), IoKind::sync_directory), kinds.end());
}

TEST(FileIo, AFailureAtAnyOperationLeavesTheOldContentAndNothingBesideIt) {
  for (const char* what : {"file", "directory"}) {
    bool done = false;
    for (int point = 0; !done; ++point) {
      const TempDir dir;
      const fs::path path = dir.path() / what;
      int call = 0;
      FileIo io;
      io.before_call = [&](const IoCall&) { return call++ == point ? ENOSPC : 0; };
      try {
        if (what[0] == 'f') {
          io.replace_text(path, "new");
        } else {
          io.replace(path, [&](const fs::path& temporary) {
            io.make_directory(temporary);
            io.write_text(temporary / "part", "new");
          });
        }
        done = true;
        EXPECT_EQ(names_in(dir.path()), std::set<std::string>{what});
      } catch (const Error& e) {
        EXPECT_EQ(exit_code(e.kind()), 74) << e.message();
        for (const std::string& name : names_in(dir.path())) {  // renamed, and its fsync failed
          EXPECT_EQ(name, what) << "at operation " << point;
        }
      }
      ASSERT_LT(point, 20);
    }
  }
}

TEST(FileIo, LeftoversOfDeadProcessesGoAtTheNextWriteAndThoseOfLivingOnesStay) {
  const TempDir dir;
  const std::string dead = std::to_string(dead_process()), own = std::to_string(::getpid());
  fs::create_directory(dir.path() / ("model.tmp." + dead));  // as older versions named it
  std::ofstream(dir.path() / ("model.tmp." + dead) / "config.json") << "{}";
  std::string of_dead = temporary_name("model").string();
  of_dead.replace(of_dead.find(own), own.size(), dead);
  std::ofstream(dir.path() / of_dead) << "half";
  const std::string living = temporary_name("model").string();
  std::ofstream(dir.path() / living) << "half";
  std::ofstream(dir.path() / ("other.tmp." + dead)) << "of another file";
  std::ofstream(dir.path() / "notes.tmp.txt") << "of the user";
  FileIo().replace_text(dir.path() / "model", "whole");
  EXPECT_EQ(names_in(dir.path()),
            (std::set<std::string>{"model", living, "other.tmp." + dead, "notes.tmp.txt"}));
  remove_leftovers(dir.path());
  EXPECT_EQ(names_in(dir.path()), (std::set<std::string>{"model", living, "notes.tmp.txt"}));
}

TEST(FileIo, WritersOfOneFileSideBySideNeverMix) {
  const TempDir dir;
  const fs::path path = dir.path() / "run.json";
  std::vector<std::thread> writers;
  for (const char c : {'a', 'b', 'c', 'd'}) {
    writers.emplace_back([&, c] {
      for (int i = 0; i < 30; ++i) {
        FileIo().replace_text(path, std::string(4096, c));
      }
    });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  const std::string text = read_text(path);
  EXPECT_EQ(text, std::string(4096, text.at(0)));
  EXPECT_EQ(names_in(dir.path()), std::set<std::string>{"run.json"});
}

TEST(FileIo, WhatCannotBeWrittenIsAnIoErrorThatNamesThePath) {
  const TempDir dir;
  std::ofstream(dir.path() / "file") << "x";
  const auto message = [](const auto& body) {
    try {
      body();
      return std::string("no error");
    } catch (const Error& e) {
      return fmt::format("{} {}", exit_code(e.kind()), e.message());
    }
  };
  const FileIo io;
  for (const char* path : {"/proc/none/run", "/dev/null/run"}) {
    const std::string said = message([&] { io.make_directory(path); });
    EXPECT_TRUE(said.starts_with("74 /")) << said;
    EXPECT_NE(said.find("errno"), std::string::npos) << said;
  }
  const std::string below = message([&] { io.make_directory(dir.path() / "file/run"); });
  EXPECT_NE(below.find("Not a directory"), std::string::npos) << below;
  const std::string in_none = message([&] { io.replace_text(dir.path() / "none/x", ""); });
  EXPECT_TRUE(in_none.starts_with("74 ")) << in_none;
  EXPECT_TRUE(message([] { FileLock("/proc/none.lock"); }).starts_with("74 "));
}

TEST(FileIo, NoOtherProductCodeRenamesFiles) {
  int files = 0;
  for (const char* folder : {"apps", "core", "kernels", "nn", "train"}) {
    for (const auto& entry :
         fs::recursive_directory_iterator(fs::path(TESSERA_SOURCE_DIR) / folder)) {
      const std::string extension = entry.path().extension();
      if ((extension != ".cpp" && extension != ".h") || entry.path().stem() == "file_io") {
        continue;
      }
      const std::string text = read_text(entry.path());
      for (const char* call :
           {" ::rename(", "fs::rename(", "filesystem::rename(", "std::rename("}) {
        EXPECT_EQ(text.find(call), std::string::npos) << entry.path() << ": " << call;
      }
      ++files;
    }
  }
  EXPECT_GT(files, 200);
}

TEST(FileLock, RefusesOrWaitsAsAsked) {
  const TempDir dir;
  const fs::path path = dir.path() / "run.lock";
  auto held = std::make_unique<FileLock>(path);
  EXPECT_THROW(FileLock second(path), Error);
  std::thread other([&] { const FileLock third(path, IfLocked::wait); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  held.reset();
  other.join();
}

}  // namespace
}  // namespace tessera
