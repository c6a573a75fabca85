#include "train/metrics/generation_quality.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "core/rng.h"
#include "train/inputs.h"
#include "train/jet_block.h"
#include "train/metrics.h"
#include "train/substructure.h"

namespace tessera {
namespace {

/// Chosen jets of one data set.
struct Pick {
  const Dataset* set;
  std::vector<std::uint64_t> jets;
};

// Evenly spaced over the validation jets that take part, in the order of the sets.
std::vector<Pick> pick(const UnlabelledData& data, std::int64_t count) {
  check_unweighted(data, "the comparison of generated jets");
  std::vector<Pick> all;
  std::size_t total = 0;
  for (const auto& set : data.validation) {
    all.push_back({set.get(), unlabelled_jets(data, *set)});
    total += all.back().jets.size();
  }
  const auto wanted = std::min(total, static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
  std::vector<Pick> some;
  std::size_t first = 0, next = 0;  // of the set; of those wanted
  for (const Pick& p : all) {
    some.push_back({p.set, {}});
    for (; next < wanted && next * total / wanted < first + p.jets.size(); ++next) {
      some.back().jets.push_back(p.jets[next * total / wanted - first]);
    }
    first += p.jets.size();
  }
  return some;
}

void reconstruct(const Batch& batch, const Tokenizer& tokenizer, JetBlock& block) {
  const Segments s = segments_of(batch);
  const auto core =
      tokenizer.decode(tokenizer.encode(core_features(batch, tokenizer.device()), s), s)
          .to_vector<float>();
  for (int j = 0; j < s.count(); ++j) {
    for (auto i = static_cast<std::size_t>(s.cu_seqlens()[static_cast<std::size_t>(j)]);
         i < static_cast<std::size_t>(s.cu_seqlens()[static_cast<std::size_t>(j) + 1]); ++i) {
      push_particle(&core[kCoreFeatures * i],
                    batch.rows.pid.empty() ? kPidClasses - 1 : batch.rows.pid[i], block);
    }
    close_jet(batch.ids[static_cast<std::size_t>(j)], block);
  }
}

}  // namespace

JetBlock original_jets(const UnlabelledData& data, std::int64_t count) {
  JetBlock block = empty_block();
  for (const Pick& p : pick(data, count)) {
    for (const std::uint64_t jet : p.jets) {
      const Dataset::Located at = p.set->locate(jet);
      for (const std::size_t i : kept_particles(*at.block, at.row, data.features)) {
        copy_particle(*at.block, i, block);
      }
      close_jet(at.block->id[at.row], block);
    }
  }
  return block;
}

JetBlock reconstructed_jets(const UnlabelledData& data, std::int64_t count,
                            const Tokenizer& tokenizer) {
  constexpr std::size_t kBatch = 256;
  const NoGrad off;
  JetBlock block = empty_block();
  for (const Pick& p : pick(data, count)) {
    const std::span<const std::uint64_t> jets(p.jets);
    for (std::size_t i = 0; i < jets.size(); i += kBatch) {
      const auto some = jets.subspan(i, std::min(kBatch, jets.size() - i));
      reconstruct(make_batch(*p.set, data.features, some), tokenizer, block);
    }
  }
  return block;
}

namespace {

/// What a sample is compared by. One list a quantity, one value a jet or constituent.
struct Sample {
  std::vector<double> pt, mass, constituents, width, tau21, tau32;
  std::vector<double> log_pt, deta, dphi;
  double below_3 = 0;
  std::uint64_t floored = 0;  // constituents whose |pz| reaches the energy
};

void add_constituents(const std::vector<FourVector>& particles, const FourVector& axis, Sample& s) {
  double pt = 0, moment = 0;
  const double eta = axis.pt() > 0 ? axis.eta() : 0;  // as the features have it
  for (const FourVector& p : particles) {
    s.floored += p.floored() ? 1 : 0;
    if (!(p.pt() > 0)) {
      continue;
    }
    s.log_pt.push_back(std::log(p.pt()));
    s.deta.push_back(p.eta() - eta);
    s.dphi.push_back(delta_phi(p.phi(), axis.phi()));
    pt += p.pt();
    moment += p.pt() * std::hypot(s.deta.back(), s.dphi.back());
  }
  s.width.push_back(pt > 0 ? moment / pt : 0);
}

void add_substructure(const std::vector<FourVector>& particles, double radius, Sample& s) {
  if (particles.size() < 3) {
    s.below_3 += 1;
    return;
  }
  double tau[3];
  for (int n = 1; n <= 3; ++n) {
    tau[n - 1] = n_subjettiness(particles, n, radius);
  }
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0; };
  s.tau21.push_back(ratio(tau[1], tau[0]));
  s.tau32.push_back(ratio(tau[2], tau[1]));
}

void check_finite(const char* name, const JetBlock& b) {
  for (std::uint64_t j = 0; j < b.jets(); ++j) {
    // of a jet of massless particles the energy is the largest component: finite where it is
    TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(b.jet_energy[j]),
                       "compare_generated: the {} sample, jet with id {}: expected a finite "
                       "energy, got {}",
                       name, b.id[j], b.jet_energy[j]);
  }
}

Sample measure(const char* name, const JetBlock& block, double radius) {
  TESSERA_CHECK(block.jets() > 0, "compare_generated: the {} sample has no jets", name);
  check_finite(name, block);
  Sample s;
  for (std::uint64_t j = 0; j < block.jets(); ++j) {
    const std::vector<FourVector> particles = particles_of(block, j);
    const FourVector sum = sum_of(particles);
    s.pt.push_back(sum.pt());
    s.mass.push_back(sum.m());
    s.constituents.push_back(static_cast<double>(particles.size()));
    add_constituents(particles, sum, s);
    add_substructure(particles, radius, s);
  }
  s.below_3 /= static_cast<double>(block.jets());
  return s;
}

// Equal bins between the truth's 0.1 and 99.9 % quantiles; counts get bins of whole width around
// the integers.
std::vector<double> bin_edges(const std::vector<double>& truth, std::int64_t bins, bool integer) {
  double low = quantile(truth, 0.001), high = quantile(truth, 0.999);
  double width = (high - low) / static_cast<double>(bins);
  if (integer) {
    low = std::floor(low) - 0.5;
    width = std::max(1.0, std::ceil((high - low) / static_cast<double>(bins)));
    bins = static_cast<std::int64_t>(std::ceil((high + 0.5 - low) / width));
  } else if (!(width > 0)) {  // one value only
    low -= 0.5;
    width = 1.0 / static_cast<double>(bins);
  }
  std::vector<double> edges;
  for (std::int64_t i = 0; i <= bins; ++i) {
    edges.push_back(low + static_cast<double>(i) * width);
  }
  return edges;
}

// Counts in [e_i, e_i+1); values outside are not counted.
std::vector<std::int64_t> histogram(const std::vector<double>& values,
                                    const std::vector<double>& edges) {
  std::vector<std::int64_t> counts(edges.size() - 1, 0);
  for (const double v : values) {
    const auto bin = std::upper_bound(edges.begin(), edges.end(), v) - edges.begin() - 1;
    if (bin >= 0 && bin < std::ssize(counts)) {
      ++counts[static_cast<std::size_t>(bin)];
    }
  }
  return counts;
}

SampleDistance distance(const std::vector<double>& truth, const std::vector<double>& sample) {
  return {kld(truth, sample), kld_omnijet(truth, sample), w1(truth, sample)};
}

// Truth against itself: two halves drawn at random, since files may alternate between classes.
std::optional<SampleDistance> floor_of(const std::vector<double>& truth) {
  const RngKey key = Rng(0).fork("truth halves").key();
  std::vector<double> halves[2];
  for (std::size_t i = 0; i < truth.size(); ++i) {
    halves[key.word(i) & 1U].push_back(truth[i]);
  }
  const bool both = !halves[0].empty() && !halves[1].empty();
  return both ? std::optional(distance(halves[0], halves[1])) : std::nullopt;
}

struct Quantity {
  const char *name, *unit;
  std::vector<double> Sample::*values;
  bool integer = false;
};

constexpr Quantity kQuantities[] = {{"jet_pt", "GeV", &Sample::pt},
                                    {"jet_mass", "GeV", &Sample::mass},
                                    {"n_constituents", "", &Sample::constituents, true},
                                    {"width", "", &Sample::width},
                                    {"tau21", "", &Sample::tau21},
                                    {"tau32", "", &Sample::tau32},
                                    {"constituent_log_pt", "ln GeV", &Sample::log_pt},
                                    {"constituent_deta", "", &Sample::deta},
                                    {"constituent_dphi", "rad", &Sample::dphi}};

QuantityComparison compare(const Quantity& q, const std::vector<double>& truth,
                           const std::vector<double>& reconstructed,
                           const std::vector<double>& generated, std::int64_t bins) {
  QuantityComparison c;
  c.name = q.name;
  c.unit = q.unit;
  c.edges = bin_edges(truth, bins, q.integer);
  c.truth = histogram(truth, c.edges);
  c.reconstructed = histogram(reconstructed, c.edges);
  c.generated = histogram(generated, c.edges);
  c.truth_total = std::ssize(truth);
  c.reconstructed_total = std::ssize(reconstructed);
  c.generated_total = std::ssize(generated);
  c.generated_distance = distance(truth, generated);
  c.reconstructed_distance = distance(truth, reconstructed);
  c.floor = floor_of(truth);
  return c;
}

}  // namespace

GenerationComparison compare_generated(const JetBlock& truth, const JetBlock& reconstructed,
                                       const JetBlock& generated, const CompareOptions& options) {
  TESSERA_CHECK(options.bins >= 1, "compare_generated: expected at least one bin, got {}",
                options.bins);
  const Sample t = measure("truth", truth, options.radius),
               r = measure("reconstructed", reconstructed, options.radius),
               g = measure("generated", generated, options.radius);
  GenerationComparison out{.quantities = {},
                           .truth_below_3 = t.below_3,
                           .reconstructed_below_3 = r.below_3,
                           .generated_below_3 = g.below_3,
                           .truth_floored = t.floored,
                           .generated_floored = g.floored};
  for (const Quantity& q : kQuantities) {
    const auto &a = t.*q.values, &b = r.*q.values, &c = g.*q.values;
    if (!a.empty() && !b.empty() && !c.empty()) {
      out.quantities.push_back(compare(q, a, b, c, options.bins));
      continue;
    }
    const char* sample = a.empty() ? "true" : b.empty() ? "reconstructed" : "generated";
    out.undefined.emplace_back(q.name, fmt::format("no {} jet has one", sample));
  }
  return out;
}

}  // namespace tessera
