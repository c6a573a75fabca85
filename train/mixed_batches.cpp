#include "train/mixed_batches.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "core/check.h"
#include "core/rng.h"
#include "train/suggestion.h"

namespace tessera {
namespace {

std::string key(std::size_t dataset) { return fmt::format("cursor.{}", dataset); }

std::string data_key(const std::string& cursor_key) { return cursor_key + ".dataset"; }

// For each class of the dataset, whether it is asked for.
std::vector<bool> wanted_classes(const UnlabelledData& data, const Dataset& set) {
  const std::vector<std::string>& names = set.classes();
  std::vector<bool> wanted(names.size(), false);
  for (const std::string& name : data.classes) {
    const auto found = std::ranges::find(names, name);
    TESSERA_CHECK(
        found != names.end(),
        "pretrain.classes: expected classes of the dataset '{}', which has {}, got '{}'{}",
        set.manifest().name, names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")),
        name,
        names.empty() ? "" : fmt::format("; the nearest one is '{}'", nearest_name(name, names)));
    wanted[static_cast<std::size_t>(found - names.begin())] = true;
  }
  return wanted;
}

}  // namespace

std::vector<std::uint64_t> unlabelled_jets(const UnlabelledData& data, const Dataset& set) {
  std::vector<std::uint64_t> jets = without_empty(set, std::nullopt);
  if (data.classes.empty()) {
    return jets;
  }
  const std::filesystem::path unlabelled = set.file_without("label/class");
  TESSERA_CHECK_KIND(ErrorKind::data, unlabelled.empty(),
                     "{}: dataset 'label/class': expected labels to choose the classes {} by, got "
                     "none",
                     unlabelled.string(), fmt::join(data.classes, ", "));
  const std::vector<bool> wanted = wanted_classes(data, set);
  const auto labels = set.class_labels();
  std::vector<std::uint64_t> found(wanted.size(), 0);
  std::erase_if(jets, [&](std::uint64_t jet) { return !wanted[labels[jet]]; });
  for (const std::uint64_t jet : jets) {
    ++found[labels[jet]];
  }
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    TESSERA_CHECK_KIND(ErrorKind::data, !wanted[k] || found[k] > 0,
                       "pretrain.classes: expected jets of class '{}' in the split '{}' of the "
                       "dataset '{}', got none among its {} jets; its classes are {}",
                       set.classes()[k], set.split(), set.manifest().name, set.size(),
                       fmt::join(set.classes(), ", "));
  }
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
  state[data_key(key)] = data_hash(data.manifest());
}

Cursor load_cursor(const std::map<std::string, std::string>& state, const std::string& key,
                   const Dataset& data) {
  const auto cursor = state.find(key), made_on = state.find(data_key(key));
  if (cursor == state.end()) {
    return {};
  }
  const std::string now = data_hash(data.manifest());
  const bool same = made_on == state.end() || made_on->second == now ||
                    made_on->second == manifest_hash(data.manifest());  // of an older version
  TESSERA_CHECK_KIND(ErrorKind::data, same,
                     "checkpoint: expected the dataset whose files have hash {}, got '{}' with "
                     "{}: the data changed since the run began; choose another run directory",
                     made_on->second, data.manifest().name, now);
  return parse_cursor(cursor->second);
}

void for_each_batch(const std::shared_ptr<const Dataset>& data, const FeatureConfig& features,
                    JetSelection jets, std::int64_t size,
                    const std::function<void(const Batch&)>& visit) {
  BatchConfig config;
  config.jets = static_cast<std::uint32_t>(size);
  config.shuffle = false;
  if (jets && jets->empty()) {
    return;
  }
  Batcher batches(data, features, config, 0, std::move(jets));
  const std::uint64_t n = batches.batches_in_epoch(0);
  for (std::uint64_t i = 0; i < n; ++i) {
    visit(batches.next());
  }
}

}  // namespace tessera
