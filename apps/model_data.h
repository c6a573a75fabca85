// A stored task model beside the jets that it answers: what evaluate and predict open.
#pragma once

#include "apps/command.h"
#include "core/check.h"
#include "train/finetune_job.h"
#include "train/model_store.h"

namespace tessera::apps {

/// The stored model, on the device where it computes.
Stored<TaskModel> load_on_device(const std::string& directory, Device device);

enum class Labels : std::uint8_t { by_name, ignored };

/// A split of a dataset directory, or a lone native file, read in a bounded child first, for which
/// `split` must be empty; an empty split of a directory is "test". Class labels of data for a tag
/// model are mapped by name to the model's order; other models read none. Throws Error(data),
/// naming both lists, where the names differ.
std::shared_ptr<const Dataset> open_for(const TaskModel& model, const std::string& data,
                                        const std::string& split, Labels labels, Weights weights);

/// Names of the model's outputs in order. A tag model that was stored without names gets those of
/// the data, if there are as many, with a warning on stderr; throws Error(data) otherwise. Empty
/// for a regression, and where neither has names.
std::vector<std::string> output_names(const TaskModel& model, const std::string& directory,
                                      const Dataset& data);

/// Calls `answers` and returns its result. An Error(numeric), thrown for an answer that is not
/// finite, becomes Error(data) naming the model's directory, because the weights came from a file.
template <class Answers>
auto answers_of_stored(const std::string& directory, const Answers& answers) {
  try {
    return answers();
  } catch (const Error& e) {
    TESSERA_FAIL(e.kind() == ErrorKind::numeric ? ErrorKind::data : e.kind(), "{}: {}", directory,
                 e.message());
  }
}

}  // namespace tessera::apps
