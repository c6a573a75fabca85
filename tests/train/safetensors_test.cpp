#include "train/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"

namespace tessera {
namespace {

std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t n = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  return bytes + header + data;
}

// The message of the refusal, "" if it was accepted.
std::string refusal(const std::string& bytes) {
  try {
    (void)parse_safetensors(bytes, "x");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    return e.message();
  }
  return "";
}

TensorMap some_tensors() {
  TensorMap t;
  t["w"] = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  t["scalar"] = Tensor::scalar(-7.5F);
  t["none"] = Tensor::zeros({0, 4});
  t["ids"] = Tensor::from(std::vector<std::int32_t>{1, -2}, {2});
  t["half"] = Tensor::full({3}, 0.5F).to(DType::bf16);
  t["strided"] = Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2}).transpose(0, 1);
  t["bytes"] = Tensor::full({5}, 9, DType::u8);
  t["wide"] = Tensor::full({2}, 0.1F, DType::f64);
  return t;
}

TEST(Safetensors, TensorsOfEveryTypeComeBackEqual) {
  const TempDir dir;
  write_safetensors(dir.path() / "a", some_tensors(), {{"k", "v \"quoted\""}});
  const Safetensors got = read_safetensors(dir.path() / "a");
  EXPECT_EQ(got.metadata.at("k"), "v \"quoted\"");
  ASSERT_EQ(got.tensors.size(), 8U);
  EXPECT_EQ(got.tensors.at("w").to_vector<float>(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(got.tensors.at("w").shape(), (Shape{2, 3}));
  EXPECT_EQ(got.tensors.at("scalar").item(), -7.5F);
  EXPECT_EQ(got.tensors.at("scalar").rank(), 0);
  EXPECT_EQ(got.tensors.at("none").shape(), (Shape{0, 4}));
  EXPECT_EQ(got.tensors.at("ids").to_vector<std::int32_t>(), (std::vector<std::int32_t>{1, -2}));
  EXPECT_EQ(got.tensors.at("half").to(DType::f32).to_vector<float>()[1], 0.5F);
  EXPECT_EQ(got.tensors.at("strided").to_vector<float>(), (std::vector<float>{1, 3, 2, 4}));
}

TEST(Safetensors, SameContentGivesTheSameBytesAndAlignedTensors) {
  const TempDir dir;
  write_safetensors(dir.path() / "a", some_tensors());
  write_safetensors(dir.path() / "b", some_tensors());
  const std::string bytes = read_text(dir.path() / "a");
  EXPECT_EQ(bytes, read_text(dir.path() / "b"));
  std::uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  EXPECT_EQ(n % 8, 0U);
  const std::string header = bytes.substr(8, n);
  EXPECT_LT(header.find("\"wide\""), header.find("\"ids\""));    // f64 before i32
  EXPECT_LT(header.find("\"w\""), header.find("\"half\""));      // f32 before bf16
  EXPECT_LT(header.find("\"half\""), header.find("\"bytes\""));  // bf16 before u8
}

TEST(Safetensors, EveryRuleOfTheFormatIsEnforced) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  EXPECT_EQ(refusal(file_of(good, "1234")), "");
  EXPECT_EQ(refusal(file_of(good + "   ", "1234")), "");
  EXPECT_EQ(refusal(file_of("{}", "")), "");
  EXPECT_NE(refusal(file_of(good, "12345")), "");  // bytes at the end
  EXPECT_NE(refusal(file_of(good, "123")), "");
  EXPECT_NE(refusal(file_of(" " + good, "1234")), "");
  EXPECT_NE(refusal("1234567"), "");
  EXPECT_NE(refusal(std::string(8, '\xff') + good), "");
  for (
      const char* bad : {
          R"([])",
          R"({"a":1})",
          R"({"a":null})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} x)",
          R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})",
          R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
          R"({"a":{"dtype":"F32","shape":[1]}})",
          R"({"a":{"dtype":"F32","data_offsets":[0,4]}})",
          R"({"a":{"shape":[1],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
          R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})",
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
          R"({"__metadata__":{"a":1},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          R"({"__metadata__":{"a":{}},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          R"({"a":{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}})",
      }) {
    EXPECT_NE(refusal(file_of(bad, "1234")), "") << bad;
  }
}

TEST(Safetensors, TruncationAtEveryByteIsRefused) {
  const TempDir dir;
  write_safetensors(dir.path() / "a", some_tensors());
  const std::string bytes = read_text(dir.path() / "a");
  for (std::size_t keep = 0; keep < bytes.size(); ++keep) {
    EXPECT_NE(refusal(bytes.substr(0, keep)), "") << keep;
  }
}

TEST(Safetensors, MutatedHeadersAreRefusedOrParsedButNeverCrash) {
  const TempDir dir;
  write_safetensors(dir.path() / "a", some_tensors(), {{"k", "v"}});
  const std::string good = read_text(dir.path() / "a");
  Rng rng(3);
  for (int trial = 0; trial < 5000; ++trial) {
    std::string bad = good;
    for (std::uint64_t edits = 1 + rng.below(3); edits > 0; --edits) {
      bad[rng.below(bad.size())] = static_cast<char>(rng.below(256));
    }
    (void)refusal(bad);  // throws anything but Error(data): fails the test
  }
}

}  // namespace
}  // namespace tessera
