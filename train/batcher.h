// Batches for training and evaluation: seeded global shuffle, packing, prefetch, exact resume.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/dataset.h"
#include "train/features.h"

namespace tessera {

struct BatchConfig {
  std::uint32_t jets = 256;  ///< most jets in a batch
  std::uint64_t tokens =
      0;  ///< most constituents in a batch, 0 = no bound; one jet is always allowed
  bool shuffle = true;
  bool drop_last = false;      ///< leave out the epoch's incomplete batch
  std::uint32_t block = 4096;  ///< shuffle: neighbouring jets that travel together
  std::uint32_t window = 16;   ///< shuffle: blocks mixed with each other
  std::uint32_t bucket =
      1;  ///< batches whose jets are sorted by length together; 1 = no bucketing. Packed
          ///< batches have no padding to save, so 1 costs nothing and keeps batches unbiased
  std::uint32_t prefetch = 4;  ///< batches made ahead by a background thread; 0 = none
};

/// The batches of one epoch, as positions in the selection. A pure function of (lengths, config,
/// seed, epoch).
struct EpochPlan {
  std::vector<std::uint32_t> order;   // jets in batch order
  std::vector<std::uint32_t> starts;  // (batches + 1) into order
  [[nodiscard]] std::size_t batches() const { return starts.size() - 1; }
  [[nodiscard]] std::span<const std::uint32_t> batch(std::size_t i) const {
    return std::span(order).subspan(starts[i], starts[i + 1] - starts[i]);
  }
};
EpochPlan plan_epoch(std::span<const std::uint32_t> lengths, const BatchConfig& config,
                     std::uint64_t seed, std::uint64_t epoch);

/// Where the next batch is; what a checkpoint stores.
struct Cursor {
  std::uint64_t epoch = 0;
  std::uint64_t batch = 0;
  bool operator==(const Cursor&) const = default;
};

struct DeviceTables;

/// One packed batch on the host. B jets, T constituents after cuts.
struct Batch {
  FeatureRows rows;                 // cu_seqlens (B + 1), core (T, 3), context, pid, particles
  std::vector<std::uint64_t> jets;  // (B) positions in the dataset split
  std::vector<std::uint64_t> ids;  // (B) unique ids of the file, keys of all per-jet random numbers
  std::vector<std::int32_t> labels;       // (B) class index, -1 unlabelled
  std::vector<std::int32_t> decay_modes;  // (B) -1 none, 0..16
  std::vector<float> weights;             // (B), empty where all jets of the split have 1
  std::vector<float> jet_kinematics;      // (B, 4) pt, eta, phi, energy of the clustered jet
  std::vector<float> visible;             // (B, 4) px, py, pz, E of the visible tau, 0 when none
  Cursor at;                              ///< of this batch
  bool last_of_epoch = false;
  std::shared_ptr<const DeviceTables> sent{};  ///< what of it lies on a device already (inputs.h)

  [[nodiscard]] std::uint64_t size() const { return jets.size(); }
  [[nodiscard]] std::uint64_t tokens() const {
    return static_cast<std::uint64_t>(rows.cu_seqlens.back());
  }
};

/// Jets of a split by position: nothing set means all of them, a list means exactly these, so that
/// an empty list is no jet at all.
using JetSelection = std::optional<std::vector<std::uint64_t>>;

/// The positions that a selection stands for.
std::vector<std::uint64_t> jets_of(const Dataset& dataset, JetSelection selection);

/// Builds the batch of given jets of a dataset, in that order.
Batch make_batch(const Dataset& dataset, const FeatureConfig& features,
                 std::span<const std::uint64_t> jets);

/// Delivers batches without end, epoch after epoch. The sequence depends only on (dataset,
/// selection, configs, seed).
class Batcher {
 public:
  /// `selection`: positions in the dataset, each at most once. Throws Error(data) when it holds no
  /// jet.
  Batcher(std::shared_ptr<const Dataset> dataset, FeatureConfig features, BatchConfig config,
          std::uint64_t seed, JetSelection selection = {}, Cursor start = {});
  ~Batcher();
  Batcher(Batcher&&) noexcept;

  /// The next batch; an error of the background thread is thrown here.
  Batch next();
  /// Where next() will read: store it after a step, pass it as `start` to resume exactly.
  [[nodiscard]] Cursor cursor() const;
  [[nodiscard]] std::uint64_t batches_in_epoch(std::uint64_t epoch) const;
  [[nodiscard]] std::uint64_t jets() const;
  /// Seconds that next() waited for the background thread so far.
  [[nodiscard]] double waited_seconds() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Jets with at least one constituent, of those in `selection`: data.drop_empty.
std::vector<std::uint64_t> without_empty(const Dataset& dataset, JetSelection selection);

/// The first `count` of `selection` in the class-stratified order by hash of (id, seed): subsets of
/// growing count are nested. Result sorted. `labels` belongs to the selection's entries. Jets are
/// drawn by count: each keeps its weight, which has no say in the draw, so the classes' shares of
/// the sum of weights are those of the selection too, up to the scatter of the weights in a class.
std::vector<std::uint64_t> nested_subset(std::span<const std::uint64_t> selection,
                                         std::span<const std::uint64_t> ids,
                                         std::span<const int> labels, std::uint64_t count,
                                         std::uint64_t seed);

}  // namespace tessera
