// Two methods on the same jets: the difference of a metric, with intervals.
#pragma once

#include <cmath>

#include "train/metrics/statistics.h"
#include "train/tasks.h"

namespace tessera {

/// The metrics of a task as functions of how often each jet stands in a sample; a jet brings its
/// own weight. The jets are ordered once, so that a replica costs O(N).
class MetricSample {
 public:
  /// Throws Error(usage), naming the jet, on an output that is not finite.
  MetricSample(Task task, const Predictions& predictions);
  /// The metrics of a sample in which jet j stands copies[j] times, a whole number; NaN where that
  /// sample is empty or lacks a class, or has one jet and no spread.
  [[nodiscard]] Metrics operator()(Numbers copies) const;

 private:
  struct Jet {
    double value;       // by which the jets are sorted: momentum ratio or score
    std::size_t index;  // in the predictions
    bool counts;        // signal, or rightly answered
    double weight;
  };
  Task task_;
  std::vector<Jet> jets_;
};

/// Standard deviation of each metric over `replicas` Poisson bootstrap replicas of the jets. A
/// metric that fewer than two replicas define is left out.
Metrics bootstrap_errors(Task task, const Predictions& predictions, std::uint64_t seed,
                         std::uint32_t replicas = 200);

/// The metrics of one method, trained with one or several seeds.
struct Replicated {
  std::vector<std::string> metrics;
  std::vector<std::vector<double>> by_seed;   // (metric)(seed), on the jets themselves
  std::vector<std::vector<double>> replicas;  // (metric)(replica), mean over seeds
};

/// Each method on the same replicas of the same jets, which makes their differences paired.
/// methods: (method)(seed). Throws Error(usage) naming what differs if one answers other jets.
std::vector<Replicated> replicate(Task task, std::span<const std::vector<Predictions>> methods,
                                  std::uint64_t seed, std::uint32_t replicas = 1000);

struct Interval {
  double low = NAN, high = NAN;
};

/// a minus b of a metric. Two kinds of chance, never mixed: which jets were tested, and which seed
/// drew weights, subset and order of the training.
struct Difference {
  std::string metric;
  double value = 0;         ///< mean over seeds
  Interval test68, test95;  ///< percentiles over replicas of the test jets, the trainings as given
  std::size_t seeds = 0;
  double seed_sd = NAN;       ///< of the differences, seed by seed
  Interval seeds68, seeds95;  ///< of their mean, by Student's t; NaN for one seed
};
/// A metric that the jets do not define is left out. Throws Error(usage) where a and b hold other
/// metrics or another number of seeds.
std::vector<Difference> paired_differences(const Replicated& a, const Replicated& b);

}  // namespace tessera
