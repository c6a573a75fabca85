#include "train/metrics/paired.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace tessera {
namespace {

constexpr double kOneSigma = 0.68, kTwoSigma = 0.95;

Metrics momentum(const auto& rising, Numbers copies) {
  RisingSample sample;
  double jets = 0;
  for (const auto& jet : rising) {
    sample.add(jet.value, jet.weight, copies[jet.index]);
    jets += copies[jet.index] > 0 ? 1 : 0;
  }
  const double median = sample.quantile(0.5);
  const double spread =  // a single jet has none, however often it is drawn
      jets > 1 ? sample.quantile(0.75) - sample.quantile(0.25) : NAN;
  return {{"resolution", spread / median}, {"response", median}};
}

/// Signal and background counted from the highest score down; jets of one score enter together.
Metrics identification(const auto& falling, Numbers copies) {
  double total = 0;
  for (const auto& jet : falling) {
    total += jet.counts ? jet.weight * copies[jet.index] : 0;
  }
  const double enough = 0.8 * total * (1 - 1e-12);
  double signal = 0, background = 0, passing = NAN, pairs = 0;
  for (std::size_t i = 0; i < falling.size();) {
    double s = 0, b = 0;
    for (const double score = falling[i].value; i < falling.size() && falling[i].value == score;
         ++i) {
      (falling[i].counts ? s : b) += falling[i].weight * copies[falling[i].index];
    }
    pairs += b * (signal + s / 2);
    signal += s;
    background += b;
    if (std::isnan(passing) && s > 0 && signal >= enough) {
      passing = background;
    }
  }
  return {{"misid@80", passing / background}, {"auc", pairs / (signal * background)}};
}

Metrics accuracy(const auto& jets, Numbers copies) {
  double right = 0, all = 0;
  for (const auto& jet : jets) {
    right += jet.counts ? jet.weight * copies[jet.index] : 0;
    all += jet.weight * copies[jet.index];
  }
  return {{"accuracy", right / all}};
}

void check_same_jets(const Predictions& a, const Predictions& b) {
  TESSERA_CHECK(a.size() == b.size(), "paired difference: {} jets against {}", a.size(), b.size());
  TESSERA_CHECK(a.weights == b.weights,
                "paired difference: expected jets of the same weights, got others");
  for (std::size_t j = 0; j < a.target.size(); ++j) {
    TESSERA_CHECK(a.ids[j] == b.ids[j] && a.target[j] == b.target[j],
                  "paired difference: jet {} has id {} and class {} in one, {} and {} in the other",
                  j, a.ids[j], a.target[j], b.ids[j], b.target[j]);
  }
}

/// The middle share of the finite ones.
Interval middle(const std::vector<double>& values, double share) {
  std::vector<double> sorted;
  std::ranges::copy_if(values, std::back_inserter(sorted),
                       [](double v) { return std::isfinite(v); });
  if (sorted.empty()) {
    return {};
  }
  std::ranges::sort(sorted);
  return {sorted_quantile(sorted, (1 - share) / 2), sorted_quantile(sorted, (1 + share) / 2)};
}

Interval student(const MeanSd& m, std::size_t n, double share) {
  if (n < 2) {
    return {};
  }
  const double half = student_quantile((1 + share) / 2, static_cast<int>(n) - 1) * m.sd /
                      std::sqrt(static_cast<double>(n));
  return {m.mean - half, m.mean + half};
}

std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> d(a.size());
  std::ranges::transform(a, b, d.begin(), std::minus<>());
  return d;
}

/// Where a method's metrics go; replicas are added up over seeds.
Replicated prepared(const std::vector<MetricSample>& seeds, Numbers ones, std::uint32_t replicas) {
  Replicated r;
  for (const MetricSample& sample : seeds) {
    const Metrics metrics = sample(ones);
    r.by_seed.resize(metrics.size());
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      r.by_seed[i].push_back(metrics[i].value);
    }
    r.metrics.clear();
    std::ranges::transform(metrics, std::back_inserter(r.metrics), &Metric::name);
  }
  r.replicas.assign(r.metrics.size(), std::vector<double>(replicas, 0.0));
  return r;
}

}  // namespace

MetricSample::MetricSample(Task task, const Predictions& p) : task_(task) {
  const auto fill = [&](const auto& value, const auto& counts) {
    for (std::size_t j = 0; j < p.target.size(); ++j) {
      jets_.push_back({value(j), j, counts(j), p.weights.empty() ? 1.0 : p.weights[j]});
    }
  };
  check_finite(p, ErrorKind::usage, "metrics");
  if (task == Task::tau_pt) {
    const std::vector<double> ratio = momentum_ratios(p);
    fill([&](std::size_t j) { return ratio[j]; }, [](std::size_t) { return true; });
    std::ranges::stable_sort(jets_, {}, &Jet::value);
  } else if (task == Task::tau_id) {
    fill([&](std::size_t j) { return tau_score(p, j); },
         [&](std::size_t j) { return p.target[j] == 1; });
    std::ranges::stable_sort(jets_, std::greater<>(), &Jet::value);
  } else {
    fill([](std::size_t) { return 0.0; }, [&](std::size_t j) { return rightly_answered(p, j); });
  }
}

Metrics MetricSample::operator()(Numbers copies) const {
  TESSERA_CHECK(copies.size() == jets_.size(), "metrics: copies of {} jets, got {}", jets_.size(),
                copies.size());
  switch (task_) {
    case Task::tau_pt:
      return momentum(jets_, copies);
    case Task::tau_id:
      return identification(jets_, copies);
    case Task::tau_dm:
    case Task::tag:
      break;
  }
  return accuracy(jets_, copies);
}

Metrics bootstrap_errors(Task task, const Predictions& predictions, std::uint64_t seed,
                         std::uint32_t replicas) {
  const std::vector<Predictions> one{predictions};
  const Replicated replicated = replicate(task, {&one, 1}, seed, replicas).at(0);
  Metrics errors;
  for (std::size_t i = 0; i < replicated.metrics.size(); ++i) {
    std::vector<double> finite;
    std::ranges::copy_if(replicated.replicas[i], std::back_inserter(finite),
                         [](double v) { return std::isfinite(v); });
    if (finite.size() > 1) {
      errors.push_back({replicated.metrics[i], mean_sd(finite).sd});
    }
  }
  return errors;
}

std::vector<Replicated> replicate(Task task, std::span<const std::vector<Predictions>> methods,
                                  std::uint64_t seed, std::uint32_t replicas) {
  std::vector<std::vector<MetricSample>> samples;
  std::vector<Replicated> out;
  const auto n = methods.empty() ? 0 : methods[0].at(0).target.size();
  for (const auto& seeds : methods) {
    samples.emplace_back();
    for (const Predictions& p : seeds) {
      check_same_jets(methods[0][0], p);
      samples.back().emplace_back(task, p);
    }
    out.push_back(prepared(samples.back(), std::vector<double>(n, 1.0), replicas));
  }
  for (std::uint32_t b = 0; b < replicas; ++b) {
    const std::vector<double> copies = poisson_weights(seed, b, n);
    for (std::size_t m = 0; m < samples.size(); ++m) {
      for (const MetricSample& sample : samples[m]) {
        const Metrics metrics = sample(copies);
        for (std::size_t i = 0; i < metrics.size(); ++i) {
          out[m].replicas[i][b] += metrics[i].value / static_cast<double>(samples[m].size());
        }
      }
    }
  }
  return out;
}

std::vector<Difference> paired_differences(const Replicated& a, const Replicated& b) {
  TESSERA_CHECK(a.metrics == b.metrics && a.by_seed.at(0).size() == b.by_seed.at(0).size(),
                "paired difference: expected the same metrics and seeds, got {} and {} seeds",
                a.by_seed.at(0).size(), b.by_seed.at(0).size());
  std::vector<Difference> out;
  for (std::size_t i = 0; i < a.metrics.size(); ++i) {
    const std::vector<double> by_seed = minus(a.by_seed[i], b.by_seed[i]);
    if (!std::ranges::all_of(by_seed, [](double v) { return std::isfinite(v); })) {
      continue;
    }
    const std::vector<double> replicas = minus(a.replicas[i], b.replicas[i]);
    const MeanSd m = mean_sd(by_seed);
    const std::size_t n = by_seed.size();
    out.push_back({.metric = a.metrics[i],
                   .value = m.mean,
                   .test68 = middle(replicas, kOneSigma),
                   .test95 = middle(replicas, kTwoSigma),
                   .seeds = n,
                   .seed_sd = n > 1 ? m.sd : NAN,
                   .seeds68 = student(m, n, kOneSigma),
                   .seeds95 = student(m, n, kTwoSigma)});
  }
  return out;
}

}  // namespace tessera
