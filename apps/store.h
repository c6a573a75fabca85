// Model states as files of a run directory.
#pragma once

#include <string>

#include "nn/module.h"

namespace tessera::apps {

/// Whether a finished model lies at `path`.
bool is_done(const std::string& path);
/// Writes a safetensors file through a temporary name and a rename.
void save_state(const std::string& path, const std::vector<NamedTensor>& tensors);
/// Reads one; throws Error(missing) with the verb that makes it.
std::vector<NamedTensor> load_state(const std::string& path);

}  // namespace tessera::apps
