#include "train/batcher.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/check.h"
#include "core/rng.h"
#include "train/hash.h"

namespace tessera {
namespace {

template <class It>
void shuffle_range(It begin, It end, Rng& rng) {  // Fisher-Yates
  for (auto n = static_cast<std::uint64_t>(end - begin); n > 1; --n) {
    std::iter_swap(begin + static_cast<std::ptrdiff_t>(n - 1),
                   begin + static_cast<std::ptrdiff_t>(rng.below(n)));
  }
}

// Permutes blocks, then jets inside each window of blocks.
std::vector<std::uint32_t> shuffled_order(std::size_t count, const BatchConfig& config, Rng rng) {
  const std::size_t blocks = (count + config.block - 1) / config.block;
  std::vector<std::size_t> block_order(blocks);
  std::iota(block_order.begin(), block_order.end(), std::size_t{0});
  shuffle_range(block_order.begin(), block_order.end(), rng);
  std::vector<std::uint32_t> order;
  order.reserve(count);
  std::size_t window_begin = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t first = block_order[b] * config.block;
    for (std::size_t i = first; i < std::min(first + config.block, count); ++i) {
      order.push_back(static_cast<std::uint32_t>(i));
    }
    if ((b + 1) % config.window == 0 || b + 1 == blocks) {
      shuffle_range(order.begin() + static_cast<std::ptrdiff_t>(window_begin), order.end(), rng);
      window_begin = order.size();
    }
  }
  return order;
}

// Sorts each pool of `bucket` batches by length, stable, so that a batch holds jets of like length.
void bucket_by_length(std::vector<std::uint32_t>& order, std::span<const std::uint32_t> lengths,
                      std::size_t pool) {
  for (std::size_t begin = 0; begin < order.size(); begin += pool) {
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last =
        order.begin() + static_cast<std::ptrdiff_t>(std::min(begin + pool, order.size()));
    std::stable_sort(first, last, [&](auto a, auto b) { return lengths[a] < lengths[b]; });
  }
}

// Cuts the order into batches by jets and tokens.
std::vector<std::uint32_t> cut_batches(std::span<const std::uint32_t> order,
                                       std::span<const std::uint32_t> lengths,
                                       const BatchConfig& config) {
  std::vector<std::uint32_t> starts{0};
  std::uint64_t jets = 0, tokens = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::uint64_t length = lengths[order[i]];
    const bool full = jets == config.jets || (config.tokens > 0 && tokens + length > config.tokens);
    if (jets > 0 && full) {
      starts.push_back(static_cast<std::uint32_t>(i));
      jets = tokens = 0;
    }
    ++jets;
    tokens += length;
  }
  if (jets > 0 && !(config.drop_last && jets < config.jets && starts.size() > 1)) {
    starts.push_back(static_cast<std::uint32_t>(order.size()));
  }
  return starts;
}

// Batches of sorted pools come in random order, else an epoch would rise and fall in length.
EpochPlan permute_batches(const EpochPlan& plan, Rng rng) {
  std::vector<std::size_t> batch_order(plan.batches());
  std::iota(batch_order.begin(), batch_order.end(), std::size_t{0});
  shuffle_range(batch_order.begin(), batch_order.end(), rng);
  EpochPlan result{.order = {}, .starts = {0}};
  for (const std::size_t b : batch_order) {
    const auto jets = plan.batch(b);
    result.order.insert(result.order.end(), jets.begin(), jets.end());
    result.starts.push_back(static_cast<std::uint32_t>(result.order.size()));
  }
  return result;
}

}  // namespace

EpochPlan plan_epoch(std::span<const std::uint32_t> lengths, const BatchConfig& config,
                     std::uint64_t seed, std::uint64_t epoch) {
  TESSERA_CHECK(config.jets > 0 && config.block > 0 && config.window > 0 && config.bucket > 0,
                "batch: expected jets, block, window and bucket of at least 1, got {}, {}, {}, {}",
                config.jets, config.block, config.window, config.bucket);
  const Rng rng = Rng(seed).fork("batch order").fork(epoch);
  EpochPlan plan;
  if (config.shuffle) {
    plan.order = shuffled_order(lengths.size(), config, rng.fork("jets"));
  } else {
    plan.order.resize(lengths.size());
    std::iota(plan.order.begin(), plan.order.end(), 0U);
  }
  if (config.shuffle && config.bucket > 1) {
    bucket_by_length(plan.order, lengths, std::size_t{config.bucket} * config.jets);
  }
  plan.starts = cut_batches(plan.order, lengths, config);
  plan.order.resize(plan.starts.back());
  return config.shuffle && config.bucket > 1 ? permute_batches(plan, rng.fork("batches")) : plan;
}

Batch make_batch(const Dataset& dataset, const FeatureConfig& features,
                 std::span<const std::uint64_t> jets) {
  Batch batch;
  for (const std::uint64_t jet : jets) {
    const auto [block, row] = dataset.locate(jet);
    append_features(*block, row, features, batch.rows);
    batch.jets.push_back(jet);
    batch.ids.push_back(block->id[row]);
    batch.labels.push_back(block->label_class.empty() ? -1 : block->label_class[row]);
    batch.decay_modes.push_back(block->tau_dm.empty() ? -1 : block->tau_dm[row]);
    if (dataset.weighted()) {
      batch.weights.push_back(dataset.weights()[jet]);
    }
    for (const auto* column :
         {&block->jet_pt, &block->jet_eta, &block->jet_phi, &block->jet_energy}) {
      batch.jet_kinematics.push_back((*column)[row]);
    }
    for (const auto* column :
         {&block->vis_px, &block->vis_py, &block->vis_pz, &block->vis_energy}) {
      batch.visible.push_back(column->empty() ? 0.0F : (*column)[row]);
    }
  }
  return batch;
}

struct Batcher::Impl {
  std::shared_ptr<const Dataset> dataset;
  FeatureConfig features;
  BatchConfig config;
  std::uint64_t seed;
  std::vector<std::uint64_t> selection;
  std::vector<std::uint32_t> lengths;
  Cursor next;       // what next() delivers
  Cursor producing;  // what is made next
  EpochPlan plan;
  std::uint64_t planned_epoch = ~0ULL;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Batch> queue;
  std::exception_ptr error;
  bool stop = false;
  double waited = 0;
  std::thread thread;

  ~Impl() {
    if (thread.joinable()) {
      {
        const std::lock_guard lock(mutex);
        stop = true;
      }
      changed.notify_all();
      thread.join();
    }
  }

  void select() {
    TESSERA_CHECK_KIND(ErrorKind::data, !selection.empty(),
                       "batcher: expected at least one jet, got none");
    for (const std::uint64_t jet : selection) {
      TESSERA_CHECK(jet < dataset->size(), "batcher: expected selected jets below {}, got {}",
                    dataset->size(), jet);
      lengths.push_back(std::min(dataset->lengths()[jet], features.max_constituents));
    }
  }

  void use_plan(std::uint64_t epoch) {
    if (planned_epoch != epoch) {
      plan = plan_epoch(lengths, config, seed, epoch);
      planned_epoch = epoch;
    }
  }

  // A cursor at the very end of an epoch means the start of the next one.
  void settle(Cursor& cursor) {
    use_plan(cursor.epoch);
    TESSERA_CHECK_KIND(ErrorKind::data, cursor.batch <= plan.batches(),
                       "batcher: expected a cursor of at most {} batches in epoch {}, got {}",
                       plan.batches(), cursor.epoch, cursor.batch);
    if (cursor.batch == plan.batches()) {
      cursor = {cursor.epoch + 1, 0};
      use_plan(cursor.epoch);
    }
  }

  Batch make() {
    use_plan(producing.epoch);
    std::vector<std::uint64_t> jets;
    for (const std::uint32_t position : plan.batch(producing.batch)) {
      jets.push_back(selection[position]);
    }
    Batch batch = make_batch(*dataset, features, jets);
    batch.at = producing;
    batch.last_of_epoch = producing.batch + 1 == plan.batches();
    producing = batch.last_of_epoch ? Cursor{producing.epoch + 1, 0}
                                    : Cursor{producing.epoch, producing.batch + 1};
    return batch;
  }

  void produce() {
    try {
      while (true) {
        Batch batch = make();
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || queue.size() < config.prefetch; });
        if (stop) {
          return;
        }
        queue.push_back(std::move(batch));
        changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
      changed.notify_all();
    }
  }

  Batch take() {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return error || !queue.empty(); });
    waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (queue.empty()) {
      std::rethrow_exception(error);
    }
    Batch batch = std::move(queue.front());
    queue.pop_front();
    changed.notify_all();
    return batch;
  }
};

Batcher::Batcher(std::shared_ptr<const Dataset> dataset, FeatureConfig features, BatchConfig config,
                 std::uint64_t seed, JetSelection selection, Cursor start)
    : impl_(std::make_unique<Impl>()) {
  impl_->dataset = std::move(dataset);
  impl_->features = std::move(features);
  impl_->config = config;
  impl_->seed = seed;
  impl_->selection = jets_of(*impl_->dataset, std::move(selection));
  impl_->select();
  impl_->settle(start);
  impl_->next = impl_->producing = start;
  if (config.prefetch > 0) {
    impl_->thread = std::thread([impl = impl_.get()] { impl->produce(); });
  }
}

Batcher::~Batcher() = default;
Batcher::Batcher(Batcher&&) noexcept = default;

Batch Batcher::next() {
  Batch batch = impl_->config.prefetch > 0 ? impl_->take() : impl_->make();
  impl_->next = batch.last_of_epoch ? Cursor{batch.at.epoch + 1, 0}
                                    : Cursor{batch.at.epoch, batch.at.batch + 1};
  return batch;
}

Cursor Batcher::cursor() const { return impl_->next; }

std::uint64_t Batcher::batches_in_epoch(std::uint64_t epoch) const {
  return plan_epoch(impl_->lengths, impl_->config, impl_->seed, epoch).batches();
}

std::uint64_t Batcher::jets() const { return impl_->selection.size(); }
double Batcher::waited_seconds() const { return impl_->waited; }

std::vector<std::uint64_t> jets_of(const Dataset& dataset, JetSelection selection) {
  if (selection) {
    return std::move(*selection);
  }
  std::vector<std::uint64_t> all(dataset.size());
  std::iota(all.begin(), all.end(), std::uint64_t{0});
  return all;
}

std::vector<std::uint64_t> without_empty(const Dataset& dataset, JetSelection selection) {
  std::vector<std::uint64_t> jets = jets_of(dataset, std::move(selection));
  std::erase_if(jets, [&](std::uint64_t jet) { return dataset.lengths()[jet] == 0; });
  return jets;
}

namespace {

// Position of each entry in its class's hash order, divided by the class size: merging by it keeps
// class fractions.
struct Ranked {
  double fraction;
  std::string key;
  std::uint64_t jet;
};

}  // namespace

std::vector<std::uint64_t> nested_subset(std::span<const std::uint64_t> selection,
                                         std::span<const std::uint64_t> ids,
                                         std::span<const int> labels, std::uint64_t count,
                                         std::uint64_t seed) {
  TESSERA_CHECK(ids.size() == selection.size() && labels.size() == selection.size(),
                "nested_subset: expected {} ids and labels, got {} and {}", selection.size(),
                ids.size(), labels.size());
  TESSERA_CHECK(count <= selection.size(), "nested_subset: expected at most {} jets, got {}",
                selection.size(), count);
  std::map<int, std::vector<Ranked>> by_class;
  for (std::size_t i = 0; i < selection.size(); ++i) {
    by_class[labels[i]].push_back({0, hash_text(fmt::format("{} {}", ids[i], seed)), selection[i]});
  }
  std::vector<Ranked> all;
  for (auto& [label, entries] : by_class) {
    std::sort(entries.begin(), entries.end(),
              [](const Ranked& a, const Ranked& b) { return a.key < b.key; });
    for (std::size_t r = 0; r < entries.size(); ++r) {
      entries[r].fraction = (static_cast<double>(r) + 0.5) / static_cast<double>(entries.size());
    }
    all.insert(all.end(), entries.begin(), entries.end());
  }
  std::sort(all.begin(), all.end(), [](const Ranked& a, const Ranked& b) {
    return a.fraction != b.fraction ? a.fraction < b.fraction : a.key < b.key;
  });
  std::vector<std::uint64_t> subset;
  for (std::size_t i = 0; i < count; ++i) {
    subset.push_back(all[i].jet);
  }
  std::sort(subset.begin(), subset.end());
  return subset;
}

}  // namespace tessera
