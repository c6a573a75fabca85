// Mutated files of every format that a run reads without HDF5: each is read or refused with a typed
// error, within a second and without memory that the file does not account for.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <new>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/hash.h"
#include "train/manifest.h"
#include "train/model_store.h"

namespace {
// Bytes that operator new gave to this thread: an upper bound of what a parser held at any time.
thread_local std::size_t t_allocated = 0;

void* counted(std::size_t bytes) noexcept {
  t_allocated += bytes;
  return std::malloc(bytes > 0 ? bytes : 1);
}
}  // namespace

// Never inlined, or g++ 12 takes new and free for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* p = counted(bytes)) {
    return p;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return ::operator new(bytes); }
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes);
}
[[gnu::noinline]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr int kTrials = 1500;  // for each format

// Pieces that mean something to one of the formats.
const std::vector<std::string> kTokens = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\",
                                          "\n",
                                          "=",
                                          "#",
                                          "'''",
                                          "\"\"\"",
                                          "\\u0000",
                                          "\\ud800",
                                          "null",
                                          "true",
                                          "nan",
                                          "inf",
                                          "-0",
                                          "-1",
                                          "0",
                                          "1e400",
                                          "1e308",
                                          "4611686018427387904",
                                          "9223372036854775807",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "99999999999999999999",
                                          "0x7fffffffffffffff",
                                          "1979-05-27",
                                          "[0,4611686018427387904,4]",
                                          "\"step\":",
                                          "\"bytes\":",
                                          "\"n\":",
                                          "\"shape\":",
                                          "\"data_offsets\":[0,0]",
                                          "\"__metadata__\":{}",
                                          "..",
                                          "/",
                                          "\xc3\x28",
                                          std::string(1, '\0'),
                                          "a.b.c = 1\n",
                                          "[train]\n",
                                          "[[train]]\n"};

std::size_t place(Rng& rng, const std::string& text) {
  return static_cast<std::size_t>(rng.below(text.size() + 1));
}

// One edit of a text: a byte, a bit, a token, a cut, a repeat, or another number.
void edit(std::string& text, Rng& rng) {
  const std::size_t at = place(rng, text);
  const std::size_t length = std::min<std::size_t>(rng.below(40), text.size() - at);
  switch (rng.below(6)) {
    case 0:
      text.replace(at, at < text.size() ? 1 : 0, 1, static_cast<char>(rng.below(256)));
      return;
    case 1:
      if (at < text.size()) {
        text[at] = static_cast<char>(text[at] ^ (1 << rng.below(8)));
      }
      return;
    case 2:
      text.insert(at, kTokens[rng.below(kTokens.size())]);
      return;
    case 3:
      text.erase(at, rng.below(8) == 0 ? std::string::npos : length);
      return;
    case 4:
      text.insert(place(rng, text), text.substr(at, length));
      return;
    default: {
      const std::size_t digit = text.find_first_of("0123456789", at);
      if (digit != std::string::npos) {
        const std::size_t end = text.find_first_not_of("0123456789", digit);
        text.replace(digit, end - digit, kTokens[rng.below(kTokens.size())]);
      }
    }
  }
}

std::string mutated(std::string text, Rng& rng) {
  for (std::uint64_t edits = 1 + rng.below(4); edits > 0; --edits) {
    edit(text, rng);
  }
  return text;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Reads `bytes` under the bounds; whether they were accepted.
template <class Read>
bool accepted(const std::string& bytes, ErrorKind refusal, const Read& read) {
  const std::size_t before = t_allocated;
  const double start = cpu_seconds();
  bool ok = true;
  try {
    read(bytes);
  } catch (const Error& e) {
    ok = false;
    EXPECT_EQ(e.kind(), refusal) << e.message();
    EXPECT_LT(e.message().size(), 4096 + bytes.size()) << e.message().substr(0, 300);
  }
  EXPECT_LT(cpu_seconds() - start, 1.0) << bytes.size() << " bytes";
  EXPECT_LT(t_allocated - before, (std::size_t{64} << 20) + 64 * bytes.size());
  return ok;
}

// Mutations of `good`, and of each mutation that was accepted, so that edits add up.
template <class Read>
void fuzz(const std::string& good, ErrorKind refusal, const Read& read, std::uint64_t seed) {
  ASSERT_TRUE(accepted(good, refusal, read));
  Rng rng(seed);
  std::vector<std::string> seeds{good};
  int refused = 0;
  for (int trial = 0; trial < kTrials && !testing::Test::HasFailure(); ++trial) {
    const std::string bad = mutated(seeds[rng.below(seeds.size())], rng);
    if (!accepted(bad, refusal, read)) {
      ++refused;
    } else if (seeds.size() < 50) {
      seeds.push_back(bad);
    }
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "trial " << trial << " of seed " << seed << ":\n" << bad.substr(0, 2000);
    }
  }
  EXPECT_GT(refused, kTrials / 4);
}

// Texts that are large or deep rather than broken, around a key that the format knows.
std::vector<std::string> hostile_json(const std::string& key) {
  std::string wide = "{";
  for (int i = 0; i < 30'000; ++i) {
    wide += "\"k" + std::to_string(i) + "\":\"\",";
  }
  wide += "\"" + key + "\":1}";
  std::vector<std::string> list{wide, "", std::string(100'000, '['), std::string(100'000, '{'),
                                "[" + std::string(99'999, ',')};
  for (const auto& [open, close] : {std::pair{"[", "]"}, std::pair{"{\"a\":", "}"}}) {
    std::string deep = "{\"version\":1,\"" + key + "\":";
    for (int i = 0; i < 100'000; ++i) {
      deep += open;
    }
    deep += "1";
    for (int i = 0; i < 100'000; ++i) {
      deep += close;
    }
    list.push_back(deep + "}");
  }
  return list;
}

void write(const fs::path& path, const std::string& bytes) {
  fs::remove(path);  // thousands of times: neither fsync nor the flush of a truncated file
  std::ofstream(path, std::ios::binary) << bytes;
}

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

// A checkpoint directory whose MANIFEST.json fits whatever its other files hold.
class Forged {
 public:
  Forged() {
    Checkpoint c;
    c.config_json = "{\"d\": 8}\n";
    c.model["w"] = Tensor::full({3}, 1);
    c.state = {{"step", "7"}, {"rng", "0x17"}, {"batch", "3"}};
    write_checkpoint(path(), 7, c);
  }
  Forged(const Module& model, const std::string& card) {
    Checkpoint c;
    c.config_json = card;
    c.model = tensor_map(state(model));
    write_checkpoint(path(), 0, c);
  }
  [[nodiscard]] fs::path path() const { return dir_.path() / "step-000007"; }
  void put(const std::string& file, const std::string& bytes) const {
    write(path() / file, bytes);
    nlohmann::ordered_json j = nlohmann::ordered_json::parse(read_text(path() / "MANIFEST.json"));
    for (auto& entry : j.at("files")) {
      if (entry.at("name") == file) {
        entry["bytes"] = bytes.size();
        entry["xxh3_128"] = hash_text(bytes);
      }
    }
    j.erase("self");
    j["self"] = hash_text(j.dump());
    write(path() / "MANIFEST.json", j.dump(1) + "\n");
  }

 private:
  TempDir dir_;
};

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

/// A stored model of every kind, and what reads it.
struct StoredModel {
  const char* name;
  std::string card;
  std::unique_ptr<Module> model;
  void (*read)(const fs::path&);
};

StoredModel task_model(const char* name, const TaskModelConfig& config) {
  Rng rng(1);
  return {name, task_card(config, {}), std::make_unique<TaskModel>(config, rng),
          [](const fs::path& p) { (void)load_task_model(p); }};
}

std::vector<StoredModel> stored_models() {
  Rng rng(1);
  const TokenizerConfig tokenizer{.width = 8, .blocks = 1, .heads = 2, .codes = 16};
  const BackboneConfig backbone{.width = 8, .blocks = 1, .heads = 2, .registers = 1};
  const GptConfig gpt{.vocabulary = 18, .width = 8, .blocks = 1, .heads = 2};
  const PretrainConfig objective{.codes = 16, .max_particles = 8};
  std::vector<StoredModel> list;
  list.push_back({"tokenizer", tokenizer_card(tokenizer, {}),
                  std::make_unique<Tokenizer>(tokenizer, rng),
                  [](const fs::path& p) { (void)load_tokenizer(p); }});
  list.push_back({"pretrained", pretrain_card(backbone, objective, {}),
                  std::make_unique<PretrainModel>(backbone, objective, rng),
                  [](const fs::path& p) { (void)load_pretrained(p); }});
  list.push_back({"gpt", gpt_pretrain_card(gpt, {}), std::make_unique<GptPretrainModel>(gpt, rng),
                  [](const fs::path& p) { (void)load_gpt_pretrained(p); }});
  list.push_back(task_model("tag", {.task = Task::tag, .backbone = backbone, .outputs = 3}));
  list.push_back(task_model("omnijet", {.task = Task::tag,
                                        .method = Method::omnijet,
                                        .gpt = gpt,
                                        .tokenizer = tokenizer,
                                        .outputs = 3}));
  list.push_back(task_model(
      "deepsets", {.task = Task::tag, .method = Method::deepsets, .width = 8, .outputs = 3}));
  return list;
}

// Every value of a card in turn.
void each_value(nlohmann::json& card, const std::function<void(nlohmann::json&)>& visit) {
  for (auto& value : card) {
    if (value.is_structured()) {
      each_value(value, visit);
    }
    const nlohmann::json kept = value;
    visit(value);
    value = kept;
  }
}

const std::vector<nlohmann::json> kHostileValues = {0,
                                                    -1,
                                                    1,
                                                    3,
                                                    7,
                                                    1.5,
                                                    1e300,
                                                    -1e300,
                                                    1e-300,
                                                    2147483648,
                                                    INT64_MAX,
                                                    INT64_MIN,
                                                    UINT64_MAX,
                                                    4096,
                                                    65536,
                                                    100000,
                                                    nullptr,
                                                    true,
                                                    "x",
                                                    "",
                                                    "tokenizer",
                                                    "pretrained",
                                                    "task-model",
                                                    "part",
                                                    nlohmann::json::array(),
                                                    nlohmann::json::object(),
                                                    {8},
                                                    {{"width", 8}}};

TEST(ParserFuzz, ModelCards) {
  for (const StoredModel& stored : stored_models()) {
    const Forged forged(*stored.model, stored.card);
    const auto read = [&](const std::string& text) {
      forged.put("config.json", text);
      stored.read(forged.path());
    };
    ASSERT_TRUE(accepted(stored.card, ErrorKind::data, read)) << stored.name;
    nlohmann::json card = nlohmann::json::parse(stored.card);
    each_value(card, [&](nlohmann::json& value) {
      for (const nlohmann::json& hostile : kHostileValues) {
        value = hostile;
        (void)accepted(card.dump(), ErrorKind::data, read);
        if (testing::Test::HasFailure()) {
          FAIL() << stored.name << ": " << card.dump();
        }
      }
    });
    for (const std::string& text : hostile_json("kind")) {
      EXPECT_FALSE(accepted(text, ErrorKind::data, read)) << stored.name;
    }
    if (std::string(stored.name) == "omnijet") {  // the card with the most in it
      fuzz(stored.card, ErrorKind::data, read, 9);
    }
  }
}

// What the line says.
TEST(ParserFuzz, ModelCardsAreRefusedWithTheKeyAndItsRange) {
  const auto models = stored_models();
  const Forged forged(*models[0].model, models[0].card);
  const auto message = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json card = nlohmann::json::parse(models[0].card);
    (card["model"].contains(key) ? card["model"] : card)[key] = value;
    forged.put("config.json", card.dump());
    try {
      models[0].read(forged.path());
    } catch (const Error& e) {
      EXPECT_EQ(exit_code(e.kind()), 65);
      return e.message();
    }
    return std::string("accepted");
  };
  const std::string begin = forged.path().string() + ": ";
  EXPECT_EQ(message("heads", 0), begin + "'heads': expected a whole number from 1 to 64, got 0");
  EXPECT_EQ(message("heads", 3), begin + "attention: width 8 is not a multiple of 3 heads");
  EXPECT_EQ(message("width", -8),
            begin + "'width': expected a whole number from 1 to 4096, got -8");
  EXPECT_EQ(message("width", "8"),
            begin + "'width': expected a whole number from 1 to 4096, got string");
  EXPECT_EQ(message("beta", 1e300), begin + "'beta': expected a number from 0 to 1, got 1e+300");
  EXPECT_NE(message("width", 4096).find("expected at least 20"), std::string::npos);
  EXPECT_EQ(message("kind", "toaster"), begin + "expected a tokenizer, got a toaster");
}

TEST(ParserFuzz, WeightsOfAnotherTypeAreRefused) {
  const auto models = stored_models();
  TensorMap tensors = tensor_map(state(*models[0].model));
  tensors["vq.lru"] = Tensor::full({16}, 1e30F);
  const TempDir dir;
  Checkpoint c;
  c.config_json = models[0].card;
  c.model = tensors;
  write_checkpoint(dir.path() / "m", 0, c);
  try {
    models[0].read(dir.path() / "m");
    FAIL() << "floats were taken for counters";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("'vq.lru': expected type i32, got f32"), std::string::npos)
        << e.message();
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
