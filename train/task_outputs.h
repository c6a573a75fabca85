// The meaning of a task model's outputs: names of classes and their order, the quantity of a
// regression.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/tasks.h"

namespace tessera {

/// The quantity that a regression's output stands for.
struct Quantity {
  std::string name, meaning, unit;
  bool operator==(const Quantity&) const = default;
};

/// Class names in the order of the outputs: fixed for tau-id and tau-dm, those of the dataset for
/// tag, none for tau-pt.
std::vector<std::string> classes_of(Task task, const Dataset& data);
/// The same where the task alone fixes them; empty for tag and tau-pt.
std::vector<std::string> fixed_classes(Task task);
/// The output of tau-pt; nothing for the classifications.
std::optional<Quantity> quantity_of(Task task);

/// Whether a decay mode of the truth is a hadronic tau's; -1 is no tau, 16 a leptonic one.
bool hadronic(int decay_mode);
/// The smallest pT (GeV) of reconstructed jets that take part in the task.
float least_pt(Task task);
/// The place of a jet's truth among the task's classes, from its class label (tag) or its decay
/// mode; -1 where it belongs to none, or for tau-pt.
int class_place(Task task, int label, int decay_mode);

/// Throws Error(data) unless labels of the data are places in `classes`, the names of `outputs`
/// outputs in order; where `classes` is empty, of a model that was stored without names, unless
/// there are as many of them as outputs. Only tag takes labels whose meaning a dataset decides.
void check_classes(Task task, const std::vector<std::string>& classes, std::int64_t outputs,
                   const Dataset& data);

/// Whether a file holds the truth of the task.
bool has_truth(Task task, const Dataset& data);
/// Throws Error(data), naming the first file and column, unless every file with jets holds the
/// truth of the task: a column that is missing is not taken for "no tau".
void check_truth(Task task, const Dataset& data);

}  // namespace tessera
