#include "apps/store.h"

#include <filesystem>

#include "train/safetensors.h"

namespace tessera::apps {

bool is_done(const std::string& path) { return std::filesystem::exists(path); }

void save_state(const std::string& path, const std::vector<NamedTensor>& tensors) {
  const std::filesystem::path target(path), temporary(path + ".tmp");
  std::filesystem::create_directories(target.parent_path());
  std::filesystem::remove(temporary);  // what an interrupted save left
  write_safetensors(temporary, tensor_map(tensors));
  std::filesystem::rename(temporary, target);
}

std::vector<NamedTensor> load_state(const std::string& path) {
  TESSERA_CHECK_KIND(ErrorKind::missing, is_done(path),
                     "{}: no such model; run the training verb before", path);
  return tensor_list<NamedTensor>(read_safetensors(path).tensors);
}

}  // namespace tessera::apps
