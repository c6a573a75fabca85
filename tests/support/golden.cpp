#include "tests/support/golden.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace tessera::test {
namespace {

template <class T>
void widen(const std::string& bytes, std::vector<double>& out) {
  out.resize(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<double>(value);
  }
}

GoldenTensor decode(const nlohmann::json& entry, const std::string& payload) {
  const auto range = entry.at("data_offsets").get<std::vector<std::size_t>>();
  const std::string bytes = payload.substr(range.at(0), range.at(1) - range.at(0));
  const std::string dtype = entry.at("dtype");
  GoldenTensor t{entry.at("shape").get<std::vector<std::int64_t>>(), {}};
  if (dtype == "F32") {
    widen<float>(bytes, t.values);
  } else if (dtype == "F64") {
    widen<double>(bytes, t.values);
  } else if (dtype == "I32") {
    widen<std::int32_t>(bytes, t.values);
  } else if (dtype == "U8") {
    widen<std::uint8_t>(bytes, t.values);
  } else {
    throw std::runtime_error("golden file: dtype " + dtype);
  }
  return t;
}

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    throw std::runtime_error("golden file missing: " + path);
  }
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

std::vector<std::int32_t> GoldenTensor::ints() const {
  std::vector<std::int32_t> out;
  for (const double v : values) {
    out.push_back(static_cast<std::int32_t>(std::lround(v)));
  }
  return out;
}

GoldenFile::GoldenFile(const std::string& name) {
  const std::string bytes =
      read_all(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors");
  std::uint64_t header = 0;
  if (bytes.size() >= sizeof header) {
    std::memcpy(&header, bytes.data(), sizeof header);
  }
  if (bytes.size() < sizeof header || header > bytes.size() - sizeof header) {
    throw std::runtime_error("golden file truncated: " + name);
  }
  const std::string payload = bytes.substr(sizeof header + header);
  const auto json = nlohmann::json::parse(bytes.substr(sizeof header, header));
  for (const auto& [key, entry] : json.items()) {
    if (key == "__metadata__") {
      metadata = entry.get<std::map<std::string, std::string>>();
    } else {
      tensors[key] = decode(entry, payload);
    }
  }
}

const GoldenTensor& GoldenFile::at(const std::string& tensor) const {
  const auto found = tensors.find(tensor);
  if (found == tensors.end()) {
    throw std::runtime_error("golden file has no tensor " + tensor);
  }
  return found->second;
}

std::map<std::string, GoldenTensor> GoldenFile::under(const std::string& prefix) const {
  std::map<std::string, GoldenTensor> out;
  for (auto it = tensors.lower_bound(prefix); it != tensors.end() && it->first.starts_with(prefix);
       ++it) {
    out[it->first.substr(prefix.size())] = it->second;
  }
  return out;
}

}  // namespace tessera::test
