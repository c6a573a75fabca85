// Batches of several datasets in turn: unlabelled training on all jets at hand.
#pragma once

#include "train/batcher.h"
#include "train/checkpoint.h"

namespace tessera {

/// Jets of several datasets of one contract.
struct UnlabelledData {
  std::vector<std::shared_ptr<const Dataset>> train;
  std::vector<std::shared_ptr<const Dataset>> validation;
  std::vector<std::string> classes;  ///< of the jets that take part; empty = all
  FeatureConfig features;
};

/// Positions of the jets of a dataset that take part: of the wanted classes, and not empty. Throws
/// Error(usage) on a class that the dataset does not have.
std::vector<std::uint64_t> unlabelled_jets(const UnlabelledData& data, const Dataset& set);

/// Throws Error(usage) where a dataset is weighted: tokenizer, pre-training and generation take the
/// jets as they are stored. `what` asks.
void check_unweighted(const UnlabelledData& data, const std::string& what);

/// Each batch comes from one dataset, drawn in proportion to its number of jets by (seed, step), so
/// the sequence is a function of the seed and a restart needs the cursors alone. Empty jets are
/// left out.
class MixedBatches {
 public:
  /// `state`: of a checkpoint that save() filled; empty starts at the beginning.
  MixedBatches(const UnlabelledData& data, std::int64_t jets, std::uint64_t seed,
               const std::map<std::string, std::string>& state = {});
  Batch next(std::int64_t step);
  /// Where next() will read in each dataset.
  [[nodiscard]] std::vector<Cursor> cursors() const;
  /// Writes such cursors for the next run to begin at.
  void save(std::map<std::string, std::string>& state, std::span<const Cursor> cursors) const;
  [[nodiscard]] double waited_seconds() const;

 private:
  std::vector<std::shared_ptr<const Dataset>> sets_;
  std::vector<Batcher> batchers_;
  std::uint64_t total_ = 0, seed_;
};

/// "epoch:batch" and back; throws Error(data) on another text.
std::string cursor_text(Cursor cursor);
Cursor parse_cursor(const std::string& text);

/// Where a run stands in a dataset, and what tells that dataset (data_hash), among a checkpoint's
/// texts. load_cursor throws Error(data) when another dataset lies there now: a cursor into it
/// would mean other jets. Without an entry it is the beginning.
void save_cursor(std::map<std::string, std::string>& state, const std::string& key, Cursor cursor,
                 const Dataset& data);
Cursor load_cursor(const std::map<std::string, std::string>& state, const std::string& key,
                   const Dataset& data);

/// Visits every jet of a selection once, in order, `size` at a time; no jet, no visit.
void for_each_batch(const std::shared_ptr<const Dataset>& data, const FeatureConfig& features,
                    JetSelection jets, std::int64_t size,
                    const std::function<void(const Batch&)>& visit);

}  // namespace tessera
