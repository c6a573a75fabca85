#pragma once
// Reader for the files of tests/golden: a plain safetensors reader for tests of the layers below
// train.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tessera::test {

struct GoldenTensor {
  std::vector<std::int64_t> shape;
  std::vector<double> values;  ///< widened exactly; f32, f64, i32 and u8 all fit

  std::vector<float> floats() const { return {values.begin(), values.end()}; }
  std::vector<std::int32_t> ints() const;
};

/// One golden file. `name` is the file name under tests/golden without its extension.
/// Throws std::runtime_error when the file is missing or malformed, and when a tensor is not in it.
struct GoldenFile {
  explicit GoldenFile(const std::string& name);

  const GoldenTensor& at(const std::string& tensor) const;
  std::vector<float> floats(const std::string& tensor) const { return at(tensor).floats(); }
  std::vector<std::int32_t> ints(const std::string& tensor) const { return at(tensor).ints(); }
  double scalar(const std::string& tensor) const { return at(tensor).values.at(0); }

  /// Everything under a prefix, for example "param/" or "grad/clean/", with the prefix removed.
  std::map<std::string, GoldenTensor> under(const std::string& prefix) const;

  std::map<std::string, GoldenTensor> tensors;
  std::map<std::string, std::string> metadata;
};

}  // namespace tessera::test
