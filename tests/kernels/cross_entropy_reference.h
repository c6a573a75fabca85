// Linear and cross-entropy in double loops, of f32 operands or of rounded ones.
#pragma once

#include <cmath>
#include <tuple>
#include <vector>

#include "core/dtype.h"
#include "support/gradcheck.h"

namespace tessera::testing_support {

inline std::vector<double> rounded_to_bf16(std::vector<double> v) {
  for (double& x : v) {
    x = static_cast<double>(static_cast<float>(bf16(static_cast<float>(x))));
  }
  return v;
}

/// Losses of the rows and the gradients of factor times their sum.
struct CrossEntropyAnswers {
  std::vector<double> losses, dh, dw, db;
};

/// A problem of t rows, v classes and width d.
struct CrossEntropyProblem {
  std::int64_t t, v, d;
  Tensor h, weight, bias, row_weight;
  std::vector<std::int32_t> y;

  CrossEntropyProblem(std::int64_t rows, std::int64_t classes, std::int64_t width)
      : t(rows),
        v(classes),
        d(width),
        h(random({rows, width}, 1)),
        weight(random({classes, width}, 2)),
        bias(random({classes}, 3)),
        row_weight(random({rows}, 4)) {
    for (std::int64_t i = 0; i < t; ++i) {
      y.push_back(static_cast<std::int32_t>((7919 * i + 3) % v));
    }
  }

  [[nodiscard]] CrossEntropyAnswers expected(bool rounded, double factor = 1) const {
    const auto n = static_cast<std::size_t>(t), classes = static_cast<std::size_t>(v),
               width = static_cast<std::size_t>(d);
    const auto H = rounded ? rounded_to_bf16(doubles(h)) : doubles(h),
               W = rounded ? rounded_to_bf16(doubles(weight)) : doubles(weight);
    const auto B = doubles(bias), R = doubles(row_weight);
    CrossEntropyAnswers a{{},
                          std::vector<double>(n * width),
                          std::vector<double>(classes * width),
                          std::vector<double>(classes)};
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> z(B);
      for (std::size_t k = 0; k < classes; ++k) {
        for (std::size_t j = 0; j < width; ++j) {
          z[k] += H[i * width + j] * W[k * width + j];
        }
      }
      double sum = 0;
      const double top = *std::max_element(z.begin(), z.end());
      for (const double each : z) {
        sum += std::exp(each - top);
      }
      const auto target = static_cast<std::size_t>(y[i]);
      a.losses.push_back(R[i] * (std::log(sum) + top - z[target]));
      for (std::size_t k = 0; k < classes; ++k) {
        // 1 - p of the target as the sum of the others, so that it is exact where p is near 1.
        double slope = std::exp(z[k] - top) / sum;
        if (k == target) {
          double others = 0;
          for (std::size_t c = 0; c < classes; ++c) {
            others += c == target ? 0 : std::exp(z[c] - top);
          }
          slope = -others / sum;
        }
        slope *= factor * R[i];
        a.db[k] += slope;
        for (std::size_t j = 0; j < width; ++j) {
          a.dh[i * width + j] += slope * W[k * width + j];
          a.dw[k * width + j] += slope * H[i * width + j];
        }
      }
    }
    return a;
  }
};

}  // namespace tessera::testing_support
