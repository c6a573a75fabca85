// What a disk may have forgotten when the power failed: undoes, below a folder, what the log of
// power_loss.c shows as not yet durable.
#pragma once

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/rng.h"

namespace tessera {

/// Follows a log. A file that was written and not fsynced is emptied or cut in half; a name that
/// was made or moved, and whose directory was not fsynced since, is undone, or kept by chance.
class PowerLoss {
 public:
  PowerLoss(const std::filesystem::path& log, std::filesystem::path saved, Rng rng)
      : saved_(std::move(saved)), rng_(rng) {
    std::ifstream in(log);
    for (std::string line; std::getline(in, line);) {
      if (line.size() > 2) {
        read(line[0], line.substr(2));
      }
    }
  }

  void happen() {
    for (const std::string& path : dirty_) {
      std::error_code code;
      if (std::filesystem::is_regular_file(path, code)) {
        const auto size = std::filesystem::file_size(path, code);
        std::filesystem::resize_file(path, rng_.below(2) == 0 ? 0 : size / 2, code);
      }
    }
    for (auto name = names_.rbegin(); name != names_.rend(); ++name) {
      if (rng_.below(4) != 0) {
        undo(*name);
      }
    }
  }

 private:
  struct Name {
    std::string number, from, to;  // `from` is empty for what was made
  };

  void read(char kind, const std::string& text) {
    switch (kind) {
      case 'C':
        names_.push_back({"", "", text});
        break;
      case 'W':
        dirty_.insert(text);
        break;
      case 'S':
        dirty_.erase(text);
        std::erase_if(names_, [&](const Name& n) {
          return std::filesystem::path(n.to).parent_path() == text;
        });
        break;
      default:
        move(text);
    }
  }

  void move(const std::string& text) {
    const std::size_t space = text.find(' '), tab = text.find('\t');
    const Name name{text.substr(0, space), text.substr(space + 1, tab - space - 1),
                    text.substr(tab + 1)};
    if (std::filesystem::exists(name.from)) {
      return;  // killed before it happened
    }
    std::set<std::string> moved;
    for (const std::string& path : dirty_) {
      moved.insert(renamed(path, name));
    }
    dirty_ = moved;
    for (Name& n : names_) {
      n.to = renamed(n.to, name);
    }
    // What was made under the old name and is not durable there is undone with the new one.
    std::erase_if(names_, [&](const Name& n) { return n.to == name.to && n.from.empty(); });
    names_.push_back(name);
  }

  // A path after a rename of itself or of a folder above it.
  static std::string renamed(const std::string& path, const Name& name) {
    const bool inside = path == name.from || path.starts_with(name.from + "/");
    return inside ? name.to + path.substr(name.from.size()) : path;
  }

  void undo(const Name& name) {
    std::error_code code;
    if (!std::filesystem::exists(name.to, code)) {
      return;
    }
    if (name.from.empty()) {
      std::filesystem::remove_all(name.to, code);
      return;
    }
    std::filesystem::rename(name.to, name.from, code);
    const std::filesystem::path old = saved_ / name.number;
    if (std::filesystem::exists(old, code)) {
      std::filesystem::copy_file(old, name.to, code);
    }
  }

  std::filesystem::path saved_;
  Rng rng_;
  std::set<std::string> dirty_;
  std::vector<Name> names_;  // not yet durable, in order
};

}  // namespace tessera
