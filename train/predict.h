// Answers of a task model to the jets of a dataset, without and with their truth.
#pragma once

#include "train/task_model.h"

namespace tessera {

/// Outputs of a model, a row for each jet.
struct Answers {
  std::int64_t columns = 1;
  std::vector<std::uint64_t> jets;  // (N) positions in the dataset
  std::vector<float> outputs;       // (N, columns)
};

/// Answers to every jet of the dataset that has a constituent, in order. Labels and truth are not
/// read, so that the dataset need not have any. Throws Error(numeric), naming the jet's id, on an
/// output that is not finite.
Answers predict(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                FeatureConfig features);

/// Answers with truth, the jets' weights where they have some, which may be negative, and the mean
/// loss by weight, for the jets that take part in the task (select_jets), in
/// order. Throws Error(data) where a file lacks the truth, or its labels are not in the order of
/// the model's classes (open the dataset with DatasetOptions::classes), Error(numeric), naming the
/// jet's id, on an output that is not finite.
Predictions predict_labelled(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                             FeatureConfig features);
/// The same for some jets of the dataset.
Predictions predict_labelled(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                             const std::vector<std::uint64_t>& jets, FeatureConfig features);

/// The same answers with the classes `from` in the order `to`. Throws Error(data), naming both
/// lists, unless the two hold the same names; `owner` says whose order it is, as "the model".
Predictions reordered(const Predictions& predictions, const std::vector<std::string>& from,
                      const std::vector<std::string>& to, const std::string& owner);

}  // namespace tessera
