// The golden files are what their names say: readable, finite, and consistent with the closed
// forms.
#include "tests/support/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <stdexcept>

namespace tessera::test {
namespace {

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const auto& f : std::filesystem::directory_iterator(TESSERA_SOURCE_DIR "/tests/golden")) {
    if (f.path().extension() == ".safetensors") {
      out.push_back(f.path().stem());
    }
  }
  std::ranges::sort(out);
  return out;
}

TEST(GoldenFile, EveryFileReadsAndIsFinite) {
  ASSERT_GE(names().size(), 20U);
  for (const std::string& name : names()) {
    for (const auto& [tensor, t] : GoldenFile(name).tensors) {
      const auto count =
          std::accumulate(t.shape.begin(), t.shape.end(), std::int64_t{1}, std::multiplies<>());
      EXPECT_EQ(count, static_cast<std::int64_t>(t.values.size())) << name << ": " << tensor;
      EXPECT_TRUE(std::ranges::all_of(t.values, [](double v) { return std::isfinite(v); }))
          << name << ": " << tensor;
    }
  }
}

TEST(GoldenFile, EveryParameterHasAGradientOfItsShape) {
  for (const std::string& name : names()) {
    const GoldenFile file(name);
    for (const auto& [parameter, t] : file.under("param/")) {
      int found = 0;
      for (const char* variant : {"", "clean/", "reference/", "diluted/", "nu0/", "nu1/"}) {
        const auto g = file.tensors.find("grad/" + std::string(variant) + parameter);
        found += g != file.tensors.end() && g->second.shape == t.shape;
      }
      EXPECT_GE(found, 1) << name << ": " << parameter;
    }
  }
}

TEST(GoldenFile, QuantizerLossIsTheMeanSquaredDistance) {
  const GoldenFile file("vq");
  const auto &z = file.at("in/z").values, &q = file.at("out/quantized").values;
  double sum = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    sum += (z[i] - q[i]) * (z[i] - q[i]);
  }
  EXPECT_NEAR(sum / static_cast<double>(z.size()), file.scalar("out/vq_loss.f64"), 1e-6);
}

TEST(GoldenFile, IdentityBlockReturnsItsInput) {
  const GoldenFile file("normformer_block_init");
  EXPECT_EQ(file.at("in/x").values, file.at("out/y").values);
}

TEST(GoldenFile, MissingFileAndTensorAreErrors) {
  EXPECT_THROW(GoldenFile("no_such_file"), std::runtime_error);
  EXPECT_THROW(GoldenFile("vq").at("no_such_tensor"), std::runtime_error);
}

}  // namespace
}  // namespace tessera::test
