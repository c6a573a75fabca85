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
