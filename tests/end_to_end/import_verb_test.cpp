// tessera import of fine-tuned models: look-alikes of published classifiers become models that
// predict takes.
#include <gtest/gtest.h>

#include "support/command_line.h"
#include "support/jet_files.h"
#include "support/published_checkpoints.h"
#include "train/model_store.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class ImportVerb : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string data_ = (dir_.path() / "data").string(), run_ = (dir_.path() / "run").string();
  const std::string tokenizer_ = " --tokenizer tests/golden/omnijet_tokenizer.ckpt";

  ImportVerb() {
    fs::create_directory(data_);
    write_jets(fs::path(data_) / "test.h5", random_jets({3, 7, 1, 12, 5}, 100));
    write_manifest(data_, make_manifest(data_, "few", {{"test", {"test.h5"}}}));
  }
  /// A checkpoint as a file.
  std::string file(const std::string& name, const TensorMap& tensors) {
    const fs::path path = dir_.path() / (name + ".safetensors");
    write_safetensors(path, tensors);
    return path.string();
  }
  Outcome import_to(const std::string& run, const std::string& arguments) {
    return run_tessera(dir_, "import --quiet -c omnijet-alpha run.directory=" + run +
                                 " tokenizer.width=16 tokenizer.blocks=2 tokenizer.heads=4"
                                 " tokenizer.codes=64 backbone.width=32 backbone.blocks=2"
                                 " backbone.heads=4 " +
                                 arguments);
  }
  /// The first line of the answers, and how many follow.
  std::pair<std::string, std::ptrdiff_t> predicted(const std::string& model) {
    const Outcome r = run_tessera(dir_, "predict --ignore-labels " + model + " " + data_);
    EXPECT_EQ(r.code, 0) << r.err;
    return {r.out.substr(0, r.out.find('\n')), std::ranges::count(r.out, '\n') - 1};
  }
};

TEST_F(ImportVerb, ClassifiersOfOmnijetBecomeFineTunedModels) {
  for (const HeadKind kind : {HeadKind::sum, HeadKind::class_attention_ref}) {
    const std::string run = run_ + name(kind),
                      model = run + "/finetune/tag__omnijet__imported/model";
    const std::string arguments = tokenizer_ + " --classifier " +
                                  file(name(kind), test::their_classifier(kind)) +
                                  " --classes QCD,Tbqq";
    const Outcome first = import_to(run, arguments);
    ASSERT_EQ(first.code, 0) << first.err;
    EXPECT_NE(first.out.find("4 heads of 8, from backbone.heads"), std::string::npos) << first.out;
    const auto [header, jets] = predicted(model);
    EXPECT_NE(header.find("p_QCD,p_Tbqq"), std::string::npos) << header;
    EXPECT_EQ(jets, 5);
    EXPECT_NE(import_to(run, arguments).err.find("imported before, kept"), std::string::npos);
    EXPECT_EQ(load_task_model(model).model->config.slots, 128) << "as -c omnijet-alpha cuts them";
  }
}

TEST_F(ImportVerb, APartOfWeaverBecomesAFineTunedModel) {
  Rng rng(4);
  const TaskModel ours(
      {.task = Task::tag, .method = Method::part, .part = PartSize::jet_class, .outputs = 10}, rng);
  std::vector<NamedTensor> part;
  for (const auto& [name, tensor] : state(ours)) {
    part.push_back({name.substr(std::string("part.").size()), tensor});
  }
  const std::string stored = file("part", test::their_part(part, WeaverLayout::heads_inner));
  const Outcome unsaid = import_to(run_, "--part " + stored);
  EXPECT_EQ(unsaid.code, 64);
  EXPECT_NE(unsaid.err.find("--weaver VERSION"), std::string::npos) << unsaid.err;
  const Outcome done = import_to(run_, "--part " + stored + " --weaver 0.4");
  ASSERT_EQ(done.code, 0) << done.err;
  const auto [header, jets] = predicted(run_ + "/finetune/tag__part__imported/model");
  EXPECT_NE(header.find("p_QCD,p_Hbb,p_Hcc,p_Hgg,p_H4q,p_Hqql,p_Zqq,p_Wqq,p_Tbqq,p_Tbl"),
            std::string::npos)
      << header;
  EXPECT_EQ(jets, 5);
}

TEST_F(ImportVerb, WhatCannotBeImportedIsOneLine) {
  const std::string sum = file("sum", test::their_classifier(HeadKind::sum)),
                    generative = file("generative", test::their_backbone());
  const auto refused = [&](const std::string& run, const std::string& arguments, int code,
                           const char* part) {
    const Outcome r = import_to(run_ + run, arguments);
    EXPECT_EQ(r.code, code) << arguments;
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
    EXPECT_EQ(std::ranges::count(r.err, '\n'), 1) << r.err;
  };
  refused("1", "--classifier " + sum, 66, "give it as --tokenizer FILE");
  refused("2", tokenizer_ + " --classifier " + sum, 64,
          "--classes: expected 2 names in the order of the checkpoint's outputs, got none");
  refused("3", tokenizer_ + " --classifier " + sum + " --classes QCD", 64, "got 1");
  refused("4", tokenizer_ + " --classifier " + generative + " --classes QCD,Tbqq", 65,
          "expected the head of a classifier");
  refused("5", "--backbone " + sum, 65, "give it as --classifier");
  refused("6", "--part " + sum + " --weaver 0.4", 65, "expected a Particle Transformer");
  refused("7", "--part " + sum + " --weaver new", 64, "expected a version such as 0.4 or 0.5.1");
  refused("8", "--part /nowhere.pt --weaver 0.4", 66, "got nothing there");
}

}  // namespace
}  // namespace tessera
