#include "train/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/check.h"
#include "core/rng.h"

namespace tessera {
namespace {

// Scores with many ties.
std::vector<double> scores(std::size_t n, double shift, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<double> s(n);
  for (double& x : s) {
    x = std::round(10 * (rng.normal() + shift)) / 10;
  }
  return s;
}

double naive_auc(const std::vector<double>& s, const std::vector<double>& b) {
  double sum = 0;
  for (const double x : s) {
    for (const double y : b) {
      sum += x > y ? 1 : x == y ? 0.5 : 0;
    }
  }
  return sum / static_cast<double>(s.size() * b.size());
}

TEST(Metrics, QuantilesInterpolateAsNumpyDoes) {
  const std::vector<double> v{7, 1, 3, 10};  // numpy.quantile([7, 1, 3, 10], q)
  EXPECT_DOUBLE_EQ(quantile(v, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(v, 0.25), 2.5);
  EXPECT_DOUBLE_EQ(quantile(v, 0.5), 5);
  EXPECT_DOUBLE_EQ(quantile(v, 0.9), 9.1);
  EXPECT_DOUBLE_EQ(quantile(v, 1), 10);
  EXPECT_DOUBLE_EQ(quantile(std::vector<double>{4}, 0.3), 4);
  EXPECT_THROW(quantile({}, 0.5), Error);
}

TEST(Metrics, AucCountsPairsWithHalfTies) {
  for (const std::size_t n : {1, 31, 33, 257}) {
    const auto s = scores(n, 0.7, 1), b = scores(2 * n, 0, 2);
    EXPECT_NEAR(auc(s, b), naive_auc(s, b), 1e-12);
    EXPECT_NEAR(auc(b, s), 1 - naive_auc(s, b), 1e-12);
  }
}

TEST(Metrics, WeightsActAsRepeatedEvents) {
  const auto s = scores(40, 0.7, 1), b = scores(50, 0, 2);
  std::vector<double> ws, wb, rs, rb;
  for (std::size_t i = 0; i < s.size(); ++i) {
    ws.push_back(static_cast<double>(i % 3));
    rs.insert(rs.end(), i % 3, s[i]);
  }
  for (std::size_t i = 0; i < b.size(); ++i) {
    wb.push_back(static_cast<double>(i % 4));
    rb.insert(rb.end(), i % 4, b[i]);
  }
  EXPECT_NEAR(auc(s, b, ws, wb), naive_auc(rs, rb), 1e-12);
  const Rejection w = rejection_at(s, b, 0.4, ws, wb), r = rejection_at(rs, rb, 0.4);
  EXPECT_EQ(w.cut, r.cut);
  EXPECT_NEAR(w.rejection, r.rejection, 1e-12);
  EXPECT_NEAR(w1(s, b, ws, wb), w1(rs, rb), 1e-12);
}

TEST(Metrics, RejectionCutsAtTheKthSignalScore) {
  for (const std::size_t n : {1, 10, 33, 200}) {
    for (const double eps : {0.1, 0.3, 0.5, 0.55, 1.0}) {
      const auto s = scores(n, 1, 3), b = scores(3 * n, 0, 4);
      auto falling = s;
      std::sort(falling.rbegin(), falling.rend());
      const auto k = static_cast<std::size_t>(std::ceil(eps * static_cast<double>(n) - 1e-9));
      const double cut = falling[k - 1];
      const auto pass = [&](const std::vector<double>& v) {
        return static_cast<double>(
                   std::count_if(v.begin(), v.end(), [&](double x) { return x >= cut; })) /
               static_cast<double>(v.size());
      };
      const Rejection r = rejection_at(s, b, eps);
      EXPECT_EQ(r.cut, cut);
      EXPECT_NEAR(r.signal_efficiency, pass(s), 1e-12);
      EXPECT_NEAR(r.background_efficiency, pass(b), 1e-12);
      EXPECT_EQ(r.limit, pass(b) == 0);
      if (!r.limit) {
        EXPECT_NEAR(r.rejection, 1 / pass(b), 1e-9);
      }
    }
  }
  const Rejection limit = rejection_at(std::vector<double>{5, 6}, std::vector<double>(230, 1), 0.5);
  EXPECT_TRUE(limit.limit);
  EXPECT_NEAR(limit.rejection, 100, 1e-9);
}

TEST(Metrics, RejectionIsInvariantUnderMonotoneMaps) {
  const auto s = scores(200, 1, 3), b = scores(300, 0, 4);
  auto t = s, c = b;
  for (auto* v : {&t, &c}) {
    for (double& x : *v) {
      x = std::exp(3 * x) + 5;
    }
  }
  EXPECT_EQ(rejection_at(s, b, 0.3).rejection, rejection_at(t, c, 0.3).rejection);
}

TEST(Metrics, MulticlassScoresMatchTheirDefinitions) {
  const std::vector<double> p{0.7, 0.2, 0.1, 0.1, 0.8, 0.1, 0.4, 0.4,
                              0.2, 0.1, 0.2, 0.7, 0.3, 0.3, 0.4};
  const std::vector<int> y{0, 1, 1, 2, 0};
  const auto best = argmax_rows(p, 3);
  EXPECT_EQ(best, (std::vector<int>{0, 1, 0, 2, 2}));  // ties to the lowest index
  EXPECT_DOUBLE_EQ(accuracy(best, y), 3.0 / 5);
  const auto m = confusion_matrix(best, y, 3);
  EXPECT_EQ(m, (std::vector<double>{1, 0, 1, 1, 1, 0, 0, 0, 1}));
  EXPECT_EQ(row_normalised(m, 3), (std::vector<double>{.5, 0, .5, .5, .5, 0, 0, 0, 1}));
  const ClassScores c = class_scores(m, 3);
  EXPECT_DOUBLE_EQ(c.precision[0], 0.5);
  EXPECT_DOUBLE_EQ(c.recall[1], 0.5);
  EXPECT_DOUBLE_EQ(c.f1[2], 2.0 / 3);
  EXPECT_DOUBLE_EQ(c.macro_recall, 2.0 / 3);
  double pairs = 0;  // naive one-vs-one
  for (const auto& [i, j] : {std::pair{0, 1}, {0, 2}, {1, 2}}) {
    const auto column = [&](int of, int k) {
      std::vector<double> v;
      for (std::size_t e = 0; e < y.size(); ++e) {
        if (y[e] == of) {
          v.push_back(p[3 * e + static_cast<std::size_t>(k)]);
        }
      }
      return v;
    };
    pairs += (naive_auc(column(i, i), column(j, i)) + naive_auc(column(j, j), column(i, j))) / 2;
  }
  EXPECT_NEAR(auc_one_vs_one(p, y, 3), pairs / 3, 1e-12);
}

TEST(Metrics, CalibrationErrorIsTheMeanGapOfItsBins) {
  const std::vector<double> p{0.9, 0.1, 0.9, 0.1, 0.6, 0.4};
  EXPECT_NEAR(calibration_error(p, std::vector<int>{0, 1, 0}, 2), (0.8 + 0.4) / 3, 1e-12);
}

TEST(Metrics, SignificanceNeedsTwentyFiveBackgroundEvents) {
  const auto s = scores(300, 1, 3), b = scores(400, 0, 4);
  double best = 0;
  for (const double cut : s) {
    double ns = 0, nb = 0;
    for (const double x : s) ns += x >= cut;
    for (const double x : b) nb += x >= cut;
    if (nb >= 25) {
      best = std::max(best, ns / 300 / std::sqrt(nb / 400));
    }
  }
  EXPECT_NEAR(significance_improvement(s, b), best, 1e-12);
}

TEST(Metrics, WorkingPointsCountUnreconstructedJets) {
  const std::vector<double> s{1, 2, 3, 4, 5, 6, 7, 8}, b{0, 0, 0, 4, 6};
  const WorkingPoint w = working_point(s, 10, b, 20, 0.4);  // 4 of 10: cut at 5
  EXPECT_EQ(w.cut, 5);
  EXPECT_DOUBLE_EQ(w.efficiency, 0.4);
  EXPECT_DOUBLE_EQ(w.misidentification, 1.0 / 20);
  EXPECT_DOUBLE_EQ(working_point(s, 10, b, 20, 0.8).cut, 1);
  EXPECT_THROW(working_point(s, 10, b, 20, 0.9), Error);
}

TEST(Metrics, ResolutionMatchesItsFormulas) {
  Rng rng(5);
  std::vector<double> t, p, r;
  for (int i = 0; i < 257; ++i) {
    t.push_back(20 + 100 * static_cast<double>(rng.uniform()));
    p.push_back(t.back() * (1.02 + 0.1 * rng.normal()));
    r.push_back(p.back() / t.back());
  }
  const Resolution got = resolution(p, t);
  EXPECT_DOUBLE_EQ(got.response, quantile(r, 0.5));
  const double iqr = quantile(r, 0.75) - quantile(r, 0.25);
  EXPECT_DOUBLE_EQ(got.iqr_over_median, iqr / got.response);
  EXPECT_DOUBLE_EQ(got.sigma_iqr, iqr / 1.349 / got.response);
  EXPECT_DOUBLE_EQ(got.sigma_68, (quantile(r, 0.84) - quantile(r, 0.16)) / 2 / got.response);
  double mae = 0, sse = 0, mean = 0, sst = 0;
  for (std::size_t i = 0; i < t.size(); ++i) {
    mae += std::abs(p[i] - t[i]) / 257;
    sse += (p[i] - t[i]) * (p[i] - t[i]);
    mean += t[i] / 257;
  }
  for (const double x : t) sst += (x - mean) * (x - mean);
  EXPECT_NEAR(got.mae, mae, 1e-9);
  EXPECT_NEAR(got.r2, 1 - sse / sst, 1e-9);
  EXPECT_EQ(resolution({}, {}).n, 0);
  EXPECT_THROW(resolution(std::vector<double>{1}, std::vector<double>{0}), Error);
}

TEST(Metrics, BinsTakeTheLowerEdgeAndCountTheRest) {
  const std::vector<double> t{9.9, 10, 19.9, 20, 29, 30}, p(6, 10.0);
  const BinnedResolution b = resolution_in_bins(p, t, {10, 20, 30});
  EXPECT_EQ(b.underflow, 1U);
  EXPECT_EQ(b.overflow, 1U);
  EXPECT_EQ(b.bins[0].n, 2);
  EXPECT_EQ(b.bins[1].n, 2);
  EXPECT_EQ(tau_pt_edges().size(), 14U);
}

TEST(Metrics, W1IsTheMeanGapOfSortedSamples) {
  auto a = scores(257, 0, 1), b = scores(257, 0.5, 2);
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  double want = 0;
  for (std::size_t i = 0; i < 257; ++i) want += std::abs(a[i] - b[i]) / 257;
  EXPECT_NEAR(w1(a, b), want, 1e-12);
  EXPECT_EQ(w1(a, a), 0);
  EXPECT_NEAR(w1(std::vector<double>{0}, std::vector<double>{1, 3}), 2, 1e-12);  // unequal sizes
}

TEST(Metrics, KldMatchesANaiveHistogram) {
  const auto t = scores(3000, 0, 1), g = scores(2000, 0.2, 2);
  std::vector<double> edges;
  for (int i = 0; i < 30; ++i) edges.push_back(quantile(t, 0.001 + 0.998 * i / 29));
  const auto count = [&](const std::vector<double>& v, int bin) {  // -1 under, 29 over
    return static_cast<double>(std::count_if(v.begin(), v.end(), [&](double x) {
      if (bin == -1) return x < edges[0];
      if (bin == 29) return x > edges[29];
      const auto i = static_cast<std::size_t>(bin);
      return x >= edges[i] && (x < edges[i + 1] || (bin == 28 && x == edges[29]));
    }));
  };
  double want = 0, st = 0, sg = 0, omnijet = 0;
  for (int bin = -1; bin <= 29; ++bin) {
    const double p = (count(t, bin) + .5) / (3000 + 15.5), q = (count(g, bin) + .5) / (2000 + 15.5);
    want += p * std::log(p / q);
  }
  EXPECT_NEAR(kld(t, g), want, 1e-12);
  EXPECT_NEAR(kld(t, t), 0, 1e-15);
  std::vector<double> dt, dg;
  double nt = 0, ng = 0;
  for (int bin = 0; bin < 29; ++bin) nt += count(t, bin), ng += count(g, bin);
  for (int bin = 0; bin < 29; ++bin) {
    const auto i = static_cast<std::size_t>(bin);
    const double w = edges[i + 1] - edges[i];
    dt.push_back((w > 0 ? count(t, bin) / nt / w : 0) + 1e-8);
    dg.push_back((w > 0 ? count(g, bin) / ng / w : 0) + 1e-8);
    st += dt.back(), sg += dg.back();
  }
  for (std::size_t i = 0; i < 29; ++i) omnijet += dt[i] / st * std::log(dt[i] / st / (dg[i] / sg));
  EXPECT_NEAR(kld_omnijet(t, g), omnijet, 1e-12);
}

TEST(Metrics, CodeUseOfAUniformCodebookIsItsSize) {
  const CodeUse all = code_use(std::vector<std::uint64_t>(64, 3));
  EXPECT_NEAR(all.perplexity, 64, 1e-9);
  EXPECT_EQ(all.usage, 1);
  const CodeUse half = code_use(std::vector<std::uint64_t>{5, 0, 5, 0});
  EXPECT_NEAR(half.perplexity, 2, 1e-12);
  EXPECT_EQ(half.dead, 2U);
  EXPECT_EQ(half.tokens, 10U);
  EXPECT_EQ(code_use({}).perplexity, 0);
}

TEST(Metrics, PoissonWeightsHaveUnitMeanAndVarianceAndDependOnTheEventOnly) {
  const auto w = poisson_weights(3, 7, 100000);
  double mean = 0, square = 0, zeros = 0;
  for (const double x : w) mean += x / 1e5, square += x * x / 1e5, zeros += x == 0 ? 1e-5 : 0;
  EXPECT_NEAR(mean, 1, 0.015);
  EXPECT_NEAR(square - mean * mean, 1, 0.03);
  EXPECT_NEAR(zeros, std::exp(-1.0), 0.006);
  EXPECT_EQ(poisson_weights(3, 7, 10, 500)[4], w[504]);
  EXPECT_NE(poisson_weights(3, 8, 1000), poisson_weights(3, 7, 1000));
}

TEST(Metrics, BootstrapErrorOfAMeanIsItsStandardError) {
  Rng rng(1);
  std::vector<double> v(400);
  for (double& x : v) x = rng.normal();
  const double want = mean_sd(v).sd / 20;
  const auto weighted = [&](Numbers w) {
    double sum = 0, total = 0;
    for (std::size_t i = 0; i < v.size(); ++i) sum += w[i] * v[i], total += w[i];
    return sum / total;
  };
  EXPECT_NEAR(bootstrap_error(v.size(), 9, weighted) / want, 1, 0.2);
  EXPECT_EQ(bootstrap_error(v.size(), 9, weighted), bootstrap_error(v.size(), 9, weighted));
  const auto mean = [](Numbers s) { return mean_sd(s).mean; };
  EXPECT_NEAR(bootstrap_error_resampled(v, 9, mean), bootstrap_error(v.size(), 9, weighted), 1e-12);
}

// A NaN equals nothing, itself included: the walk over equal scores in auc() never ended.
TEST(Metrics, ANanAmongScoresOrSamplesIsRefused) {
  const std::vector<double> good{0.1, 0.7, 0.4}, bad{0.1, NAN, 0.4};
  const std::vector<int> labels{0};
  const std::pair<const char*, std::function<void(const std::vector<double>&)>> metrics[] = {
      {"auc, signal", [&](const auto& v) { (void)auc(v, good); }},
      {"auc, background", [&](const auto& v) { (void)auc(good, v); }},
      {"rejection", [&](const auto& v) { (void)rejection_at(v, good, 0.8); }},
      {"working point", [&](const auto& v) { (void)working_point(good, 3, v, 3, 0.5); }},
      {"roc", [&](const auto& v) { (void)roc_curve(good, v); }},
      {"argmax", [&](const auto& v) { (void)argmax_rows(v, 3); }},
      {"calibration", [&](const auto& v) { (void)calibration_error(v, labels, 3); }},
      {"quantile", [&](const auto& v) { (void)quantile(v, 0.5); }},
      {"w1", [&](const auto& v) { (void)w1(good, v); }},
      {"kld, truth", [&](const auto& v) { (void)kld(v, good); }},
      {"kld, generated", [&](const auto& v) { (void)kld(good, v); }},
      {"kld of OmniJet", [&](const auto& v) { (void)kld_omnijet(good, v); }},
      {"resolution", [&](const auto& v) { (void)resolution(v, good); }}};
  for (const auto& [what, metric] : metrics) {
    EXPECT_NO_THROW(metric(good)) << what;
    EXPECT_THROW(metric(bad), Error) << what;
  }
}

TEST(Metrics, RocPassesThroughEveryDistinctScore) {
  const auto s = scores(60, 1, 3), b = scores(80, 0, 4);
  const auto curve = roc_curve(s, b);
  EXPECT_DOUBLE_EQ(curve.back().signal_efficiency, 1);
  EXPECT_DOUBLE_EQ(curve.back().background_efficiency, 1);
  double area = 0, x = 0, y = 0;
  for (const RocPoint& p : curve) {
    area += (p.background_efficiency - x) * (p.signal_efficiency + y) / 2;
    x = p.background_efficiency, y = p.signal_efficiency;
  }
  EXPECT_NEAR(area, auc(s, b), 1e-12);
}

}  // namespace
}  // namespace tessera
