#include "train/tasks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

bool hadronic(int decay_mode) { return decay_mode >= 0 && decay_mode != 16; }

bool takes_part(Task task, int decay_mode, float pt) {
  switch (task) {
    case Task::tau_id:
      return pt >= 20 && decay_mode != 16;
    case Task::tau_dm:
      return pt >= 5 && tau_decay_class(decay_mode) >= 0;
    case Task::tau_pt:
      return hadronic(decay_mode);
    case Task::tag:
      return true;
  }
  return false;
}

std::int32_t class_target(Task task, const Batch& b, std::size_t j) {
  switch (task) {
    case Task::tau_id:
      return hadronic(b.decay_modes[j]) ? 1 : 0;
    case Task::tau_dm:
      return tau_decay_class(b.decay_modes[j]);
    case Task::tau_pt:
      return 0;
    case Task::tag:
      return b.labels[j];
  }
  return 0;
}

double visible_pt(const Batch& b, std::size_t j) {
  return std::hypot(static_cast<double>(b.visible[4 * j]),
                    static_cast<double>(b.visible[4 * j + 1]));
}

std::vector<std::int32_t> class_targets(Task task, const Batch& b) {
  std::vector<std::int32_t> targets(b.size());
  for (std::size_t j = 0; j < targets.size(); ++j) {
    targets[j] = class_target(task, b, j);
  }
  return targets;
}

Tensor momentum_targets(const Batch& b) {
  std::vector<float> targets(b.size());
  for (std::size_t j = 0; j < targets.size(); ++j) {
    targets[j] = static_cast<float>(
        std::log(visible_pt(b, j) / static_cast<double>(b.jet_kinematics[4 * j])));
  }
  return Tensor::from(targets, {static_cast<std::int64_t>(targets.size())});
}

/// P(signal score > background score) + P(tie) / 2, by mid-ranks.
double area_under_curve(const std::vector<double>& signal, const std::vector<double>& background) {
  std::vector<std::pair<double, bool>> all;
  for (const double s : signal) all.emplace_back(s, true);
  for (const double b : background) all.emplace_back(b, false);
  std::ranges::sort(all, {}, &std::pair<double, bool>::first);
  double rank_sum = 0;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i;
    while (end < all.size() && all[end].first == all[i].first) ++end;
    const double rank = 0.5 * static_cast<double>(i + end + 1);
    for (; i < end; ++i) rank_sum += all[i].second ? rank : 0.0;
  }
  const auto n = static_cast<double>(signal.size()), m = static_cast<double>(background.size());
  return n > 0 && m > 0 ? (rank_sum - n * (n + 1) / 2) / (n * m) : 0.5;
}

/// Fraction of background at or above the score of the k-th best signal, k = ceil(efficiency N).
double background_at(double efficiency, std::vector<double> signal,
                     const std::vector<double>& background) {
  if (signal.empty() || background.empty()) return 1.0;
  std::ranges::sort(signal, std::greater<>());
  const auto k =
      static_cast<std::size_t>(std::ceil(efficiency * static_cast<double>(signal.size())));
  const double cut = signal[std::max<std::size_t>(k, 1) - 1];
  const auto passed = std::ranges::count_if(background, [&](double z) { return z >= cut; });
  return static_cast<double>(passed) / static_cast<double>(background.size());
}

std::vector<Metric> momentum_metrics(const std::vector<double>& ratio) {
  const double median = quantile_of(ratio, 0.5);
  return {{"resolution", (quantile_of(ratio, 0.75) - quantile_of(ratio, 0.25)) / median},
          {"response", median}};
}

std::vector<Metric> identification_metrics(const Predictions& p) {
  std::vector<double> signal, background;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const double z =
        static_cast<double>(p.outputs[2 * j + 1]) - static_cast<double>(p.outputs[2 * j]);
    (p.target[j] == 1 ? signal : background).push_back(z);
  }
  return {{"misid@80", background_at(0.8, signal, background)},
          {"auc", area_under_curve(signal, background)}};
}

double accuracy_of(const Predictions& p) {
  std::int64_t right = 0;
  const auto c = static_cast<std::size_t>(p.columns);
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const auto row = std::span(p.outputs).subspan(j * c, c);
    right += std::ranges::max_element(row) - row.begin() == p.target[j];
  }
  return static_cast<double>(right) / static_cast<double>(std::max<std::int64_t>(1, p.size()));
}

}  // namespace

const char* name(Task task) {
  switch (task) {
    case Task::tau_id:
      return "tau-id";
    case Task::tau_dm:
      return "tau-dm";
    case Task::tau_pt:
      return "tau-pt";
    case Task::tag:
      return "tag";
  }
  return "?";
}

Task parse_task(const std::string& text) {
  for (const Task t : kAllTasks) {
    if (text == name(t)) return t;
  }
  TESSERA_FAIL(ErrorKind::usage, "task: expected tau-pt, tau-id, tau-dm or tag, got '{}'", text);
}

std::int64_t outputs_of(Task task, const Dataset& data) {
  switch (task) {
    case Task::tau_id:
      return 2;
    case Task::tau_dm:
      return kTauDecayClasses;
    case Task::tau_pt:
      return 1;
    case Task::tag:
      return static_cast<std::int64_t>(data.classes().size());
  }
  return 1;
}

std::vector<std::uint64_t> select_jets(Task task, const Dataset& data) {
  const auto modes = data.decay_modes();
  const auto pts = data.jet_pts();
  std::vector<std::uint64_t> chosen;
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const int mode = modes.empty() ? -1 : modes[j];
    if (data.lengths()[j] > 0 && takes_part(task, mode, pts[j])) chosen.push_back(j);
  }
  TESSERA_CHECK_KIND(ErrorKind::data, !chosen.empty(),
                     "{}: the dataset holds no jet that takes part", name(task));
  return chosen;
}

std::vector<int> stratify_labels(Task task, const Dataset& data,
                                 std::span<const std::uint64_t> jets) {
  const auto modes = data.decay_modes();
  const auto classes = data.class_labels();
  std::vector<int> labels;
  for (const std::uint64_t j : jets) {
    labels.push_back(task == Task::tag      ? classes[j]
                     : task == Task::tau_id ? hadronic(modes[j])
                     : task == Task::tau_dm ? tau_decay_class(modes[j])
                                            : 0);
  }
  return labels;
}

Tensor task_loss(Task task, const Tensor& outputs, const Batch& batch) {
  const std::int64_t b = outputs.shape(0);
  if (task == Task::tau_pt) {
    return mean(huber_loss(outputs.reshape({b}), momentum_targets(batch), 1.0F));
  }
  const auto host = class_targets(task, batch);
  const Tensor targets = Tensor::from(host, {b});
  if (task == Task::tau_id) {
    return mean(focal_loss(outputs, targets, Tensor::from(std::array{10.0F, 1.0F}, {2}), 2.0F));
  }
  return mean(cross_entropy(outputs, targets));
}

void Predictions::append(Task task, const Batch& batch, std::span<const float> rows) {
  outputs.insert(outputs.end(), rows.begin(), rows.end());
  for (std::size_t j = 0; j < batch.size(); ++j) {
    target.push_back(class_target(task, batch, j));
    pt_reco.push_back(static_cast<double>(batch.jet_kinematics[4 * j]));
    pt_true.push_back(task == Task::tau_pt ? visible_pt(batch, j) : 0.0);
  }
}

double quantile_of(std::vector<double> values, double q) {
  std::ranges::sort(values);
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (at - static_cast<double>(low)) * (values[high] - values[low]);
}

std::vector<Metric> evaluate(Task task, const Predictions& p) {
  if (task == Task::tau_pt) {
    std::vector<double> ratio;
    for (std::size_t j = 0; j < p.target.size(); ++j) {
      ratio.push_back(std::exp(static_cast<double>(p.outputs[j])) * p.pt_reco[j] / p.pt_true[j]);
    }
    return momentum_metrics(ratio);
  }
  if (task == Task::tau_id) return identification_metrics(p);
  return {{"accuracy", accuracy_of(p)}};
}

std::vector<Metric> evaluate_baseline(Task task, const Predictions& p) {
  if (task == Task::tau_pt) {
    std::vector<double> ratio;
    for (std::size_t j = 0; j < p.target.size(); ++j) ratio.push_back(p.pt_reco[j] / p.pt_true[j]);
    return momentum_metrics(ratio);
  }
  if (task == Task::tau_id)
    return {{"misid@80", 0.8}, {"auc", 0.5}};  // a constant score passes 80 % of everything
  std::map<std::int32_t, std::int64_t> counts;
  for (const std::int32_t t : p.target) ++counts[t];
  std::int64_t most = 0;
  for (const auto& [label, n] : counts) most = std::max(most, n);
  return {{"accuracy",
           static_cast<double>(most) / static_cast<double>(std::max<std::int64_t>(1, p.size()))}};
}

}  // namespace tessera
