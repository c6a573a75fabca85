// How generated jets compare with the truth, and with what the tokenizer alone makes of it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/models/tokenizer.h"
#include "train/mixed_batches.h"

namespace tessera {

/// Up to `count` of the validation jets that a model of this data is asked for, evenly spaced over
/// all sets. Of each the
/// constituents that the features keep, since a model of at most N particles cannot be asked for
/// more: with all of them, the cut of long jets would count as a fault of the generation.
JetBlock original_jets(const UnlabelledData& data, std::int64_t count);
/// The same jets after the features' cuts and truncation, encoded and decoded: in the jet frame,
/// with the original ids. What generation cannot beat.
JetBlock reconstructed_jets(const UnlabelledData& data, std::int64_t count,
                            const Tokenizer& tokenizer);

/// Distances of one sample from the truth, as train/metrics.h defines them.
struct SampleDistance {
  double kld = 0, kld_omnijet = 0, w1 = 0;
};

/// One quantity in three samples: its histogram between the truth's 0.1 and 99.9 % quantiles, and
/// distances that use all values.
struct QuantityComparison {
  std::string name, unit;
  std::vector<double> edges;                                  // (bins + 1)
  std::vector<std::int64_t> truth, reconstructed, generated;  // (bins); outside not counted
  std::int64_t truth_total = 0, reconstructed_total = 0, generated_total = 0;  ///< all values
  SampleDistance generated_distance;
  SampleDistance reconstructed_distance;  ///< the tokenizer's share
  /// Two random halves of the truth: half the size, so above what two such samples would give.
  /// Nothing where a half would be empty.
  std::optional<SampleDistance> floor;
};

struct GenerationComparison {
  /// jet_pt, jet_mass, n_constituents, width, tau21, tau32; constituent_log_pt, constituent_deta,
  /// constituent_dphi.
  std::vector<QuantityComparison> quantities;
  /// Of the quantities that are left out: name and reason.
  std::vector<std::pair<std::string, std::string>> undefined;
  /// Jets with fewer than 3 particles: they have no tau32 and are left out of tau21 and tau32.
  double truth_below_3 = 0, reconstructed_below_3 = 0, generated_below_3 = 0;
  /// Constituents whose |pz| reaches their energy; tau21 and tau32 use their floored rapidity.
  std::uint64_t truth_floored = 0, generated_floored = 0;
};

struct CompareOptions {
  std::int64_t bins = 50;
  double radius = 0.8;  ///< of N-subjettiness: exclusive kT axes, winner takes all, beta 1
};

/// Throws Error(usage) if a sample has no jet, Error(numeric) on a momentum that is not finite. A
/// quantity that one of the samples lacks (tau32 of two-particle jets) is left out. The
/// constituents' angles are relative to the constituent sum.
GenerationComparison compare_generated(const JetBlock& truth, const JetBlock& reconstructed,
                                       const JetBlock& generated,
                                       const CompareOptions& options = {});

}  // namespace tessera
