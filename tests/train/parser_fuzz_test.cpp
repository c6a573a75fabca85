// Mutated files of every format that a run reads without HDF5: each is read or refused with a typed
// error, within a second and without memory that the file does not account for.
#include "support/forged_checkpoint.h"
#include "train/config.h"
#include "train/manifest.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string with_length(const std::string& header, const std::string& data) {
  const std::uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

void read_tensors(const std::string& bytes) { (void)parse_safetensors(bytes, "x"); }

TEST(ParserFuzz, Safetensors) {
  const TempDir dir;
  TensorMap tensors;
  tensors["w"] = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  tensors["none"] = Tensor::zeros({0, 4});
  tensors["ids"] = Tensor::from(std::vector<std::int32_t>{1, -2}, {2});
  tensors["half"] = Tensor::full({3}, 0.5F).to(DType::bf16);
  write_safetensors(dir.path() / "a", tensors, {{"k", "v"}});
  const std::string good = read_text(dir.path() / "a");
  fuzz(good, ErrorKind::data, read_tensors, 1);
  // The same in the header alone, its length made to fit.
  std::uint64_t length = 0;
  std::memcpy(&length, good.data(), 8);
  const std::string data = good.substr(8 + length);
  fuzz(
      good.substr(8, length), ErrorKind::data,
      [&](const std::string& header) { read_tensors(with_length(header, data)); }, 2);
  for (const std::string& text : hostile_json("w")) {
    EXPECT_FALSE(accepted(with_length(text, ""), ErrorKind::data, read_tensors));
  }
}

// An empty tensor may not have extents whose product is beyond any memory: strides would overflow.
TEST(ParserFuzz, SafetensorsWithAnEmptyTensorOfHugeExtentsAreRefused) {
  for (const char* shape :
       {"[0,4611686018427387904,4]", "[4611686018427387904,4,0]", "[9223372036854775807,2,0]"}) {
    const std::string header =
        std::string(R"({"a":{"dtype":"F32","data_offsets":[0,0],"shape":)") + shape + "}}";
    EXPECT_FALSE(accepted(with_length(header, ""), ErrorKind::data, read_tensors)) << shape;
  }
}

TEST(ParserFuzz, CheckpointManifest) {
  const Forged checkpoint;
  const fs::path file = checkpoint.path() / "MANIFEST.json";
  const std::string good = read_text(file);
  const auto read = [&](const std::string& text) {
    write(file, text);
    verify_checkpoint(checkpoint.path());
  };
  fuzz(good, ErrorKind::data, read, 3);
  for (const char* key : {"step", "files"}) {
    for (const std::string& text : hostile_json(key)) {
      EXPECT_FALSE(accepted(text, ErrorKind::data, read));
    }
  }
}

TEST(ParserFuzz, CheckpointState) {
  const Forged checkpoint;
  const auto read = [&](const std::string& text) {
    checkpoint.put("state.json", text);
    (void)read_checkpoint(checkpoint.path());
  };
  fuzz(read_text(checkpoint.path() / "state.json"), ErrorKind::data, read, 4);
  for (const std::string& text : hostile_json("step")) {
    EXPECT_EQ(accepted(text, ErrorKind::data, read), text.empty());  // no file, no state
  }
}

TEST(ParserFuzz, DatasetManifest) {
  const TempDir dir;
  const DatasetManifest manifest{
      .name = "toy",
      .splits = {{"train", {{.file = "a.h5", .bytes = 10, .n = 3, .class_counts = {{"qcd", 3}}}}}},
      .columns = {{"pt", {.dtype = "f32", .unit = "GeV", .mean = 1.5, .std = 2}}}};
  write_manifest(dir.path(), manifest);
  const fs::path file = dir.path() / "manifest.json";
  const auto read = [&](const std::string& text) {
    write(file, text);
    (void)read_manifest(dir.path());
  };
  std::string good = read_text(file);
  fuzz(good, ErrorKind::data, read, 5);
  // Version 1 has no hash of its own: what was edited comes to be read.
  good.replace(good.find("\"version\": 2"), 12, "\"version\": 1");
  fuzz(good, ErrorKind::data, read, 8);
  for (const char* key : {"format", "version", "splits", "columns", "name"}) {
    for (const std::string& text : hostile_json(key)) {
      EXPECT_FALSE(accepted(text, ErrorKind::data, read)) << key;
    }
  }
}

struct Optimizer {
  double lr = 1e-3;
  std::int32_t steps = 100;
  std::string kind = "cosine";
};
struct RunConfig {
  std::uint64_t seed = 1;
  bool fast = false;
  float weight = 0.1F;
  std::vector<std::string> files{"a", "b"};
  std::vector<std::int64_t> sizes{1, 2};
  std::vector<double> grid{0.5};
  Optimizer train;
};

Schema<RunConfig> schema() {
  Schema<Optimizer> inner;
  inner.add("lr", [](Optimizer& c) { return &c.lr; }, {.min = 0, .max = 1})
      .add("steps", [](Optimizer& c) { return &c.steps; }, {.min = 1})
      .add("kind", [](Optimizer& c) { return &c.kind; }, {.choices = {"cosine", "constant"}});
  Schema<RunConfig> s;
  s.add("seed", [](RunConfig& c) { return &c.seed; }, {})
      .add("fast", [](RunConfig& c) { return &c.fast; }, {})
      .add("weight", [](RunConfig& c) { return &c.weight; }, {})
      .add("data.files", [](RunConfig& c) { return &c.files; }, {})
      .add("data.sizes", [](RunConfig& c) { return &c.sizes; }, {.min = 0})
      .add("data.grid", [](RunConfig& c) { return &c.grid; }, {.min = 0})
      .add_table(
          "train", [](RunConfig& c) { return &c.train; }, inner);
  return s;
}

TEST(ParserFuzz, TomlConfiguration) {
  const Schema<RunConfig> s = schema();
  const auto read = [&](const std::string& text) {
    RunConfig config;
    s.read_text(text, "run.toml", config);
  };
  fuzz(s.dump({}), ErrorKind::usage, read, 6);
  const std::string deep(100'000, '[');
  for (const std::string& text :
       {"seed = " + deep, deep, "seed = " + deep + std::string(100'000, ']'),
        std::string(20'000, 'k') + " = 1", "seed = " + std::string(20'000, '9'),
        "a" + std::string(20'000, '.') + "b = 1", "data.sizes = [" + std::string(20'000, ',')}) {
    EXPECT_FALSE(accepted(text, ErrorKind::usage, read)) << text.substr(0, 20);
  }
}

TEST(ParserFuzz, Overrides) {
  const Schema<RunConfig> s = schema();
  for (const char* good : {"train.lr=3e-4", "data.grid=[0.5, 1]", "train.kind=cosine"}) {
    fuzz(
        good, ErrorKind::usage,
        [&](const std::string& text) {
          RunConfig config;
          s.apply(text, config);
        },
        7);
  }
}

}  // namespace
}  // namespace tessera
