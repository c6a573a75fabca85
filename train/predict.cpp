#include "train/predict.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "train/class_names.h"
#include "train/metrics/statistics.h"
#include "train/mixed_batches.h"
#include "train/task_outputs.h"

namespace tessera {
namespace {

using Visit = std::function<void(const Batch& batch, const Tensor& outputs)>;

/// Visits every batch of the jets with the model's outputs, (B, columns).
void for_each_answer(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                     const std::vector<std::uint64_t>& jets, FeatureConfig features,
                     const Visit& visit) {
  if (jets.empty()) {
    return;  // for_each_batch takes an empty selection for all jets
  }
  features.particles = model.needs_particles();
  const NoGrad off;
  StepArena arena;
  for_each_batch(data, features, jets, 256, [&](const Batch& batch) {
    {
      const ArenaScope scope(arena);
      visit(batch, model(batch));
    }
    arena.reset();
  });
}

// A NaN among answers would look like a jet without an answer.
void check_finite(const std::vector<float>& rows, const Batch& batch) {
  const auto bad = std::ranges::find_if_not(rows, [](float y) { return std::isfinite(y); });
  const auto jet = static_cast<std::size_t>(bad - rows.begin()) * batch.size() / rows.size();
  TESSERA_CHECK_KIND(ErrorKind::numeric, bad == rows.end(),
                     "predict: expected finite outputs of the model, got {} for the jet with id {}",
                     *bad, batch.ids[jet]);
}

}  // namespace

Answers predict(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                FeatureConfig features) {
  Answers a{.columns = model.config.outputs, .jets = without_empty(*data, {}), .outputs = {}};
  for_each_answer(model, data, a.jets, std::move(features),
                  [&](const Batch& batch, const Tensor& y) {
                    const auto rows = y.to_vector<float>();
                    check_finite(rows, batch);
                    a.outputs.insert(a.outputs.end(), rows.begin(), rows.end());
                  });
  return a;
}

Predictions predict_labelled(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                             FeatureConfig features) {
  check_truth(model.config.task, *data);
  return predict_labelled(model, data, select_jets(model.config.task, *data), std::move(features));
}

Predictions predict_labelled(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                             const std::vector<std::uint64_t>& jets, FeatureConfig features) {
  const Task task = model.config.task;
  check_classes(task, model.config.classes, model.config.outputs, *data);
  Predictions p{.columns = model.config.outputs};
  for_each_answer(model, data, jets, std::move(features), [&](const Batch& batch, const Tensor& y) {
    p.append(task, batch, y.to_vector<float>());
    p.loss += model.summed_loss(y, batch);
  });
  check_finite(p, ErrorKind::numeric, fmt::format("predict: {}", name(task)));
  const double total = total_weight(p.weights, p.target.size());
  TESSERA_CHECK_KIND(ErrorKind::data, p.weights.empty() || total > 0,
                     "{}: expected jets whose weights add up to more than 0, got {} jets with {}",
                     name(task), p.size(), total);
  p.loss /= p.weights.empty() ? std::max(1.0, total) : total;
  TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(p.loss),
                     "predict: {}: expected a finite mean loss of {} jets, got {}", name(task),
                     p.size(), p.loss);
  return p;
}

Predictions reordered(const Predictions& p, const std::vector<std::string>& from,
                      const std::vector<std::string>& to, const std::string& owner) {
  const auto places = places_by_name(from, to, "classes of answers", owner);
  Predictions out = p;
  if (places.empty()) {
    return out;  // a regression
  }
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const std::size_t first = j * places.size();
    for (std::size_t c = 0; c < places.size(); ++c) {
      out.outputs[first + places[c]] = p.outputs[first + c];
    }
    out.target[j] = places[static_cast<std::size_t>(p.target[j])];
  }
  return out;
}

}  // namespace tessera
