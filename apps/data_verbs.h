// The verbs that make and convert data: simulate, convert, and the manifest of a folder.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace tessera::apps {

/// Adds the verbs to `app`; the chosen one puts what it does into `action`.
void add_data_verbs(CLI::App& app, std::function<void()>& action);

/// Hashes the native files of a folder and writes its manifest.json; names tell the split.
void write_manifest_verb(const std::string& directory);

}  // namespace tessera::apps
