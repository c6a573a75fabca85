#include "apps/model_data.h"

#include <filesystem>

#include "apps/output.h"
#include "apps/programs.h"
#include "train/class_names.h"
#include "train/task_outputs.h"

namespace tessera::apps {

namespace fs = std::filesystem;

Stored<TaskModel> load_on_device(const std::string& directory, Device device) {
  Stored<TaskModel> stored = load_task_model(directory);
  stored.model->to(device);
  return stored;
}

std::shared_ptr<const Dataset> open_for(const TaskModel& model, const std::string& data,
                                        const std::string& split, Labels labels, Weights weights) {
  const DatasetOptions options{
      .split = split.empty() ? "test" : split,
      .weights = weights,
      .classes = model.config.classes,
      .classes_of = "the model",
      .labels = labels == Labels::by_name && model.config.task == Task::tag};
  if (!fs::is_regular_file(data)) {
    return std::make_shared<Dataset>(data, options);
  }
  TESSERA_CHECK(split.empty(), "--split: a lone file such as {} has no splits, got '{}'", data,
                split);
  check_foreign_file(data);
  return std::make_shared<Dataset>(Dataset::of_file(data, options));
}

std::vector<std::string> output_names(const TaskModel& model, const std::string& directory,
                                      const Dataset& data) {
  const TaskModelConfig& c = model.config;
  if (c.task != Task::tag || !c.classes.empty()) {
    return c.classes;
  }
  if (data.classes().empty()) {
    print_err("WARNING: {}: the model holds no class names; its outputs have numbers\n", directory);
    return {};
  }
  check_classes(c.task, c.classes, c.outputs, data);
  print_err(
      "WARNING: {}: the model holds no class names; its {} outputs are taken for the "
      "classes of the data in their order, {}\n",
      directory, c.outputs, list_of(data.classes()));
  return data.classes();
}

}  // namespace tessera::apps
