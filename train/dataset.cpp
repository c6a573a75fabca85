#include "train/dataset.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>

#include "core/check.h"

namespace tessera {
namespace {

std::uint64_t bytes_of(const JetBlock& b) { return 64 * b.jets() + 40 * b.px.size(); }

}  // namespace

struct Dataset::Impl {
  DatasetOptions options;
  DatasetManifest manifest;
  std::vector<NativeFile> files;
  std::vector<std::uint64_t> first_jet;  // (files + 1)
  std::vector<std::uint32_t> lengths;
  std::vector<std::string> classes;

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
    TESSERA_CHECK_KIND(
        ErrorKind::data, files.empty() || file.classes() == classes,
        "{}: attribute 'classes': expected the list of the other files of the split, "
        "got another",
        file.h5().path().string());
    classes = file.classes();
    first_jet.push_back(first_jet.back() + file.jets());
    files.push_back(std::move(file));
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
    auto made = std::make_shared<const JetBlock>(file.read(begin, end));
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

  // A column of all files; empty when one of them lacks it.
  template <class T>
  std::vector<T> column(std::vector<T> (NativeFile::*of)() const) const {
    std::vector<T> all;
    for (const NativeFile& file : files) {
      const std::vector<T> values = (file.*of)();
      if (values.empty() && file.jets() > 0) {
        return {};
      }
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
};

Dataset::Dataset(const std::filesystem::path& directory, const DatasetOptions& options)
    : impl_(std::make_unique<Impl>()) {
  TESSERA_CHECK(options.block > 0, "data.block: expected at least 1, got 0");
  impl_->options = options;
  impl_->manifest = read_manifest(directory);
  impl_->first_jet = {0};
  const auto split = impl_->manifest.splits.find(options.split);
  TESSERA_CHECK_KIND(ErrorKind::missing, split != impl_->manifest.splits.end(),
                     "{}: expected a split '{}' in the manifest, got none", directory.string(),
                     options.split);
  for (const FileEntry& entry : split->second) {
    verify_file(directory, entry, options.verify);
    NativeFile file(directory / entry.file);
    TESSERA_CHECK_KIND(ErrorKind::data, file.jets() == entry.n,
                       "{}: expected {} jets (manifest), got {}", file.h5().path().string(),
                       entry.n, file.jets());
    impl_->add(std::move(file));
  }
}

Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;

std::uint64_t Dataset::size() const { return impl_->first_jet.back(); }
const std::vector<std::uint32_t>& Dataset::lengths() const { return impl_->lengths; }
const std::vector<std::string>& Dataset::classes() const { return impl_->classes; }
const DatasetManifest& Dataset::manifest() const { return impl_->manifest; }

Dataset::Located Dataset::locate(std::uint64_t jet) const {
  TESSERA_CHECK(jet < size(), "dataset: expected a jet below {}, got {}", size(), jet);
  const std::size_t file = impl_->file_of(jet);
  const std::uint64_t row = jet - impl_->first_jet[file];
  return {impl_->block({file, row / impl_->options.block}), row % impl_->options.block};
}

std::vector<std::uint64_t> Dataset::ids() const { return impl_->column(&NativeFile::ids); }
std::vector<std::uint8_t> Dataset::class_labels() const {
  return impl_->column(&NativeFile::class_labels);
}
std::vector<std::int8_t> Dataset::decay_modes() const {
  return impl_->column(&NativeFile::decay_modes);
}
std::vector<float> Dataset::jet_pts() const { return impl_->column(&NativeFile::jet_pts); }

}  // namespace tessera
