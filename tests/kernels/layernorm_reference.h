// What the tests of the layer norm compare with.
#pragma once

#include <cmath>
#include <vector>

#include "support/gradcheck.h"

namespace tessera::testing_support {

/// The norm of rows of width d as a function of rows, weight and bias, in double and naive.
inline DoubleFunction normed_rows(std::int64_t d) {
  return [d](const std::vector<std::vector<double>>& in) {
    std::vector<double> y;
    const auto width = static_cast<std::size_t>(d);
    for (std::size_t row = 0; row < in[0].size(); row += width) {
      double mean = 0, variance = 0;
      for (std::size_t i = row; i < row + width; ++i) mean += in[0][i] / static_cast<double>(d);
      for (std::size_t i = row; i < row + width; ++i) {
        variance += (in[0][i] - mean) * (in[0][i] - mean) / static_cast<double>(d);
      }
      const double rstd = 1 / std::sqrt(variance + static_cast<double>(1e-5F));
      for (std::size_t i = row; i < row + width; ++i) {
        y.push_back((in[0][i] - mean) * rstd * in[1][i - row] + in[2][i - row]);
      }
    }
    return y;
  };
}

}  // namespace tessera::testing_support
