// safetensors files, strictly (huggingface/safetensors).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "train/file_io.h"

namespace tessera {

/// Tensors by name, the content of one file.
using TensorMap = std::map<std::string, Tensor>;

/// From any list of {name, tensor}, as modules give it. Throws Error(usage) on a name that comes
/// twice.
template <class List>
TensorMap tensor_map(const List& list) {
  TensorMap map;
  for (const auto& [name, tensor] : list) {
    const bool fresh = map.emplace(name, tensor).second;
    TESSERA_CHECK(fresh, "tensor_map: expected distinct names, got '{}' twice", name);
  }
  return map;
}

/// To a list of Named{name, tensor}, in name order.
template <class Named>
std::vector<Named> tensor_list(const TensorMap& map) {
  std::vector<Named> list;
  for (const auto& [name, tensor] : map) {
    list.push_back(Named{name, tensor});
  }
  return list;
}

struct Safetensors {
  TensorMap tensors;
  std::map<std::string, std::string> metadata;
};

/// f32, f64, bf16, i32, i64, u8 of any rank up to 6, zero sizes included, from any device. Tensors
/// stand by falling alignment, then name: same content, same bytes. The file must not exist; it is
/// fsynced.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       const FileIo& io = {});

/// Refuses with Error(data) whatever is not exactly a safetensors file: header length, JSON,
/// duplicate keys, unknown dtypes, holes, overlaps, sizes that disagree, bytes at the end. Nothing
/// is allocated on the header's word.
Safetensors read_safetensors(const std::filesystem::path& path);
/// The same from memory; `name` stands in the messages.
Safetensors parse_safetensors(std::string_view bytes, std::string_view name);

}  // namespace tessera
