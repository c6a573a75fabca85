#include "train/tasks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "train/metrics.h"
#include "train/task_outputs.h"
#include "train/undefined_metrics.h"

namespace tessera {
namespace {

bool takes_part(Task task, int decay_mode, float pt) {
  switch (task) {
    case Task::tau_id:
      return pt >= least_pt(task) && decay_mode != 16;
    case Task::tau_dm:
      return pt >= least_pt(task) && tau_decay_class(decay_mode) >= 0;
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

// ln(pT_vis / pT_reco)
double momentum_target(std::uint64_t id, double visible, double reconstructed) {
  TESSERA_CHECK_KIND(ErrorKind::data, visible > 0 && reconstructed > 0,
                     "tau-pt: jet with id {}: expected transverse momenta above 0 of the visible "
                     "tau and of the jet, got {} and {} GeV",
                     id, visible, reconstructed);
  return std::log(visible / reconstructed);
}

// ln(pT_vis / pT_reco) / scale, (B)
Tensor momentum_targets(const Batch& b, float scale, Device device) {
  std::vector<float> targets(b.size());
  for (std::size_t j = 0; j < targets.size(); ++j) {
    targets[j] = static_cast<float>(
        momentum_target(b.ids[j], visible_pt(b, j), static_cast<double>(b.jet_kinematics[4 * j])) /
        static_cast<double>(scale));
  }
  return Tensor::from(targets, {static_cast<std::int64_t>(targets.size())}, device);
}

std::vector<Metric> momentum_metrics(const std::vector<double>& ratio, Numbers weights) {
  const double median = quantile(ratio, 0.5, weights);
  const double iqr = quantile(ratio, 0.75, weights) - quantile(ratio, 0.25, weights);
  return {{"resolution", iqr / median}, {"response", median}};
}

std::vector<Metric> identification_metrics(const Predictions& p) {
  const TwoSamples s = identification_scores(p);
  const Rejection at_80 =
      rejection_at(s.signal, s.background, 0.8, s.signal_weights, s.background_weights);
  return {{"misid@80", at_80.background_efficiency},
          {"auc", auc(s.signal, s.background, s.signal_weights, s.background_weights)}};
}

double weight_of(const Predictions& p, std::size_t j) {
  return p.weights.empty() ? 1.0 : p.weights[j];
}

// Of all jets; of none it is 0.
double share_of(const Predictions& p, double part) {
  return p.size() > 0 ? part / total_weight(p.weights, p.target.size()) : 0.0;
}

/// The metrics that the sample defines; `all` is called where there is one.
std::vector<Metric> defined_metrics(Task task, const Predictions& p,
                                    const std::function<std::vector<Metric>()>& all) {
  const auto undefined = undefined_metrics(task, p);
  if (undefined.size() == metric_names(task).size()) {
    return {};
  }
  std::vector<Metric> metrics = all();
  std::erase_if(metrics, [&](const Metric& m) {
    return std::ranges::find(undefined, m.name, &UndefinedMetric::name) != undefined.end();
  });
  return metrics;
}

double accuracy_of(const Predictions& p) {
  double right = 0;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    right += rightly_answered(p, j) ? weight_of(p, j) : 0.0;
  }
  return share_of(p, right);
}

// Host weights over their sum.
Tensor shares(const std::vector<float>& weights, Device device) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<float> share(weights.size(), 0.0F);
  if (total != 0) {
    std::ranges::transform(weights, share.begin(), [&](float w) {
      return static_cast<float>(static_cast<double>(w) / total);
    });
  }
  return Tensor::from(share, {std::ssize(share)}, device);
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
      check_truth(task, data);
      return static_cast<std::int64_t>(data.classes().size());
  }
  return 1;
}

std::vector<std::uint64_t> select_jets(Task task, const Dataset& data) {
  check_truth(task, data);
  const auto modes = data.decay_modes();
  const auto pts = data.jet_pts();
  std::vector<std::uint64_t> chosen;
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const int mode = modes.empty() ? -1 : modes[j];
    if (data.lengths()[j] > 0 && takes_part(task, mode, pts[j])) chosen.push_back(j);
  }
  return chosen;
}

std::vector<int> stratify_labels(Task task, const Dataset& data,
                                 std::span<const std::uint64_t> jets) {
  check_truth(task, data);
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

std::vector<double> regression_targets(const Dataset& data, std::span<const std::uint64_t> jets) {
  check_truth(Task::tau_pt, data);
  std::vector<double> targets;
  for (const std::uint64_t j : jets) {
    const auto [block, row] = data.locate(j);
    const double visible = std::hypot(static_cast<double>(block->vis_px[row]),
                                      static_cast<double>(block->vis_py[row]));
    targets.push_back(
        momentum_target(block->id[row], visible, static_cast<double>(block->jet_pt[row])));
  }
  return targets;
}

Tensor jet_losses(Task task, const Tensor& outputs, const Batch& batch, float spread) {
  const std::int64_t b = outputs.shape(0);
  if (task == Task::tau_pt) {
    const Tensor y = scale(outputs.reshape({b}), 1.0F / spread);
    return huber_loss(y, momentum_targets(batch, spread, outputs.device()), 1.0F);
  }
  const auto host = class_targets(task, batch);
  const Tensor targets = Tensor::from(host, {b}, outputs.device());
  if (task == Task::tau_id) {
    const Tensor weights = Tensor::from(std::array{10.0F, 1.0F}, {2}, outputs.device());
    return focal_loss(outputs, targets, weights, 2.0F);
  }
  return cross_entropy(outputs, targets);
}

Tensor task_loss(Task task, const Tensor& outputs, const Batch& batch, float spread) {
  const Tensor losses = jet_losses(task, outputs, batch, spread);
  return batch.weights.empty() ? mean(losses)
                               : weighted_sum(losses, shares(batch.weights, losses.device()));
}

double summed_loss(Task task, const Tensor& outputs, const Batch& batch, float spread) {
  if (batch.weights.empty()) {
    return static_cast<double>(task_loss(task, outputs, batch, spread).item()) *
           static_cast<double>(batch.size());
  }
  const auto losses = jet_losses(task, outputs, batch, spread).to_vector<float>();
  double sum = 0;
  for (std::size_t j = 0; j < losses.size(); ++j) {
    sum += static_cast<double>(batch.weights[j]) * static_cast<double>(losses[j]);
  }
  return sum;
}

void Predictions::append(Task task, const Batch& batch, std::span<const float> rows) {
  outputs.insert(outputs.end(), rows.begin(), rows.end());
  weights.insert(weights.end(), batch.weights.begin(), batch.weights.end());
  for (std::size_t j = 0; j < batch.size(); ++j) {
    ids.push_back(batch.ids[j]);
    target.push_back(class_target(task, batch, j));
    pt_reco.push_back(static_cast<double>(batch.jet_kinematics[4 * j]));
    pt_true.push_back(task == Task::tau_pt ? visible_pt(batch, j) : 0.0);
  }
}

void check_finite(const Predictions& p, ErrorKind kind, const std::string& what) {
  const auto bad = std::ranges::find_if(p.outputs, [](float v) { return !std::isfinite(v); });
  if (bad != p.outputs.end()) {
    const std::int64_t at = bad - p.outputs.begin(), jet = at / p.columns;
    TESSERA_FAIL(kind, "{}: jet {} (id {}), output {}: expected a finite number, got {}", what, jet,
                 p.ids.at(static_cast<std::size_t>(jet)), at % p.columns, *bad);
  }
}

std::vector<double> momentum_ratios(const Predictions& p) {
  std::vector<double> ratio;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    ratio.push_back(std::exp(static_cast<double>(p.outputs[j])) * p.pt_reco[j] / p.pt_true[j]);
  }
  return ratio;
}

double tau_score(const Predictions& p, std::size_t j) {
  return static_cast<double>(p.outputs[2 * j + 1]) - static_cast<double>(p.outputs[2 * j]);
}

bool rightly_answered(const Predictions& p, std::size_t j) {
  const auto c = static_cast<std::size_t>(p.columns);
  const auto row = std::span(p.outputs).subspan(j * c, c);
  return std::ranges::max_element(row) - row.begin() == p.target[j];
}

TwoSamples identification_scores(const Predictions& p) {
  TwoSamples s;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const bool tau = p.target[j] == 1;
    (tau ? s.signal : s.background).push_back(tau_score(p, j));
    if (!p.weights.empty()) {
      (tau ? s.signal_weights : s.background_weights).push_back(p.weights[j]);
    }
  }
  return s;
}

namespace {

std::vector<Metric> all_metrics(Task task, const Predictions& p) {
  if (task == Task::tau_pt) return momentum_metrics(momentum_ratios(p), p.weights);
  if (task == Task::tau_id) return identification_metrics(p);
  return {{"accuracy", accuracy_of(p)}};
}

std::vector<Metric> all_baselines(Task task, const Predictions& p) {
  if (task == Task::tau_pt) {
    std::vector<double> ratio;
    for (std::size_t j = 0; j < p.target.size(); ++j) ratio.push_back(p.pt_reco[j] / p.pt_true[j]);
    return momentum_metrics(ratio, p.weights);
  }
  if (task == Task::tau_id)
    return {{"misid@80", 0.8}, {"auc", 0.5}};  // a constant score passes 80 % of everything
  std::map<std::int32_t, double> counts;
  for (std::size_t j = 0; j < p.target.size(); ++j) counts[p.target[j]] += weight_of(p, j);
  double most = 0;
  for (const auto& [label, n] : counts) most = std::max(most, n);
  return {{"accuracy", share_of(p, most)}};
}

}  // namespace

std::vector<Metric> evaluate(Task task, const Predictions& p) {
  return defined_metrics(task, p, [&] { return all_metrics(task, p); });
}

std::vector<Metric> evaluate_baseline(Task task, const Predictions& p) {
  return defined_metrics(task, p, [&] { return all_baselines(task, p); });
}

}  // namespace tessera
