// Paired differences against naive references: expanded samples, closed forms, tables.
#include "train/metrics/paired.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/rng.h"

namespace tessera {
namespace {

/// Answers of a network that is right more often the larger its `skill`; with many ties.
Predictions answers(Task task, std::size_t n, double skill, std::uint64_t seed) {
  Predictions p{.columns = task == Task::tau_pt ? 1 : task == Task::tau_id ? 2 : 3};
  Rng jets(7), network(seed);
  for (std::size_t j = 0; j < n; ++j) {
    p.ids.push_back(100 + j);
    p.target.push_back(task == Task::tau_pt ? 0 : static_cast<std::int32_t>(jets.below(2)));
    p.pt_true.push_back(20 + 100 * jets.uniform());
    p.pt_reco.push_back(p.pt_true.back() * (1 + 0.2 * jets.normal()));
    for (std::int64_t k = 0; k < p.columns; ++k) {
      const double hint = task == Task::tau_pt ? 0 : k == p.target.back() ? skill : 0;
      p.outputs.push_back(static_cast<float>(std::round(10 * (hint + network.normal())) / 10));
    }
  }
  return p;
}

/// The sample in which jet j stands weights[j] times.
Predictions expanded(const Predictions& p, const std::vector<double>& weights) {
  Predictions r{.columns = p.columns};
  const auto c = static_cast<std::size_t>(p.columns);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    for (int k = 0; k < static_cast<int>(weights[j]); ++k) {
      r.outputs.insert(r.outputs.end(), p.outputs.begin() + static_cast<long>(j * c),
                       p.outputs.begin() + static_cast<long>((j + 1) * c));
      r.ids.push_back(p.ids[j]);
      r.target.push_back(p.target[j]);
      r.pt_reco.push_back(p.pt_reco[j]);
      r.pt_true.push_back(p.pt_true[j]);
    }
  }
  return r;
}

TEST(Paired, WeightedMetricsAreThoseOfTheExpandedSample) {
  for (const Task task : kAllTasks) {
    for (const std::size_t n : {31, 33, 257}) {
      const Predictions p = answers(task, n, 0.7, 3);
      const MetricSample sample(task, p);
      for (std::uint32_t replica = 0; replica < 20; ++replica) {
        const auto weights = poisson_weights(5, replica, n);
        const Metrics got = sample(weights), wanted = evaluate(task, expanded(p, weights));
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].name, wanted[i].name);
          EXPECT_NEAR(got[i].value, wanted[i].value, 1e-12) << name(task) << " " << got[i].name;
        }
      }
    }
  }
}

TEST(Paired, AReplicaWithoutAClassHasNoMetric) {
  const Predictions p = answers(Task::tau_id, 4, 1, 3);
  const MetricSample sample(Task::tau_id, p);
  for (const Metric& m : sample(std::vector<double>(4, 0.0))) {
    EXPECT_TRUE(std::isnan(m.value)) << m.name;
  }
}

Replicated replicated(Task task, const std::vector<Predictions>& seeds, std::uint32_t replicas) {
  return replicate(task, {&seeds, 1}, 1, replicas)[0];
}

// Accuracy on paired jets: the variance of the mean of x - y, both 0 or 1, is that of the mean of
// their difference.
TEST(Paired, TheIntervalOfAnAccuracyIsItsClosedForm) {
  const std::size_t n = 2000;
  const Predictions p = answers(Task::tag, n, 1.0, 3), q = answers(Task::tag, n, 0.8, 4);
  const auto d =
      paired_differences(replicated(Task::tag, {p}, 4000), replicated(Task::tag, {q}, 4000));
  double sum = 0, squares = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double x = rightly_answered(p, j) - rightly_answered(q, j);
    sum += x / n;
    squares += x * x / n;
  }
  const double sigma = std::sqrt((squares - sum * sum) / n);
  ASSERT_EQ(d.size(), 1U);
  EXPECT_EQ(d[0].metric, "accuracy");
  EXPECT_NEAR(d[0].value, sum, 1e-12);
  EXPECT_NEAR((d[0].test68.high - d[0].test68.low) / 2, 0.9945 * sigma, 0.04 * sigma);
  EXPECT_NEAR((d[0].test95.high - d[0].test95.low) / 2, 1.96 * sigma, 0.08 * sigma);
  EXPECT_NEAR((d[0].test95.high + d[0].test95.low) / 2, sum, 0.15 * sigma);
  EXPECT_TRUE(std::isnan(d[0].seeds95.low)) << "one seed says nothing of seeds";
}

TEST(Paired, ErrorsAreTheSpreadOverExpandedSamples) {
  const Predictions p = answers(Task::tau_pt, 120, 0, 3);
  std::vector<double> resolutions;
  for (std::uint32_t b = 0; b < 50; ++b) {
    resolutions.push_back(evaluate(Task::tau_pt, expanded(p, poisson_weights(1, b, 120)))[0].value);
  }
  EXPECT_NEAR(bootstrap_errors(Task::tau_pt, p, 1, 50).at(0).value, mean_sd(resolutions).sd, 1e-12);
}

TEST(Paired, PairsShareTheirChanceAndSignsTurn) {
  const Predictions p = answers(Task::tau_pt, 500, 0, 3), q = answers(Task::tau_pt, 500, 0, 4);
  const auto same =
      paired_differences(replicated(Task::tau_pt, {p}, 100), replicated(Task::tau_pt, {p}, 100));
  for (const Difference& d : same) {
    EXPECT_EQ(d.value, 0);
    EXPECT_EQ(d.test95.low, 0);
    EXPECT_EQ(d.test95.high, 0);
  }
  const auto pq =
      paired_differences(replicated(Task::tau_pt, {p}, 100), replicated(Task::tau_pt, {q}, 100));
  const auto qp =
      paired_differences(replicated(Task::tau_pt, {q}, 100), replicated(Task::tau_pt, {p}, 100));
  for (std::size_t i = 0; i < pq.size(); ++i) {
    EXPECT_EQ(pq[i].value, -qp[i].value);
    EXPECT_NEAR(pq[i].test68.low, -qp[i].test68.high, 1e-12);
  }
}

TEST(Paired, SeedsGiveStudentsInterval) {
  std::vector<Predictions> a, b;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    a.push_back(answers(Task::tag, 300, 1.0, seed));
    b.push_back(answers(Task::tag, 300, 0.5, 10 + seed));
  }
  const Replicated x = replicated(Task::tag, a, 50), y = replicated(Task::tag, b, 50);
  const Difference d = paired_differences(x, y)[0];
  std::vector<double> each;
  for (std::size_t k = 0; k < 3; ++k) {
    each.push_back(evaluate(Task::tag, a[k])[0].value - evaluate(Task::tag, b[k])[0].value);
  }
  const MeanSd m = mean_sd(each);
  EXPECT_EQ(d.seeds, 3U);
  EXPECT_NEAR(d.value, m.mean, 1e-12);
  EXPECT_NEAR(d.seed_sd, m.sd, 1e-12);
  EXPECT_NEAR(d.seeds95.high - m.mean, 4.302653 * m.sd / std::sqrt(3.0), 1e-6);
  EXPECT_NEAR(m.mean - d.seeds68.low, 1.311578 * m.sd / std::sqrt(3.0), 1e-6);
  const auto again = paired_differences(replicated(Task::tag, a, 50), y)[0];
  EXPECT_EQ(again.test95.low, d.test95.low) << "same seed, same replicas";
  const auto other = replicate(Task::tag, {&a, 1}, 2, 50)[0];
  EXPECT_NE(other.replicas, x.replicas);
}

TEST(Paired, StudentsQuantilesAreThoseOfTheTables) {
  EXPECT_NEAR(student_quantile(0.975, 1), 12.7062047, 1e-6);
  EXPECT_NEAR(student_quantile(0.975, 2), 4.30265273, 1e-7);
  EXPECT_NEAR(student_quantile(0.975, 3), 3.18244631, 1e-7);
  EXPECT_NEAR(student_quantile(0.975, 4), 2.77644511, 1e-7);
  EXPECT_NEAR(student_quantile(0.95, 9), 1.83311293, 1e-7);
  EXPECT_NEAR(student_quantile(0.975, 1000), 1.96233908, 1e-7);
  EXPECT_NEAR(student_quantile(0.5, 5), 0, 1e-12);
  EXPECT_THROW(student_quantile(0.4, 3), Error);
}

// Two scores of +infinity differ by NaN, and a NaN score has no rank: before, the walk over equal
// scores never ended.
TEST(Paired, AnOutputThatIsNotFiniteIsRefusedWithItsJet) {
  for (const Task task : kAllTasks) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      Predictions p = answers(task, 10, 1, 3);
      p.outputs[static_cast<std::size_t>(4 * p.columns)] = bad;
      try {
        (void)bootstrap_errors(task, p, 1, 10);
        FAIL() << name(task) << " with an output of " << bad;
      } catch (const Error& e) {
        EXPECT_NE(e.message().find("(id 104)"), std::string::npos) << e.message();
      }
    }
  }
}

TEST(Paired, OtherJetsAreRefusedByName) {
  const Predictions p = answers(Task::tag, 10, 1, 3);
  Predictions q = p;
  q.ids[4] = 9;
  const std::vector<Predictions> both[] = {{p}, {q}};
  try {
    (void)replicate(Task::tag, both, 1, 10);
    FAIL() << "jets of another id were compared";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("jet 4 has id 104"), std::string::npos) << e.message();
  }
  const std::vector<Predictions> shorter[] = {{p}, {answers(Task::tag, 9, 1, 3)}};
  EXPECT_THROW((void)replicate(Task::tag, shorter, 1, 10), Error);
}

}  // namespace
}  // namespace tessera
