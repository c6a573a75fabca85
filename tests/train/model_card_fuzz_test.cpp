// Model cards with hostile values: each is read or refused with the key and its range before
// anything is allocated.
#include "support/forged_checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

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

TEST(ModelCardFuzz, EveryValueInTurn) {
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
TEST(ModelCardFuzz, CardsAreRefusedWithTheKeyAndItsRange) {
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

// evaluate() of such a model never ended, predict() wrote rows of nan with exit code 0.
TEST(StoredModels, AWeightThatIsNotFiniteIsRefusedAndNamed) {
  for (const StoredModel& stored : stored_models()) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      TensorMap tensors = tensor_map(state(*stored.model));
      const auto found = std::ranges::find_if(
          tensors, [](const auto& t) { return t.second.dtype() == DType::f32; });
      const Tensor spoilt = found->second.detach().clone();
      spoilt.span<float>().back() = bad;
      found->second = spoilt;
      const TempDir dir;
      Checkpoint c;
      c.config_json = stored.card;
      c.model = tensors;
      write_checkpoint(dir.path() / "m", 0, c);
      try {
        stored.read(dir.path() / "m");
        ADD_FAILURE() << stored.name << " with a weight of " << bad;
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::data);
        EXPECT_NE(e.message().find("tensor '" + found->first + "'"), std::string::npos)
            << e.message();
      }
    }
  }
}

TEST(StoredModels, AWeightThatIsNotFiniteIsNotStored) {
  Rng rng(1);
  const TaskModelConfig config{
      .task = Task::tag, .method = Method::deepsets, .width = 8, .outputs = 3};
  const TaskModel model(config, rng);
  const NamedTensor first = model.named_parameters().front();
  Tensor weights = first.tensor.detach();
  weights.span<float>()[2] = NAN;
  const TempDir dir;
  try {
    save_model(dir.path() / "m", task_card(config, {}), model);
    FAIL() << "a NaN was stored";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numeric);
    EXPECT_NE(e.message().find(first.name), std::string::npos) << e.message();
  }
  EXPECT_FALSE(has_model(dir.path() / "m"));
}

TEST(ModelCardFuzz, WeightsOfAnotherTypeAreRefused) {
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

}  // namespace
}  // namespace tessera
