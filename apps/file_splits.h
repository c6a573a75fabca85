// Which split of a dataset a file is in: train, val or test.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace tessera::apps {

/// The native files of a folder and of those of its folders whose name says a split, each with its
/// split. In this order:
///   1. what --split declares;
///   2. the file's root attribute 'split' and the whole words of its name and folder: train,
///      training, val, valid, validation, test, in small or capital letters. Two different ones are
///      refused;
///   3. the chunks that tessera simulate recorded in it (0-79 train, 80-89 val, 90-99 test);
///   4. else train.
class FileSplits {
 public:
  /// `declared`: NAME=FILE, relative to the folder or as typed, wildcards allowed. Throws
  /// Error(usage) on another form or a file declared twice, Error(missing) where nothing matches.
  FileSplits(const std::string& directory, const std::vector<std::string>& declared);

  /// Relative to the folder, sorted.
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  /// Files by split. `say` gets a line for each file whose name tells no split, and for each whose
  /// chunks belong to another one. Throws Error(data) naming a file that says two things.
  [[nodiscard]] std::map<std::string, std::vector<std::string>> splits(
      const std::function<void(const std::string&)>& say) const;

 private:
  void list();
  void declare(const std::string& text);
  [[nodiscard]] std::vector<std::string> matching(const std::string& pattern) const;
  [[nodiscard]] std::string split_of(const std::string& name,
                                     const std::function<void(const std::string&)>& say) const;

  std::string directory_;
  std::vector<std::string> names_;
  std::map<std::string, std::string> declared_;  // split by file
};

}  // namespace tessera::apps
