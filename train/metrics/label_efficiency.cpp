#include "train/metrics/label_efficiency.h"

#include <cmath>

#include "core/check.h"

namespace tessera {

LabelMultiplier label_multiplier(const LearningCurve& scratch, double jets, double value,
                                 Better better) {
  TESSERA_CHECK(!scratch.jets.empty() && scratch.jets.size() == scratch.value.size() && jets > 0,
                "label multiplier: expected a curve and labels, got {} and {} points, {} labels",
                scratch.jets.size(), scratch.value.size(), jets);
  using Bound = LabelMultiplier::Bound;
  const auto reached = [&](double v) { return better == Better::larger ? v >= value : v <= value; };
  if (reached(scratch.value[0])) {
    return {scratch.jets[0] / jets, scratch.value[0] == value ? Bound::none : Bound::at_most};
  }
  for (std::size_t i = 1; i < scratch.jets.size(); ++i) {
    if (reached(scratch.value[i])) {
      const double t = (value - scratch.value[i - 1]) / (scratch.value[i] - scratch.value[i - 1]);
      const double from = std::log(scratch.jets[i - 1]), to = std::log(scratch.jets[i]);
      return {std::exp(from + t * (to - from)) / jets, Bound::none};
    }
  }
  return {scratch.jets.back() / jets, Bound::at_least};
}

}  // namespace tessera
