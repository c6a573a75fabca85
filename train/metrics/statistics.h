// What all metrics share: samples, quantiles, weights, and errors by bootstrap. All in double.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tessera {

using Numbers = std::span<const double>;

/// Throws Error(usage), beginning with `what`, on a NaN: it stands nowhere in an order, so that a
/// sort is undefined on it and a walk over equal values never ends.
void check_ordered(Numbers values, const char* what);

/// Linear interpolation between order statistics, as numpy's default: position q (n - 1). Throws on
/// an empty sample.
double quantile(Numbers values, double q);
/// The same of a sample that is sorted already.
double sorted_quantile(Numbers sorted, double q);

/// Order statistics of a weighted sample. A value of weight w covers w of the cumulated weight,
/// with its place in the middle; q runs from the place of the smallest value to that of the
/// largest, with linear interpolation. So weights of 1 give quantile(), a common factor changes
/// nothing, and a value that stands several times has several places. Under negative weights it is
/// the first place that the cumulated weight reaches.
class RisingSample {
 public:
  /// Values in rising order, each `copies` times.
  void add(double value, double weight = 1, double copies = 1);
  /// NaN where the weights add up to nothing above 0.
  [[nodiscard]] double quantile(double q) const;

 private:
  std::vector<double> places_, values_;  // places from that of the first value on, rising
  double total_ = 0, first_ = 0, last_ = 0;
};

/// RisingSample of values in any order; weights empty = 1.
double quantile(Numbers values, double q, Numbers weights);

/// A copy in rising order. Throws Error(usage) on a NaN.
std::vector<double> sorted_copy(Numbers values);

/// One event: a value and its weight.
struct Scored {
  double score, weight;
};
/// In rising order of the scores. Weights empty = 1. Throws Error(usage) on another count of them,
/// and on a NaN among the scores.
std::vector<Scored> sorted_scored(Numbers scores, Numbers weights);
/// Sum of the weights, or n if there are none.
double total_weight(Numbers weights, std::size_t n);
/// Number of events of one weight that would have the same relative error: (sum w)^2 / sum w^2; n
/// if there are no weights.
double effective_number(Numbers weights, std::size_t n);

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
/// t below which a share `p` >= 0.5 of Student's distribution lies; degrees of freedom >= 1. Finite
/// sums of Abramowitz and Stegun 26.7.3-4, inverted by bisection to 1e-12.
double student_quantile(double p, int degrees);

}  // namespace tessera
