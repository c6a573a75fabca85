#include "train/mixed_batches.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "core/check.h"
#include "core/rng.h"

namespace tessera {
namespace {

std::string key(std::size_t dataset) { return fmt::format("cursor.{}", dataset); }

std::string data_key(const std::string& cursor_key) { return cursor_key + ".dataset"; }

}  // namespace

std::vector<std::uint64_t> unlabelled_jets(const UnlabelledData& data, const Dataset& set) {
  std::vector<std::uint64_t> jets = without_empty(set, {});
  if (data.classes.empty()) {
    return jets;
  }
  const std::vector<std::string>& names = set.classes();
  std::vector<bool> wanted(names.size(), false);
  for (const std::string& name : data.classes) {
    const auto found = std::ranges::find(names, name);
    TESSERA_CHECK(found != names.end(), "unlabelled jets: expected a class of {}, got '{}'",
                  fmt::join(names, ", "), name);
    wanted[static_cast<std::size_t>(found - names.begin())] = true;
  }
  set.require("label/class");
  const auto labels = set.class_labels();
  std::erase_if(jets, [&](std::uint64_t jet) { return !wanted[labels[jet]]; });
  return jets;
}

void check_unweighted(const UnlabelledData& data, const std::string& what) {
  for (const auto* sets : {&data.train, &data.validation}) {
    for (const auto& set : *sets) {
      TESSERA_CHECK(!set->weighted(),
                    "{}: dataset '{}' is weighted, and weights are not used here: jets are taken "
                    "as they are stored; set data.weights=ignore for this verb",
                    what, set->manifest().name);
    }
  }
}

MixedBatches::MixedBatches(const UnlabelledData& data, std::int64_t jets, std::uint64_t seed,
                           const std::map<std::string, std::string>& state)
    : seed_(seed) {
  BatchConfig config;
  config.jets = static_cast<std::uint32_t>(jets);
  for (std::size_t i = 0; i < data.train.size(); ++i) {
    const auto& set = data.train[i];
    batchers_.emplace_back(set, data.features, config, seed + i, unlabelled_jets(data, *set),
                           load_cursor(state, key(i), *set));
    sets_.push_back(set);
    total_ += batchers_.back().jets();
  }
}

Batch MixedBatches::next(std::int64_t step) {
  std::uint64_t draw =
      Rng(seed_).fork("mixture").fork(static_cast<std::uint64_t>(step)).below(total_);
  std::size_t i = 0;
  while (draw >= batchers_[i].jets()) {
    draw -= batchers_[i++].jets();
  }
  return batchers_[i].next();
}

std::vector<Cursor> MixedBatches::cursors() const {
  std::vector<Cursor> all;
  for (const Batcher& b : batchers_) {
    all.push_back(b.cursor());
  }
  return all;
}

void MixedBatches::save(std::map<std::string, std::string>& state,
                        std::span<const Cursor> cursors) const {
  for (std::size_t i = 0; i < sets_.size(); ++i) {
    save_cursor(state, key(i), cursors[i], *sets_[i]);
  }
}

double MixedBatches::waited_seconds() const {
  double total = 0;
  for (const Batcher& b : batchers_) {
    total += b.waited_seconds();
  }
  return total;
}

std::string cursor_text(Cursor cursor) { return fmt::format("{}:{}", cursor.epoch, cursor.batch); }

Cursor parse_cursor(const std::string& text) {
  Cursor c;
  const char* end = text.data() + text.size();
  const auto [colon, first] = std::from_chars(text.data(), end, c.epoch);
  const bool middle = first == std::errc{} && colon != end && *colon == ':';
  const auto [stop, second] =
      middle ? std::from_chars(colon + 1, end, c.batch) : std::from_chars_result{end, first};
  TESSERA_CHECK_KIND(ErrorKind::data, middle && second == std::errc{} && stop == end,
                     "checkpoint: expected a cursor EPOCH:BATCH, got '{}'", text);
  return c;
}

void save_cursor(std::map<std::string, std::string>& state, const std::string& key, Cursor cursor,
                 const Dataset& data) {
  state[key] = cursor_text(cursor);
  state[data_key(key)] = manifest_hash(data.manifest());
}

Cursor load_cursor(const std::map<std::string, std::string>& state, const std::string& key,
                   const Dataset& data) {
  const auto cursor = state.find(key), made_on = state.find(data_key(key));
  if (cursor == state.end()) {
    return {};
  }
  const std::string now = manifest_hash(data.manifest());
  TESSERA_CHECK_KIND(ErrorKind::data, made_on == state.end() || made_on->second == now,
                     "checkpoint: expected the dataset whose manifest has hash {}, got '{}' with "
                     "{}: the data changed since the run began; choose another run directory",
                     made_on->second, data.manifest().name, now);
  return parse_cursor(cursor->second);
}

void for_each_batch(const std::shared_ptr<const Dataset>& data, const FeatureConfig& features,
                    std::vector<std::uint64_t> jets, std::int64_t size,
                    const std::function<void(const Batch&)>& visit) {
  BatchConfig config;
  config.jets = static_cast<std::uint32_t>(size);
  config.shuffle = false;
  Batcher batches(data, features, config, 0, std::move(jets));
  const std::uint64_t n = batches.batches_in_epoch(0);
  for (std::uint64_t i = 0; i < n; ++i) {
    visit(batches.next());
  }
}

}  // namespace tessera
