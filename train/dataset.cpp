#include "train/dataset.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <mutex>
#include <numeric>

#include "core/check.h"
#include "train/class_names.h"

namespace tessera {
namespace {

std::uint64_t bytes_of(const JetBlock& b) { return 64 * b.jets() + 40 * b.px.size(); }

}  // namespace

struct Dataset::Impl {
  explicit Impl(DatasetOptions o) : options(std::move(o)) {
    TESSERA_CHECK(options.block > 0, "data.block: expected at least 1, got 0");
  }

  DatasetOptions options;
  std::filesystem::path directory;
  DatasetManifest manifest;
  std::vector<NativeFile> files;
  std::vector<std::uint64_t> first_jet{0};  // (files + 1)
  std::vector<std::uint32_t> lengths;
  std::vector<std::string> classes;
  std::vector<std::vector<std::uint8_t>> places;  // of each file's classes in `classes`
  std::vector<float> weights;                     // (jets), or empty where all are 1
  bool weights_ignored = false;

  // Decoded blocks, least recently used last.
  using Key = std::pair<std::size_t, std::uint64_t>;
  struct Entry {
    std::shared_ptr<const JetBlock> block;
    std::list<Key>::iterator use;
  };
  std::mutex mutex;
  std::map<Key, Entry> cache;
  std::list<Key> uses;
  std::uint64_t cached_bytes = 0;

  void add(NativeFile file) {
    const std::vector<std::int64_t>& offsets = file.offsets();
    for (std::size_t i = 1; i < offsets.size(); ++i) {
      lengths.push_back(static_cast<std::uint32_t>(offsets[i] - offsets[i - 1]));
    }
    places.push_back(places_of(file));
    add_weights(file.weights(), file.jets());
    first_jet.push_back(first_jet.back() + file.jets());
    files.push_back(std::move(file));
  }

  // The place of each class of this file in `classes`.
  std::vector<std::uint8_t> places_of(const NativeFile& file) {
    if (!options.labels || file.classes().empty()) {
      return {};
    }
    if (classes.empty()) {
      classes = options.classes.empty() ? file.classes() : options.classes;
    }
    return places_by_name(
        file.classes(), classes,
        fmt::format("{}: dataset 'label/class', attribute 'classes'", file.h5().path().string()),
        options.classes_of);
  }

  void place_labels(std::size_t file, std::vector<std::uint8_t>& labels) const {
    if (places[file].empty()) {
      labels.clear();
    }
    for (std::uint8_t& label : labels) {
      label = places[file][label];
    }
  }

  void add_weights(const std::vector<float>& of_file, std::uint64_t jets) {
    if (!of_file.empty()) {
      weights.resize(first_jet.back(), 1.0F);
      weights.insert(weights.end(), of_file.begin(), of_file.end());
    } else if (!weights.empty()) {
      weights.resize(first_jet.back() + jets, 1.0F);
    }
  }

  void settle_weights(const std::filesystem::path& where) {
    if (std::ranges::all_of(weights, [](float w) { return w == 1; })) {
      weights.clear();
      return;
    }
    if (options.weights == Weights::ignore) {
      weights_ignored = true;
      weights.clear();
      return;
    }
    if (options.weights == Weights::absolute) {
      std::ranges::transform(weights, weights.begin(), [](float w) { return std::abs(w); });
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    TESSERA_CHECK_KIND(ErrorKind::data, sum > 0,
                       "{}: split '{}', dataset 'weight': expected a sum above 0, got {}",
                       where.string(), options.split, sum);
  }

  [[nodiscard]] std::size_t file_of(std::uint64_t jet) const {
    const auto after = std::upper_bound(first_jet.begin(), first_jet.end(), jet);
    return static_cast<std::size_t>(after - first_jet.begin()) - 1;
  }

  std::shared_ptr<const JetBlock> block(const Key& key) {
    const std::lock_guard lock(mutex);
    if (const auto found = cache.find(key); found != cache.end()) {
      uses.splice(uses.begin(), uses, found->second.use);
      return found->second.block;
    }
    const NativeFile& file = files[key.first];
    const std::uint64_t begin = key.second * options.block;
    const std::uint64_t end = std::min(begin + options.block, file.jets());
    auto made = std::make_shared<JetBlock>(file.read(begin, end));
    place_labels(key.first, made->label_class);
    uses.push_front(key);
    cache.emplace(key, Entry{made, uses.begin()});
    cached_bytes += bytes_of(*made);
    while (cached_bytes > options.cache_bytes && uses.size() > 1) {
      cached_bytes -= bytes_of(*cache.at(uses.back()).block);
      cache.erase(uses.back());
      uses.pop_back();
    }
    return made;
  }

  // A column of all files, of(i) for each; empty when one of them lacks it.
  auto column(const auto& of) const {
    decltype(of(std::size_t{0})) all;
    for (std::size_t i = 0; i < files.size(); ++i) {
      const auto values = of(i);
      if (values.empty() && files[i].jets() > 0) {
        return decltype(all){};
      }
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
};

Dataset::Dataset(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Dataset::Dataset(const std::filesystem::path& directory, const DatasetOptions& options)
    : impl_(std::make_unique<Impl>(options)) {
  impl_->directory = directory;
  impl_->manifest = read_manifest(directory);
  const auto split = impl_->manifest.splits.find(options.split);
  TESSERA_CHECK_KIND(ErrorKind::missing, split != impl_->manifest.splits.end(),
                     "{}: expected a split '{}' in the manifest, got none", directory.string(),
                     options.split);
  TESSERA_CHECK_KIND(ErrorKind::data, !split->second.empty(),
                     "{}: expected a file in the split '{}' of the manifest, got none",
                     directory.string(), options.split);
  for (const FileEntry& entry : split->second) {
    verify_file(directory, entry, options.verify);
    NativeFile file(directory / entry.file);
    TESSERA_CHECK_KIND(ErrorKind::data, file.jets() == entry.n,
                       "{}: expected {} jets (manifest), got {}", file.h5().path().string(),
                       entry.n, file.jets());
    impl_->add(std::move(file));
  }
  impl_->settle_weights(directory);
}

Dataset Dataset::of_file(const std::filesystem::path& file, const DatasetOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  impl->directory = file.parent_path();
  NativeFile native(file);
  impl->manifest = {.name = file.stem().string(), .splits = {}, .columns = {}};
  impl->manifest.splits[options.split] = {{.file = file.filename().string(), .n = native.jets()}};
  impl->add(std::move(native));
  impl->settle_weights(file);
  return Dataset(std::move(impl));
}

Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;

std::uint64_t Dataset::size() const { return impl_->first_jet.back(); }
const std::vector<std::uint32_t>& Dataset::lengths() const { return impl_->lengths; }
const std::vector<std::string>& Dataset::classes() const { return impl_->classes; }
const DatasetManifest& Dataset::manifest() const { return impl_->manifest; }
const std::string& Dataset::split() const { return impl_->options.split; }

bool Dataset::holds(const std::string& column) const {
  return std::ranges::any_of(impl_->files,
                             [&](const NativeFile& file) { return file.h5().has(column); });
}

std::vector<Dataset::File> Dataset::files() const {
  std::vector<File> list;
  const auto& entries = impl_->manifest.splits.at(impl_->options.split);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    list.push_back({impl_->directory / entries[i].file, entries[i].file, impl_->first_jet[i],
                    impl_->first_jet[i + 1] - impl_->first_jet[i]});
  }
  return list;
}

const std::vector<float>& Dataset::weights() const { return impl_->weights; }
bool Dataset::weights_ignored() const { return impl_->weights_ignored; }

void Dataset::check_no_negative_weight() const {
  const auto bad = std::ranges::find_if(impl_->weights, [](float w) { return w < 0; });
  if (bad == impl_->weights.end()) {
    return;
  }
  const auto jet = static_cast<std::uint64_t>(bad - impl_->weights.begin());
  const std::size_t file = impl_->file_of(jet);
  TESSERA_FAIL(ErrorKind::data,
               "{}: dataset 'weight', row {}: expected at least 0 in training, got {}: choose "
               "data.weights=absolute or data.weights=ignore",
               impl_->files[file].h5().path().string(), jet - impl_->first_jet[file], *bad);
}

Dataset::Located Dataset::locate(std::uint64_t jet) const {
  TESSERA_CHECK(jet < size(), "dataset: expected a jet below {}, got {}", size(), jet);
  const std::size_t file = impl_->file_of(jet);
  const std::uint64_t row = jet - impl_->first_jet[file];
  return {impl_->block({file, row / impl_->options.block}), row % impl_->options.block};
}

std::filesystem::path Dataset::file_without(const std::string& column) const {
  const auto lacking = std::ranges::find_if(impl_->files, [&](const NativeFile& file) {
    return file.jets() > 0 && !file.h5().has(column);
  });
  return lacking == impl_->files.end() ? std::filesystem::path() : lacking->h5().path();
}

std::vector<std::uint64_t> Dataset::ids() const {
  return impl_->column([&](std::size_t i) { return impl_->files[i].ids(); });
}
std::vector<std::uint8_t> Dataset::class_labels() const {
  return impl_->column([&](std::size_t i) {
    std::vector<std::uint8_t> labels = impl_->files[i].class_labels();
    impl_->place_labels(i, labels);
    return labels;
  });
}
std::vector<std::int8_t> Dataset::decay_modes() const {
  return impl_->column([&](std::size_t i) { return impl_->files[i].decay_modes(); });
}
std::vector<float> Dataset::jet_pts() const {
  return impl_->column([&](std::size_t i) { return impl_->files[i].jet_pts(); });
}

}  // namespace tessera
