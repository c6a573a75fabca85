// Class names travel with a model, labels go to its outputs by name, and answers need no truth.
#include <gtest/gtest.h>

#include "support/labelled_files.h"
#include "support/tiny_jobs.h"
#include "train/class_names.h"
#include "train/json_text.h"
#include "train/mixed_batches.h"
#include "train/model_card.h"
#include "train/predict.h"
#include "train/task_outputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using tiny::kBackbone;

const FeatureConfig kFeatures{.max_constituents = 16};

std::string message_of(ErrorKind kind, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.message();
    return e.message();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

void expect_holds(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  }
  EXPECT_EQ(std::ranges::count(text, '\n'), 0) << text;
}

std::shared_ptr<const Dataset> opened(const std::string& directory, DatasetOptions options = {}) {
  return std::make_shared<const Dataset>(directory, options);
}

TEST(ClassNames, FilesOfASplitMayListThemInAnyOrder) {
  const TempDir dir;
  const JetBlock a = random_jets({3, 1, 4, 1, 5, 9}), b = random_jets({2, 6, 5, 3, 5}, 6);
  const Names other{"Tbqq", "QCD", "Hbb"};
  const auto data = opened(write_splits(
      dir.path() / "d", {{"train", relabelled(a, kThree)}, {"train", relabelled(b, other)}}));
  EXPECT_EQ(data->classes(), kThree);
  std::vector<std::uint8_t> want = a.label_class;
  want.insert(want.end(), b.label_class.begin(), b.label_class.end());
  EXPECT_EQ(data->class_labels(), want);
  for (std::uint64_t j = 0; j < data->size(); ++j) {
    const auto [block, row] = data->locate(j);
    EXPECT_EQ(block->label_class[row], want[j]) << j;
  }
}

TEST(ClassNames, TheOrderThatIsAskedForIsDeliveredAndOtherNamesAreRefusedWithBothLists) {
  const TempDir dir;
  const JetBlock jets = random_jets({3, 1, 4, 1, 5, 9});
  const std::string directory =
      write_splits(dir.path() / "d", {{"train", relabelled(jets, kThree)}});
  const Names order{"Hbb", "Tbqq", "QCD"};
  const auto data = opened(directory, {.classes = order, .classes_of = "the model"});
  EXPECT_EQ(data->classes(), order);
  for (std::uint64_t j = 0; j < data->size(); ++j) {
    EXPECT_EQ(order[data->class_labels()[j]], kThree[jets.label_class[j]]) << j;
  }
  for (const Names& wrong : {Names{"QCD", "Hbb"}, Names{"QCD", "Hbb", "Wqq"},
                             Names{"QCD", "Hbb", "Tbqq", "Wqq"}, Names{"QCD", "Hbb", "hbb"}}) {
    const std::string text = message_of(ErrorKind::data, [&] {
      (void)opened(directory, {.classes = wrong, .classes_of = "the model"});
    });
    expect_holds(text,
                 {"train_0.h5", list_of(wrong), "of the model", R"(got ["QCD", "Hbb", "Tbqq"])"});
  }
  EXPECT_TRUE(opened(directory, {.labels = false})->classes().empty());
  EXPECT_TRUE(opened(directory, {.labels = false})->class_labels().empty());
}

TEST(ClassNames, TwoFilesOfASplitWithOtherNamesAreRefusedWithBothLists) {
  const TempDir dir;
  NativeJets two = relabelled(random_jets({2, 6, 5}, 6), kThree);
  two.classes = {"QCD", "Hbb", "DarkZ"};
  const std::string directory = write_splits(
      dir.path() / "d", {{"train", relabelled(random_jets({3, 1, 4}), kThree)}, {"train", two}});
  expect_holds(message_of(ErrorKind::data, [&] { (void)opened(directory); }),
               {"train_1.h5", R"(["QCD", "Hbb", "Tbqq"])", R"(["QCD", "Hbb", "DarkZ"])"});
}

TEST(ClassNames, AFileWithoutLabelsBesideLabelledOnesIsNamedWhereLabelsAreNeeded) {
  const TempDir dir;
  const auto data = opened(write_splits(
      dir.path() / "d",
      {{"train", without(native_columns(random_jets({3, 1, 4}), kThree), {"label/class"})},
       {"train", relabelled(random_jets({2, 6, 5}, 3), kThree)}}));
  EXPECT_EQ(data->classes(), kThree);
  EXPECT_TRUE(data->class_labels().empty());
  const UnlabelledData some{.train = {data}, .validation = {data}, .classes = {"QCD"}};
  for (const auto& body : std::vector<std::function<void()>>{
           [&] { check_truth(Task::tag, *data); }, [&] { (void)unlabelled_jets(some, *data); }}) {
    expect_holds(message_of(ErrorKind::data, body), {"train_0.h5", "'label/class'"});
  }
}

TEST(ClassNames, AChoiceOfClassesForPretrainingIsByNameInEveryFile) {
  const TempDir dir;
  const JetBlock a = random_jets({3, 1, 4, 1, 5, 9}), b = random_jets({2, 6, 5, 3, 5, 8}, 6);
  const auto data =
      opened(write_splits(dir.path() / "d", {{"train", relabelled(a, kThree)},
                                             {"train", relabelled(b, {"Tbqq", "Hbb", "QCD"})}}));
  const UnlabelledData some{.train = {data}, .validation = {data}, .classes = {"Tbqq"}};
  // ids count up and the class is id % 3
  EXPECT_EQ(unlabelled_jets(some, *data), (std::vector<std::uint64_t>{2, 5, 8, 11}));
}

TEST(ModelCard, HoldsNamesOfOutputsOrTheQuantityOfARegression) {
  const TempDir dir;
  const auto reloaded = [&](const TaskModelConfig& c) {
    Rng rng(1);
    save_model(dir.path() / "m", task_card(c, kFeatures), TaskModel(c, rng));
    return load_task_model(dir.path() / "m").model->config.classes;
  };
  const Names odd{"H->bb, boosted", "two words", "\"q\""};
  EXPECT_EQ(reloaded(tagger(odd)), odd);
  EXPECT_EQ(reloaded({.task = Task::tau_id, .backbone = kBackbone, .outputs = 2}),
            (Names{"background", "tau"}));
  EXPECT_EQ(reloaded({.task = Task::tau_dm, .backbone = kBackbone, .outputs = 6}).at(3), "3h");
  EXPECT_EQ(reloaded({.task = Task::tau_pt, .backbone = kBackbone}), Names{});
  const auto card = parse_json(task_card({.task = Task::tau_pt}, kFeatures), "card");
  EXPECT_EQ(card.at("model").at("target").at("unit"), "1");
  EXPECT_NE(card.at("model").at("target").at("meaning").get<std::string>().find("pT"),
            std::string::npos);
}

TEST(ModelCard, NamesThatDoNotFitTheOutputsAreRefused) {
  const auto refused = [](const TaskModelConfig& c,
                          const std::function<void(nlohmann::json&)>& edit) {
    auto model = parse_json(task_card(c, kFeatures), "card").at("model");
    edit(model);
    return message_of(ErrorKind::data, [&] { (void)config_in<TaskModelConfig>(model); });
  };
  using nlohmann::json;
  const TaskModelConfig three = tagger(kThree);
  expect_holds(refused(three, [](json& m) { m["outputs"] = 4; }), {"'outputs'", "3", "4"});
  expect_holds(refused(three, [](json& m) { m["classes"] = {"a", "b", "a"}; }), {"'classes'"});
  const TaskModelConfig id{.task = Task::tau_id, .outputs = 2, .classes = {"background", "tau"}};
  expect_holds(refused(id, [](json& m) { m["classes"] = {"tau", "background"}; }), {"'classes'"});
  expect_holds(refused(id, [](json& m) { m.erase("classes"), m["outputs"] = 3; }), {"'outputs'"});
  const TaskModelConfig pt{.task = Task::tau_pt};
  expect_holds(refused(pt, [](json& m) { m["outputs"] = 2; }), {"'outputs'"});
  expect_holds(refused(pt, [](json& m) { m["target"]["name"] = "pt"; }), {"'target'"});
}

TEST(ModelCard, OfACheckpointFromBeforeNamesIsStillThatOfItsRun) {
  const std::string now = task_card(tagger(kThree), kFeatures);
  auto old = parse_json(now, "card");
  old["model"].erase("classes");
  EXPECT_TRUE(same_card(now, now));
  EXPECT_TRUE(same_card(old.dump(1), now));
  EXPECT_FALSE(same_card(now, old.dump(1)));
  EXPECT_FALSE(same_card(task_card(tagger({"Hbb", "QCD", "Tbqq"}), kFeatures), now));
  old["model"]["outputs"] = 4;
  EXPECT_FALSE(same_card(old.dump(1), now));
  EXPECT_FALSE(same_card("one", "two"));
}

TEST(LabelledAnswers, OfAnotherOrderAreRefusedAndByNameAreTheSame) {
  const TempDir dir;
  const JetBlock jets = random_jets(random_lengths(60, 4));
  const Names other{"Tbqq", "QCD", "Hbb"};
  const std::string straight =
                        write_splits(dir.path() / "a", {{"train", relabelled(jets, kThree)}}),
                    turned = write_splits(dir.path() / "b", {{"train", relabelled(jets, other)}});
  const auto model = model_of(tagger(kThree));
  const Predictions want = predict_labelled(*model, opened(straight), kFeatures);
  expect_holds(message_of(ErrorKind::data,
                          [&] { (void)predict_labelled(*model, opened(turned), kFeatures); }),
               {R"(["QCD", "Hbb", "Tbqq"])", R"(["Tbqq", "QCD", "Hbb"])"});
  const Predictions got =
      predict_labelled(*model, opened(turned, {.classes = model->config.classes}), kFeatures);
  EXPECT_EQ(got.target, want.target);
  EXPECT_EQ(got.outputs, want.outputs);
  EXPECT_EQ(got.loss, want.loss);
  const auto nameless = model_of({.task = Task::tag, .backbone = kBackbone, .outputs = 2});
  expect_holds(message_of(ErrorKind::data,
                          [&] { (void)predict_labelled(*nameless, opened(straight), kFeatures); }),
               {"expected 2 classes", R"(["QCD", "Hbb", "Tbqq"])"});
}

TEST(LabelledAnswers, TakeAnotherOrderOfClassesWithTheirTargets) {
  const Predictions p{.columns = 3, .outputs = {1, 2, 3, 4, 5, 6}, .target = {0, 2}};
  const Predictions r = reordered(p, {"a", "b", "c"}, {"c", "a", "b"}, "the other");
  EXPECT_EQ(r.outputs, (std::vector<float>{3, 1, 2, 6, 4, 5}));
  EXPECT_EQ(r.target, (std::vector<std::int32_t>{1, 0}));
  expect_holds(message_of(ErrorKind::data,
                          [&] {
                            (void)reordered(p, {"a", "b", "c"}, {"a", "b"}, "the other");
                          }),
               {R"(["a", "b"] of the other)", R"(["a", "b", "c"])"});
}

TEST(Finetuning, RefusesSplitsWhoseLabelsAreNotInTheModelsOrder) {
  const TempDir dir;
  const JetBlock jets = random_jets(random_lengths(60, 4));
  const std::string straight =
                        write_splits(dir.path() / "a", {{"train", relabelled(jets, kThree)}}),
                    turned = write_splits(dir.path() / "b",
                                          {{"train", relabelled(jets, {"Tbqq", "QCD", "Hbb"})}});
  FinetuneJob job = tiny::finetune_job(Strategy::scratch, {});
  job.model.classes = kThree;
  const Splits splits{opened(straight), opened(turned), opened(straight), kFeatures};
  expect_holds(message_of(ErrorKind::data, [&] { (void)finetune(job, splits, {}, {}); }),
               {R"(["QCD", "Hbb", "Tbqq"])", R"(["Tbqq", "QCD", "Hbb"])"});
}

TEST(Answers, NeedNoTruthAndCoverEveryJetWithAConstituent) {
  const TempDir dir;
  const JetBlock jets = random_jets(random_lengths(60, 4));
  const NativeJets full = native_columns(jets, kThree);
  const std::string labelled = write_splits(dir.path() / "a", {{"train", full}});
  const std::string bare = write_splits(
      dir.path() / "b",
      {{"train", without(full, {"label/class", "label/tau_dm", "truth/vis_px", "truth/vis_py",
                                "truth/vis_pz", "truth/vis_energy"})}});
  std::vector<std::uint64_t> answerable;
  for (std::uint64_t j = 0; j < jets.jets(); ++j) {
    if (jets.offsets[j + 1] > jets.offsets[j]) answerable.push_back(j);
  }
  ASSERT_LT(answerable.size(), jets.jets()) << "the sample has jets without a constituent";
  for (const TaskModelConfig& config :
       {tagger(kThree), TaskModelConfig{.task = Task::tau_id, .backbone = kBackbone, .outputs = 2},
        TaskModelConfig{.task = Task::tau_dm, .backbone = kBackbone, .outputs = 6},
        TaskModelConfig{.task = Task::tau_pt, .method = Method::deepsets, .width = 8}}) {
    const auto model = model_of(config);
    const Answers got = predict(*model, opened(bare), kFeatures);
    EXPECT_EQ(got.jets, answerable) << name(config.task);
    EXPECT_EQ(got.outputs, predict(*model, opened(labelled), kFeatures).outputs);
    const Predictions judged = predict_labelled(*model, opened(labelled), kFeatures);
    const auto part = select_jets(config.task, *opened(labelled));
    const auto columns = static_cast<std::size_t>(got.columns);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto at =
          static_cast<std::size_t>(std::ranges::find(got.jets, part[i]) - got.jets.begin());
      for (std::size_t c = 0; c < columns; ++c) {
        EXPECT_EQ(got.outputs[at * columns + c], judged.outputs[i * columns + c])
            << name(config.task) << " jet " << part[i];
      }
    }
    expect_holds(message_of(ErrorKind::data,
                            [&] { (void)predict_labelled(*model, opened(bare), kFeatures); }),
                 {"train_0.h5", config.task == Task::tag ? "'label/class'" : "'label/tau_dm'"});
  }
}

TEST(Answers, OfEmptyJetsAloneAreNone) {
  const TempDir dir;
  write_dataset(dir.path(), {{0, 0, 0}});
  const auto data = opened(dir.path());
  const Answers got = predict(*model_of(tagger(kThree)), data, kFeatures);
  EXPECT_TRUE(got.jets.empty());
  EXPECT_TRUE(got.outputs.empty());
}

TEST(Answers, ThatAreNotFiniteEndInAnErrorThatNamesTheJet) {
  const TempDir dir;
  const auto data = opened(write_splits(
      dir.path() / "d", {{"train", native_columns(random_jets({0, 2, 3}, 40), kThree)}}));
  const auto model = model_of(tagger(kThree));
  for (const NamedTensor& t : state(*model)) {
    Tensor weights = t.tensor;
    if (t.name == "head.fc.bias") fill(weights, NAN);
  }
  expect_holds(message_of(ErrorKind::numeric, [&] { (void)predict(*model, data, kFeatures); }),
               {"nan", "id 41"});
}

TEST(LoneFile, IsADatasetOfOneSplit) {
  const TempDir dir;
  const JetBlock jets = random_jets({3, 1, 0, 4});
  const fs::path path = dir.path() / "data.h5";
  write_native_jets(path, native_columns(jets, kThree));
  const Dataset data = Dataset::of_file(path, {.classes = {"Tbqq", "Hbb", "QCD"}});
  EXPECT_EQ(data.ids(), jets.id);
  EXPECT_EQ(data.class_labels().at(0), 2);
  ASSERT_EQ(data.files().size(), 1U);
  EXPECT_EQ(data.files()[0].path, path);
  EXPECT_EQ(data.files()[0].jets, 4U);
}

}  // namespace
}  // namespace tessera
