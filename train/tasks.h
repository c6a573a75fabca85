// The fine-tuning tasks: which jets take part, their targets, their losses and their headline
// metrics.
#pragma once

#include <string>
#include <vector>

#include "core/check.h"
#include "core/tensor.h"
#include "train/batcher.h"
#include "train/progress.h"

namespace tessera {

enum class Task { tau_id, tau_dm, tau_pt, tag };

/// "tau-id", ...; parse_task throws Error(usage) with the list.
const char* name(Task task);
Task parse_task(const std::string& text);
inline constexpr Task kAllTasks[] = {Task::tau_pt, Task::tau_id, Task::tau_dm, Task::tag};

/// Network outputs of a task: 2, 6, 1, or the number of jet classes, for which it throws as
/// check_truth (task_outputs.h).
std::int64_t outputs_of(Task task, const Dataset& data);

/// Positions of the jets that take part: tau-id reco pT >= 20 GeV and not leptonic, tau-dm hadronic
/// tau and pT >= 5 GeV, tau-pt hadronic tau, tag all; with at least one constituent. May be empty.
/// Throws as check_truth.
std::vector<std::uint64_t> select_jets(Task task, const Dataset& data);

/// Class labels used to stratify subsets; 0 for regression. Throws as check_truth.
std::vector<int> stratify_labels(Task task, const Dataset& data,
                                 std::span<const std::uint64_t> jets);

/// ln(pT_vis / pT_reco) of jets that take part in tau-pt. Throws as check_truth, and Error(data),
/// naming the jet's id, where one of the two is not above 0.
std::vector<double> regression_targets(const Dataset& data, std::span<const std::uint64_t> jets);

/// Losses of the jets of a batch, (B): tau-id focal CE (gamma 2, weights 10 and 1), tau-dm and tag
/// CE, tau-pt Huber (delta 1) on (output - ln(pT_vis / pT_reco)) / scale. outputs: (B, outputs_of).
Tensor jet_losses(Task task, const Tensor& outputs, const Batch& batch, float scale = 1);
/// Their mean, by the jets' weights where they have some: sum w l / sum w, 0 where sum w is 0.
Tensor task_loss(Task task, const Tensor& outputs, const Batch& batch, float scale = 1);
/// Sum of their losses times their weights.
double summed_loss(Task task, const Tensor& outputs, const Batch& batch, float scale = 1);

/// Outputs of a whole split, row by row, with what the metrics need of each jet.
struct Predictions {
  std::int64_t columns = 1;
  std::vector<std::uint64_t> ids;        // (N) of the jets
  std::vector<float> outputs;            // (N, columns)
  std::vector<std::int32_t> target;      // (N) class
  std::vector<double> pt_reco, pt_true;  // (N) GeV
  std::vector<double> weights;           // (N) of the jets, empty = 1; all metrics are weighted
  double loss = 0;                       // mean task loss

  void append(Task task, const Batch& batch, std::span<const float> rows);
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(target.size()); }
};

/// Throws Error(kind), beginning with `what` and naming the jet's id, on an output that is not
/// finite: it is no answer, and has no place in an order of scores.
void check_finite(const Predictions& predictions, ErrorKind kind, const std::string& what);

/// pT predicted over true of each jet; tau-pt.
std::vector<double> momentum_ratios(const Predictions& predictions);
/// Logit of tau minus logit of background; tau-id.
double tau_score(const Predictions& predictions, std::size_t jet);
/// Whether the largest output, the first of equal ones, is the target's; tau-dm and tag.
bool rightly_answered(const Predictions& predictions, std::size_t jet);

/// Scores of tau-id by truth.
struct TwoSamples {
  std::vector<double> signal, background;
  std::vector<double> signal_weights, background_weights;  // empty = 1
};
TwoSamples identification_scores(const Predictions& predictions);

/// Headline metrics: tau-pt resolution (q75 - q25)/q50 and response median of pT_pred/pT_true;
/// tau-id mis-identification at 80 % efficiency and AUC; tau-dm and tag accuracy (and mean AUC one
/// against rest for tag). Those of undefined_metrics() (undefined_metrics.h) are left out.
std::vector<Metric> evaluate(Task task, const Predictions& predictions);

/// The rows every network must beat: the raw reco jet for tau-pt, the constant answer elsewhere. Of
/// the same metrics as evaluate().
std::vector<Metric> evaluate_baseline(Task task, const Predictions& predictions);

}  // namespace tessera
