// The verbs that make and convert data: simulate, convert, and the manifest of a folder.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tessera::apps {

/// Adds the verbs to `app`; the chosen one puts what it does into `action`.
void add_data_verbs(CLI::App& app, std::function<void()>& action);

struct ManifestArguments {
  std::vector<std::string> splits;  ///< NAME=FILE, with or without wildcards
  bool allow_equal_jets = false;    ///< a jet under two ids is said, not refused
};
/// Hashes the native files of a folder and of its folders train, val and test, and writes its
/// manifest.json (file_splits.h: which split a file is in).
void write_manifest_verb(const std::string& directory, const ManifestArguments& arguments = {});

}  // namespace tessera::apps
