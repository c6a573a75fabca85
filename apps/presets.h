// The presets that the program carries: apps/presets/*.toml as of the build.
#pragma once

#include <string>
#include <string_view>

namespace tessera::apps {

/// The TOML text of a preset; null if there is none of that name.
const char* preset_text(std::string_view name);

/// "omnijet-alpha, quickstart, ...".
std::string preset_names();

/// The preset whose name is nearest to what was typed.
std::string nearest_preset(std::string_view typed);

}  // namespace tessera::apps
