// Metrics of classifiers.
#pragma once

#include "train/metrics/statistics.h"

namespace tessera {

struct Rejection {
  double cut = 0;
  double signal_efficiency = 0;      ///< realised
  double background_efficiency = 0;  ///< fraction with score >= cut
  double rejection = 0;  ///< 1 / background_efficiency; N_B / 2.30 if none passes, see `limit`
  double error = 0;      ///< R sqrt((1 - eps_B) / (eps_B N_B)); 0 for a limit; weighted: N_B is the
                         ///< effective number
  double tied = 0;       ///< fraction of signal at the cut beyond the first
  bool limit = false;    ///< no background passes: a lower limit at 90 % CL
};
/// Cut at the k-th largest signal score, k = ceil(efficiency N_S); weighted: where the cumulated
/// signal weight first reaches efficiency W_S. Weights empty = 1.
Rejection rejection_at(Numbers signal, Numbers background, double efficiency,
                       Numbers signal_weights = {}, Numbers background_weights = {});

/// P(z_S > z_B) + P(tie) / 2 by mid-ranks, O(n log n).
double auc(Numbers signal, Numbers background, Numbers signal_weights = {},
           Numbers background_weights = {});
/// Mean over class pairs of [A(i|j) + A(j|i)] / 2, A(i|j) from column i on events of classes i and
/// j. scores: (N, C).
double auc_one_vs_one(Numbers scores, std::span<const int> labels, int classes);
/// Argmax, lowest index on ties. scores: (N, C).
std::vector<int> argmax_rows(Numbers scores, int classes);
double accuracy(std::span<const int> predicted, std::span<const int> labels, Numbers weights = {});

/// Counts, or sums of weights, [true][predicted], (C, C) row-major.
std::vector<double> confusion_matrix(std::span<const int> predicted, std::span<const int> labels,
                                     int classes, Numbers weights = {});
/// Each row divided by its sum; empty rows stay 0.
std::vector<double> row_normalised(std::span<const double> matrix, int classes);
struct ClassScores {
  std::vector<double> precision, recall, f1;  // (C), 0 where undefined
  double macro_precision = 0, macro_recall = 0, macro_f1 = 0;
};
ClassScores class_scores(std::span<const double> confusion, int classes);

/// Largest eps_S / sqrt(eps_B) over cuts that leave at least 25 background events.
double significance_improvement(Numbers signal, Numbers background);
/// Expected calibration error: 15 equal-width bins of the top probability. probabilities: (N, C).
double calibration_error(Numbers probabilities, std::span<const int> labels, int classes);

/// One point of a ROC curve for each distinct score, falling cut.
struct RocPoint {
  double cut, signal_efficiency, background_efficiency;
};
std::vector<RocPoint> roc_curve(Numbers signal, Numbers background, Numbers signal_weights = {},
                                Numbers background_weights = {});

/// Efficiency and mis-identification with explicit denominators (jets in acceptance, reconstructed
/// or not).
struct WorkingPoint {
  double cut = 0, efficiency = 0, misidentification = 0;
};
/// Cut where the efficiency against `signal_total` first reaches the wanted one; scores:
/// reconstructed jets in acceptance. Throws Error(usage) if even a cut below all scores does not
/// reach it.
WorkingPoint working_point(Numbers signal, double signal_total, Numbers background,
                           double background_total, double efficiency);

}  // namespace tessera
