#include "train/mixed_batches.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "core/rng.h"

namespace tessera {
namespace {

std::string key(std::size_t dataset) { return fmt::format("cursor.{}", dataset); }

Cursor start_of(const std::map<std::string, std::string>& state, std::size_t dataset) {
  const auto found = state.find(key(dataset));
  return found == state.end() ? Cursor{} : parse_cursor(found->second);
}

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
  const auto labels = set.class_labels();
  std::erase_if(jets, [&](std::uint64_t jet) { return !wanted[labels[jet]]; });
  return jets;
}

MixedBatches::MixedBatches(const UnlabelledData& data, std::int64_t jets, std::uint64_t seed,
                           const std::map<std::string, std::string>& state)
    : seed_(seed) {
  BatchConfig config;
  config.jets = static_cast<std::uint32_t>(jets);
  for (std::size_t i = 0; i < data.train.size(); ++i) {
    const auto& set = data.train[i];
    batchers_.emplace_back(set, data.features, config, seed + i, unlabelled_jets(data, *set),
                           start_of(state, i));
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

void MixedBatches::save(std::map<std::string, std::string>& state) const {
  for (std::size_t i = 0; i < batchers_.size(); ++i) {
    state[key(i)] = cursor_text(batchers_[i].cursor());
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
