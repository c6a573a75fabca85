#include "train/metrics/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"

namespace tessera {
namespace {

double weight_at(Numbers weights, std::size_t i) { return weights.empty() ? 1.0 : weights[i]; }

void check_weights(Numbers values, Numbers weights) {
  TESSERA_CHECK(weights.empty() || weights.size() == values.size(),
                "metrics: expected {} weights, got {}", values.size(), weights.size());
}

constexpr std::size_t kLargestWeight = 16;  // P(more) = 1e-15, far below a 32-bit uniform

// P(k or fewer) of a Poisson variable of mean 1, k = 0 .. kLargestWeight - 1
std::array<double, kLargestWeight> cumulated_poisson() {
  std::array<double, kLargestWeight> sums{};
  double probability = std::exp(-1.0), sum = 0;
  for (std::size_t k = 0; k < sums.size(); ++k) {
    sums[k] = sum += probability;
    probability /= static_cast<double>(k + 1);
  }
  return sums;
}

// P(|T| < sqrt(degrees) tan(theta))
double student_middle(double theta, int degrees) {
  const double c = std::cos(theta), s = std::sin(theta);
  const bool odd = degrees % 2 == 1;
  double term = odd ? s * c : s, sum = degrees == 1 ? 0 : term;
  for (int k = odd ? 3 : 2; k < degrees; k += 2) {
    term *= c * c * (k - 1) / k;
    sum += term;
  }
  return odd ? 2 / M_PI * (theta + sum) : sum;
}

}  // namespace

void check_ordered(Numbers values, const char* what) {
  const auto bad = std::ranges::find_if(values, [](double v) { return std::isnan(v); });
  TESSERA_CHECK(bad == values.end(), "{}: expected numbers, got NaN in row {}", what,
                bad - values.begin());
}

std::vector<double> sorted_copy(Numbers values) {
  check_ordered(values, "metrics");
  std::vector<double> s(values.begin(), values.end());
  std::sort(s.begin(), s.end());
  return s;
}

double total_weight(Numbers weights, std::size_t n) {
  return weights.empty() ? static_cast<double>(n)
                         : std::accumulate(weights.begin(), weights.end(), 0.0);
}

double effective_number(Numbers weights, std::size_t n) {
  const double squares = std::inner_product(weights.begin(), weights.end(), weights.begin(), 0.0);
  const double sum = total_weight(weights, n);
  return weights.empty() ? sum : squares > 0 ? sum * sum / squares : 0;
}

std::vector<Scored> sorted_scored(Numbers scores, Numbers weights) {
  check_ordered(scores, "metrics");
  check_weights(scores, weights);
  std::vector<Scored> list;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    list.push_back({scores[i], weight_at(weights, i)});
  }
  std::sort(list.begin(), list.end(),
            [](const Scored& a, const Scored& b) { return a.score < b.score; });
  return list;
}

double sorted_quantile(Numbers sorted, double q) {
  TESSERA_CHECK(!sorted.empty() && q >= 0 && q <= 1,
                "quantile: expected a sample and q in 0 to 1, got {} values and {}", sorted.size(),
                q);
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double t = position - static_cast<double>(below);
  return sorted[below] + t * (sorted[above] - sorted[below]);
}

double quantile(Numbers values, double q) { return sorted_quantile(sorted_copy(values), q); }

void RisingSample::add(double value, double weight, double copies) {
  if (copies <= 0 || weight == 0) {
    return;
  }
  const auto place = [&](double at) {
    first_ = places_.empty() ? at : first_;
    last_ = at - first_;
    places_.push_back(places_.empty() ? 0 : std::max(places_.back(), last_));
    values_.push_back(value);
  };
  place(total_ + weight / 2);
  if (copies > 1) {
    place(total_ + (copies - 0.5) * weight);
  }
  total_ += copies * weight;
}

double RisingSample::quantile(double q) const {
  if (total_ <= 0) {
    return NAN;
  }
  const double place = q * last_;
  const auto above =
      static_cast<std::size_t>(std::ranges::upper_bound(places_, place) - places_.begin());
  if (above == 0 || above == places_.size()) {
    return above == 0 ? values_.front() : values_.back();
  }
  const std::size_t below = above - 1;
  const double t = (place - places_[below]) / (places_[above] - places_[below]);
  return values_[below] + t * (values_[above] - values_[below]);
}

double quantile(Numbers values, double q, Numbers weights) {
  if (weights.empty()) {
    return quantile(values, q);
  }
  RisingSample sample;
  for (const Scored& s : sorted_scored(values, weights)) {
    sample.add(s.score, s.weight);
  }
  return sample.quantile(q);
}

double poisson_weight(std::uint64_t seed, std::uint32_t replica, std::uint64_t event) {
  // Inverse of the cumulated Poisson(1) distribution at a 32-bit uniform in (0, 1).
  static const std::array<double, kLargestWeight> cumulated = cumulated_poisson();
  const double u = (static_cast<double>(RngKey{seed, replica}.word(event)) + 0.5) * 0x1.0p-32;
  std::size_t k = 0;
  while (k < cumulated.size() && u > cumulated[k]) {
    ++k;
  }
  return static_cast<double>(k);
}

std::vector<double> poisson_weights(std::uint64_t seed, std::uint32_t replica, std::uint64_t n,
                                    std::uint64_t first) {
  std::vector<double> weights(n);
  for (std::uint64_t e = 0; e < n; ++e) {
    weights[e] = poisson_weight(seed, replica, first + e);
  }
  return weights;
}

double bootstrap_error(std::uint64_t n, std::uint64_t seed,
                       const std::function<double(Numbers weights)>& statistic,
                       std::uint32_t replicas) {
  std::vector<double> values;
  for (std::uint32_t b = 0; b < replicas; ++b) {
    values.push_back(statistic(poisson_weights(seed, b, n)));
  }
  return mean_sd(values).sd;
}

double bootstrap_error_resampled(Numbers values, std::uint64_t seed,
                                 const std::function<double(Numbers sample)>& statistic,
                                 std::uint32_t replicas) {
  std::vector<double> results, sample;
  for (std::uint32_t b = 0; b < replicas; ++b) {
    sample.clear();
    for (std::size_t e = 0; e < values.size(); ++e) {
      sample.insert(sample.end(), static_cast<std::size_t>(poisson_weight(seed, b, e)), values[e]);
    }
    if (!sample.empty()) {
      results.push_back(statistic(sample));
    }
  }
  return mean_sd(results).sd;
}

MeanSd mean_sd(Numbers values) {
  MeanSd out;
  const double n = static_cast<double>(values.size());
  if (values.empty()) {
    return out;
  }
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double sum = 0;
  for (const double v : values) {
    sum += (v - out.mean) * (v - out.mean);
  }
  out.sd = values.size() > 1 ? std::sqrt(sum / (n - 1)) : 0;
  return out;
}

double student_quantile(double p, int degrees) {
  TESSERA_CHECK(p >= 0.5 && p < 1 && degrees >= 1,
                "student_quantile: expected p in [0.5, 1) and a positive number of degrees, got {} "
                "and {}",
                p, degrees);
  double low = 0, high = M_PI / 2;
  for (int i = 0; i < 60; ++i) {
    const double theta = (low + high) / 2;
    (student_middle(theta, degrees) < 2 * p - 1 ? low : high) = theta;
  }
  return std::sqrt(degrees) * std::tan(low);
}

}  // namespace tessera
