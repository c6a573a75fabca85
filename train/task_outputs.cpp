#include "train/task_outputs.h"

#include <algorithm>
#include <filesystem>
#include <span>

#include "train/class_names.h"

namespace tessera {
namespace {

/// A column of a task's truth, and how to write it where a jet has none.
struct TruthColumn {
  const char *path, *without;
};

std::span<const TruthColumn> truth_columns(Task task) {
  static constexpr TruthColumn kTau[] = {{"label/tau_dm", "-1 for jets that are no tau"},
                                         {"truth/vis_px", "0 for jets that are no tau"},
                                         {"truth/vis_py", "0 for jets that are no tau"}};
  static constexpr TruthColumn kTag[] = {
      {"label/class", "the index of a class of the attribute 'classes' for each jet"}};
  switch (task) {
    case Task::tau_id:
    case Task::tau_dm:
      return std::span(kTau).first(1);
    case Task::tau_pt:
      return kTau;
    case Task::tag:
      return kTag;
  }
  return {};
}

}  // namespace

std::vector<std::string> classes_of(Task task, const Dataset& data) {
  return task == Task::tag ? data.classes() : fixed_classes(task);
}

std::vector<std::string> fixed_classes(Task task) {
  switch (task) {
    case Task::tau_id:
      return {"background", "tau"};
    case Task::tau_dm:
      return {"h", "h_pi0", "h_2pi0", "3h", "3h_pi0", "rare"};
    case Task::tau_pt:
    case Task::tag:
      break;
  }
  return {};
}

std::optional<Quantity> quantity_of(Task task) {
  if (task != Task::tau_pt) {
    return std::nullopt;
  }
  return Quantity{.name = "ln_pt_ratio",
                  .meaning = "ln(pT of the visible tau / pT of the reconstructed jet)",
                  .unit = "1"};
}

bool hadronic(int decay_mode) { return decay_mode >= 0 && decay_mode != 16; }

float least_pt(Task task) {
  return task == Task::tau_id ? 20.0F : task == Task::tau_dm ? 5.0F : 0.0F;
}

int class_place(Task task, int label, int decay_mode) {
  switch (task) {
    case Task::tau_id:
      return decay_mode == 16 ? -1 : static_cast<int>(hadronic(decay_mode));
    case Task::tau_dm:
      return tau_decay_class(decay_mode);
    case Task::tag:
      return label;
    case Task::tau_pt:
      break;
  }
  return -1;
}

void check_classes(Task task, const std::vector<std::string>& classes, std::int64_t outputs,
                   const Dataset& data) {
  if (task != Task::tag) {
    return;
  }
  TESSERA_CHECK_KIND(ErrorKind::data, classes.empty() || classes == data.classes(),
                     "{}: expected labels of the model's classes {} in this order, got {}",
                     data.manifest().name, list_of(classes), list_of(data.classes()));
  TESSERA_CHECK_KIND(ErrorKind::data, std::cmp_equal(data.classes().size(), outputs),
                     "{}: expected {} classes, one for each output of the model, got {}",
                     data.manifest().name, outputs, list_of(data.classes()));
}

bool has_truth(Task task, const Dataset& data) {
  return (task != Task::tag || !data.classes().empty()) &&
         std::ranges::all_of(truth_columns(task),
                             [&](const TruthColumn& column) { return data.holds(column.path); });
}

void check_truth(Task task, const Dataset& data) {
  for (const auto& [path, without] : truth_columns(task)) {
    const std::filesystem::path file = data.file_without(path);
    TESSERA_CHECK_KIND(ErrorKind::data, file.empty(),
                       "{}: dataset '{}': expected the truth that {} needs, got none; write {}",
                       file.string(), path, name(task), without);
  }
}

}  // namespace tessera
