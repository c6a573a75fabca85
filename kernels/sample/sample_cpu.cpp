// One row is one chunk. Probabilities are doubles summed in index order, so a draw depends on the
// row and its uniform alone. A generated token costs one row of V against a GEMM of V d: plain C++.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "kernels/sample/sample.h"

namespace tessera::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Scratch of a thread: the row with what may not be drawn at -inf, probabilities, ranking.
struct Scratch {
  std::vector<float> logits;
  std::vector<double> weights;
  std::vector<std::int32_t> ranked;
};

// Copies a row; false if it holds a NaN or +inf, or nothing to draw.
bool admit(const float* row, const SampleRule& rule, std::vector<float>& out) {
  bool any = false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = rule.excluded[i] != 0 ? kNever : row[i];
    if (std::isnan(out[i]) || out[i] == -kNever) {
      return false;
    }
    any = any || out[i] != kNever;
  }
  return any;
}

// Indices by falling logit, ties to the smaller index.
void rank(const std::vector<float>& logits, std::vector<std::int32_t>& ranked) {
  ranked.resize(logits.size());
  for (std::size_t i = 0; i < ranked.size(); ++i) {
    ranked[i] = static_cast<std::int32_t>(i);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
}

// weights := exp((x - max) / temperature).
void weigh(float temperature, Scratch& s) {
  const double top = *std::max_element(s.logits.begin(), s.logits.end());
  for (std::size_t i = 0; i < s.logits.size(); ++i) {
    s.weights[i] = std::exp((static_cast<double>(s.logits[i]) - top) / temperature);
  }
}

// Zeroes the weights outside top_k and top_p.
void truncate(const SampleRule& rule, Scratch& s) {
  rank(s.logits, s.ranked);
  const std::size_t size = s.ranked.size();
  const std::size_t k =
      rule.top_k > 0 ? std::min(size, static_cast<std::size_t>(rule.top_k)) : size;
  double total = 0;
  for (std::size_t i = 0; i < k; ++i) {
    total += s.weights[static_cast<std::size_t>(s.ranked[i])];
  }
  double before = 0;  // weight of the classes ranked higher
  for (std::size_t i = 0; i < size; ++i) {
    double& weight = s.weights[static_cast<std::size_t>(s.ranked[i])];
    const bool keep = i < k && (rule.top_p >= 1 || before < rule.top_p * total);
    before += weight;
    weight = keep ? weight : 0;
  }
}

std::int32_t invert(const std::vector<double>& weights, double uniform) {
  double total = 0, cumulated = 0;
  for (const double w : weights) {
    total += w;
  }
  std::int32_t last = -1;  // where rounding leaves the sum short of the target
  for (std::size_t i = 0; i < weights.size(); ++i) {
    cumulated += weights[i];
    last = weights[i] > 0 ? static_cast<std::int32_t>(i) : last;
    if (cumulated > uniform * total) {
      return static_cast<std::int32_t>(i);
    }
  }
  return last;
}

std::int32_t draw(const float* row, double uniform, const SampleRule& rule, Scratch& s) {
  if (!admit(row, rule, s.logits)) {
    return -1;
  }
  if (rule.temperature == 0) {
    const auto largest = std::max_element(s.logits.begin(), s.logits.end());
    return static_cast<std::int32_t>(largest - s.logits.begin());
  }
  weigh(rule.temperature, s);
  if (rule.top_k > 0 || rule.top_p < 1) {
    truncate(rule, s);
  }
  return invert(s.weights, uniform);
}

}  // namespace

void sample_rows(View<const float, 2> logits, View<const float, 1> uniforms, SampleRule rule,
                 View<std::int32_t, 1> out, Stream) {
  parallel_for(logits.shape[0], [&](std::int64_t i) {
    thread_local Scratch scratch;
    scratch.logits.resize(static_cast<std::size_t>(logits.shape[1]));
    scratch.weights.resize(static_cast<std::size_t>(logits.shape[1]));
    out(i) = draw(logits.row(i), uniforms(i), rule, scratch);
  });
}

}  // namespace tessera::cpu
