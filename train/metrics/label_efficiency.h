// How many labels pre-training is worth.
#pragma once

#include <vector>

namespace tessera {

/// A metric against the number of labelled jets, rising in the latter.
struct LearningCurve {
  std::vector<double> jets, value;
};

enum class Better { larger, smaller };

/// N such that the curve takes `value`, over the labels that it took. Where the curve has the value
/// nowhere it is a limit.
struct LabelMultiplier {
  enum class Bound { none, at_least, at_most };
  double multiplier = 1;
  Bound bound = Bound::none;
};

/// N_scratch / N at equal metric: `scratch` is interpolated linearly in ln N, at its first crossing
/// of `value`, which was reached with `jets` labels. At least: the
/// curve never gets there; at most: it begins beyond. Throws Error(usage) on an empty curve.
LabelMultiplier label_multiplier(const LearningCurve& scratch, double jets, double value,
                                 Better better);

}  // namespace tessera
