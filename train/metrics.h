// Evaluation metrics, exactly as quality.md 8 and models.md 4.4 define them. All in double.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tessera {

using Numbers = std::span<const double>;

/// Linear interpolation between order statistics, as numpy's default: position q (n - 1). Throws on
/// an empty sample.
double quantile(Numbers values, double q);
/// The same of a sample that is sorted already.
double sorted_quantile(Numbers sorted, double q);

// ---- classification
// -------------------------------------------------------------------------------------------------

struct Rejection {
  double cut = 0;
  double signal_efficiency = 0;      ///< realised
  double background_efficiency = 0;  ///< fraction with score >= cut
  double rejection = 0;  ///< 1 / background_efficiency; N_B / 2.30 if none passes, see `limit`
  double error = 0;      ///< R sqrt((1 - eps_B) / (eps_B N_B)); 0 for a limit
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

/// Counts [true][predicted], (C, C) row-major.
std::vector<double> confusion_matrix(std::span<const int> predicted, std::span<const int> labels,
                                     int classes);
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
std::vector<RocPoint> roc_curve(Numbers signal, Numbers background);

// ---- tau identification
// ---------------------------------------------------------------------------------------------

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

// ---- regression
// -----------------------------------------------------------------------------------------------------

struct Resolution {
  double n = 0;
  double response = 0;         ///< median of r = predicted / true
  double iqr_over_median = 0;  ///< (q75 - q25) / median: the tau paper's resolution
  double sigma_iqr = 0;        ///< (q75 - q25) / (1.349 median)
  double sigma_68 = 0;         ///< (q84 - q16) / (2 median)
  double tails = 0;            ///< fraction with |r - median| > 0.5
  double mae = 0;              ///< mean |predicted - true|
  double mre = 0;              ///< mean |predicted - true| / true
  double r2 = 0;               ///< 1 - SSE / SST; 0 where SST is 0
};
/// Throws Error(usage) on different counts, Error(data) on a true value that is not positive. n = 0
/// gives zeros.
Resolution resolution(Numbers predicted, Numbers truth);

struct BinnedResolution {
  std::vector<double> edges;  // (bins + 1)
  std::vector<Resolution> bins;
  std::uint64_t underflow = 0, overflow = 0;  ///< counted, in no bin
};
/// In bins of the true value, lower edge inclusive.
BinnedResolution resolution_in_bins(Numbers predicted, Numbers truth, std::vector<double> edges);
/// Bins of true pT in the tau tasks: 10, 20, ... 100, 125, 150, 175, 200 GeV.
std::vector<double> tau_pt_edges();

// ---- distributions
// --------------------------------------------------------------------------------------------------

/// Wasserstein-1: integral of |F - G|; sizes and weights may differ.
double w1(Numbers a, Numbers b, Numbers a_weights = {}, Numbers b_weights = {});
/// KL(truth || generated) over 29 bins between truth quantiles 0.001 .. 0.999 plus under- and
/// overflow, with bin masses (n + 0.5) / (N + 0.5 k).
double kld(Numbers truth, Numbers generated);
/// The public OmniJet-alpha recipe: densities + 1e-8 in the same 29 bins, renormalised without bin
/// widths. For comparison.
double kld_omnijet(Numbers truth, Numbers generated);

// ---- tokenizer
// ------------------------------------------------------------------------------------------------------

struct CodeUse {
  double perplexity = 0;  ///< exp(-sum p ln p)
  double usage = 0;       ///< used codes / K
  std::uint64_t dead = 0;
  std::uint64_t tokens = 0;
};
CodeUse code_use(std::span<const std::uint64_t> counts);

// ---- errors
// ---------------------------------------------------------------------------------------------------------

/// Poisson(1) weight of event `event` in replica `replica`: a function of its arguments only, so
/// replicas do not depend on order or threads, and two models on one sample are compared on the
/// same replicas.
double poisson_weight(std::uint64_t seed, std::uint32_t replica, std::uint64_t event);
/// The weights of events first .. first + n - 1.
std::vector<double> poisson_weights(std::uint64_t seed, std::uint32_t replica, std::uint64_t n,
                                    std::uint64_t first = 0);
/// Standard deviation over replicas of a statistic of event weights (N).
double bootstrap_error(std::uint64_t n, std::uint64_t seed,
                       const std::function<double(Numbers weights)>& statistic,
                       std::uint32_t replicas = 200);
/// The same for order statistics, which take no weights: the sample with each event repeated as
/// often as its weight.
double bootstrap_error_resampled(Numbers values, std::uint64_t seed,
                                 const std::function<double(Numbers sample)>& statistic,
                                 std::uint32_t replicas = 200);

struct MeanSd {
  double mean = 0, sd = 0;  ///< sample s.d. (n - 1); 0 for one value
};
/// Over seeds; never mixed with bootstrap errors.
MeanSd mean_sd(Numbers values);

}  // namespace tessera
