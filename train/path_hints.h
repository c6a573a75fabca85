// What to say about a path where a model or a dataset was expected, so that the next command works.
#pragma once

#include <filesystem>
#include <string>

namespace tessera {

/// The text as one word of a POSIX shell: quoted where it holds anything but plain characters.
std::string shell_word(const std::string& text);

/// What is at `directory` instead of a model: nothing, a file, or a folder, and which models are
/// below it or its nearest folder that exists. Begins with what was found, as in "nothing there".
std::string model_hint(const std::filesystem::path& directory);

/// The same for a dataset: names the command that makes a manifest.json where there are data files,
/// or the datasets below.
std::string dataset_hint(const std::filesystem::path& directory);

}  // namespace tessera
