// Small datasets whose class lists, columns and splits a test chooses, and models with random
// weights beside them.
#pragma once

#include <algorithm>
#include <memory>

#include "support/small_sample.h"
#include "support/tiny_jobs.h"

namespace tessera {

using Names = std::vector<std::string>;

/// The classes of random_jets(), in the order of its labels.
inline const Names kThree{"QCD", "Hbb", "Tbqq"};

/// The jets with their labels' classes listed in another order: the same names, other numbers.
inline NativeJets relabelled(JetBlock jets, const Names& order) {
  for (std::uint8_t& label : jets.label_class) {
    label = static_cast<std::uint8_t>(std::ranges::find(order, kThree[label]) - order.begin());
  }
  return native_columns(std::move(jets), order);
}

inline NativeJets without(NativeJets jets, std::initializer_list<const char*> columns) {
  for (const char* column : columns) {
    jets.columns.erase(column);
  }
  if (!jets.columns.contains("label/class")) {
    jets.classes.clear();
  }
  return jets;
}

/// A dataset directory of files SPLIT_0.h5, SPLIT_1.h5, ...; returns its name.
inline std::string write_splits(const std::filesystem::path& directory,
                                const std::vector<std::pair<std::string, NativeJets>>& files) {
  std::filesystem::create_directories(directory);
  std::map<std::string, std::vector<std::string>> splits;
  for (const auto& [split, jets] : files) {
    const std::string name = fmt::format("{}_{}.h5", split, splits[split].size());
    write_native_jets(directory / name, jets);
    splits[split].push_back(name);
  }
  write_manifest(directory, make_manifest(directory, "own", splits));
  return directory;
}

inline TaskModelConfig tagger(const Names& classes) {
  return {.task = Task::tag,
          .backbone = tiny::kBackbone,
          .outputs = std::ssize(classes),
          .classes = classes};
}

/// A model with the random weights of a seed.
inline std::unique_ptr<TaskModel> model_of(const TaskModelConfig& config, std::uint64_t seed = 7) {
  Rng rng(seed);
  auto model = std::make_unique<TaskModel>(config, rng);
  model->set_training(false);
  return model;
}

}  // namespace tessera
