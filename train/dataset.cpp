#include "train/dataset.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <mutex>

#include "core/check.h"

namespace tessera {
namespace {

constexpr std::int64_t kMaxConstituents = 1 << 20;
constexpr int kFormatMajor = 1;

// One open native file, with its offsets in memory (8 bytes a jet).
struct NativeFile {
  H5File h5;
  std::vector<std::int64_t> offsets;
  std::vector<std::string> classes;

  explicit NativeFile(const std::filesystem::path& path) : h5(H5File::open(path)) {
    check_attributes();
    load_offsets();
    check_columns();
  }

  [[nodiscard]] std::uint64_t jets() const { return offsets.size() - 1; }

  template <class... Args>
  [[noreturn]] void fail(std::string_view column, std::uint64_t row,
                         fmt::format_string<Args...> text, Args&&... args) const {
    TESSERA_FAIL(ErrorKind::data, "{}: dataset '{}', row {}: {}", h5.path().string(), column, row,
                 fmt::format(text, std::forward<Args>(args)...));
  }

  void check_attributes() const {
    const auto expect = [&](const char* attribute, const std::string& want) {
      const auto got = h5.read_attribute<std::string>(attribute);
      TESSERA_CHECK_KIND(ErrorKind::data, got == want,
                         "{}: attribute '{}': expected '{}', got '{}'", h5.path().string(),
                         attribute, want, got);
    };
    expect("format", "tessera");
    expect("kind", "jets");
    const auto version = h5.read_attribute<std::int64_t>("format_version");
    TESSERA_CHECK_KIND(ErrorKind::data, version == kFormatMajor,
                       "{}: attribute 'format_version': expected {}, got {}", h5.path().string(),
                       kFormatMajor, version);
  }

  void load_offsets() {
    offsets = h5.read_column<std::int64_t>("offsets");
    TESSERA_CHECK_KIND(ErrorKind::data, !offsets.empty(),
                       "{}: dataset 'offsets': expected N + 1 entries, got none",
                       h5.path().string());
    if (offsets[0] != 0) {
      fail("offsets", 0, "expected 0, got {}", offsets[0]);
    }
    for (std::size_t i = 1; i < offsets.size(); ++i) {
      if (offsets[i] < offsets[i - 1] || offsets[i] - offsets[i - 1] >= kMaxConstituents) {
        fail("offsets", i, "expected {} to {}, got {}", offsets[i - 1],
             offsets[i - 1] + kMaxConstituents - 1, offsets[i]);
      }
    }
  }

  void check_extent(const char* column, std::uint64_t want, bool required) const {
    if (!required && !h5.has(column)) {
      return;
    }
    const std::uint64_t got = h5.size(column);
    TESSERA_CHECK_KIND(ErrorKind::data, got == want, "{}: dataset '{}': expected {} rows, got {}",
                       h5.path().string(), column, want, got);
    TESSERA_CHECK_KIND(ErrorKind::data, h5.info(column).checksummed,
                       "{}: dataset '{}': expected the fletcher32 filter, got none (h5repack -f "
                       "FLET, or convert again)",
                       h5.path().string(), column);
  }

  void check_columns() {
    const auto n = jets(), m = static_cast<std::uint64_t>(offsets.back());
    check_extent("offsets", n + 1, true);
    for (const char* column : {"pf/px", "pf/py", "pf/pz", "pf/energy", "pf/charge", "pf/pid"}) {
      check_extent(column, m, true);
    }
    for (const char* column : {"pf/mass", "pf/d0", "pf/d0err", "pf/dz", "pf/dzerr"}) {
      check_extent(column, m, false);
    }
    for (const char* column : {"id", "jet/pt", "jet/eta", "jet/phi", "jet/energy"}) {
      check_extent(column, n, true);
    }
    for (const char* column : {"weight", "label/class", "label/tau_dm", "truth/vis_px",
                               "truth/vis_py", "truth/vis_pz", "truth/vis_energy"}) {
      check_extent(column, n, false);
    }
    if (h5.has("label/class")) {
      classes = h5.read_attribute<std::vector<std::string>>("classes", "label/class");
    }
  }

  template <class T>
  void read_optional(const char* column, std::uint64_t begin, std::uint64_t end,
                     std::vector<T>& out) const {
    if (h5.has(column)) {
      out = h5.read_range<T>(column, begin, end - begin);
    }
  }

  void check_finite(const char* column, const std::vector<float>& values,
                    std::uint64_t first) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        fail(column, first + i, "expected a finite value, got {}", values[i]);
      }
    }
  }

  // NaN means "not measured" in track columns; an infinity means nothing.
  void check_track(const char* column, const std::vector<float>& values,
                   std::uint64_t first) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isinf(values[i])) {
        fail(column, first + i, "expected a finite value or NaN, got {}", values[i]);
      }
    }
  }

  template <class T>
  void check_between(const char* column, const std::vector<T>& values, int low, int high,
                     std::uint64_t first) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] < low || values[i] > high) {
        fail(column, first + i, "expected {} to {}, got {}", low, high,
             static_cast<int>(values[i]));
      }
    }
  }

  void read_constituents(std::uint64_t begin, std::uint64_t end, JetBlock& b) const {
    b.px = h5.read_range<float>("pf/px", begin, end - begin);
    b.py = h5.read_range<float>("pf/py", begin, end - begin);
    b.pz = h5.read_range<float>("pf/pz", begin, end - begin);
    b.energy = h5.read_range<float>("pf/energy", begin, end - begin);
    b.charge = h5.read_range<std::int8_t>("pf/charge", begin, end - begin);
    b.pid = h5.read_range<std::int8_t>("pf/pid", begin, end - begin);
    read_optional("pf/mass", begin, end, b.mass);
    read_optional("pf/d0", begin, end, b.d0);
    read_optional("pf/d0err", begin, end, b.d0err);
    read_optional("pf/dz", begin, end, b.dz);
    read_optional("pf/dzerr", begin, end, b.dzerr);
    check_finite("pf/px", b.px, begin);
    check_finite("pf/py", b.py, begin);
    check_finite("pf/pz", b.pz, begin);
    check_finite("pf/energy", b.energy, begin);
    check_finite("pf/mass", b.mass, begin);
    for (std::size_t i = 0; i < b.energy.size(); ++i) {
      if (b.energy[i] < 0) {
        fail("pf/energy", begin + i, "expected at least 0, got {}", b.energy[i]);
      }
    }
    check_between("pf/pid", b.pid, 0, 5, begin);
    check_track("pf/d0", b.d0, begin);
    check_track("pf/d0err", b.d0err, begin);
    check_track("pf/dz", b.dz, begin);
    check_track("pf/dzerr", b.dzerr, begin);
  }

  void read_jets(std::uint64_t begin, std::uint64_t end, JetBlock& b) const {
    b.id = h5.read_range<std::uint64_t>("id", begin, end - begin);
    b.jet_pt = h5.read_range<float>("jet/pt", begin, end - begin);
    b.jet_eta = h5.read_range<float>("jet/eta", begin, end - begin);
    b.jet_phi = h5.read_range<float>("jet/phi", begin, end - begin);
    b.jet_energy = h5.read_range<float>("jet/energy", begin, end - begin);
    read_optional("weight", begin, end, b.weight);
    read_optional("label/class", begin, end, b.label_class);
    read_optional("label/tau_dm", begin, end, b.tau_dm);
    read_optional("truth/vis_px", begin, end, b.vis_px);
    read_optional("truth/vis_py", begin, end, b.vis_py);
    read_optional("truth/vis_pz", begin, end, b.vis_pz);
    read_optional("truth/vis_energy", begin, end, b.vis_energy);
    check_finite("jet/pt", b.jet_pt, begin);
    check_finite("jet/eta", b.jet_eta, begin);
    check_finite("jet/phi", b.jet_phi, begin);
    check_finite("jet/energy", b.jet_energy, begin);
    check_finite("weight", b.weight, begin);
    check_finite("truth/vis_px", b.vis_px, begin);
    check_finite("truth/vis_py", b.vis_py, begin);
    check_finite("truth/vis_pz", b.vis_pz, begin);
    check_finite("truth/vis_energy", b.vis_energy, begin);
    check_between("label/class", b.label_class, 0, static_cast<int>(classes.size()) - 1, begin);
    check_between("label/tau_dm", b.tau_dm, -1, 16, begin);
  }

  [[nodiscard]] JetBlock read(std::uint64_t begin, std::uint64_t end) const {
    JetBlock b;
    for (std::uint64_t i = begin; i <= end; ++i) {
      b.offsets.push_back(offsets[i] - offsets[begin]);
    }
    read_constituents(static_cast<std::uint64_t>(offsets[begin]),
                      static_cast<std::uint64_t>(offsets[end]), b);
    read_jets(begin, end, b);
    return b;
  }

  template <class T>
  [[nodiscard]] bool append_column(const char* column, std::vector<T>& out) const {
    if (!h5.has(column)) {
      return false;
    }
    const auto values = h5.read_column<T>(column);
    out.insert(out.end(), values.begin(), values.end());
    return true;
  }
};

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
    for (std::size_t i = 1; i < file.offsets.size(); ++i) {
      lengths.push_back(static_cast<std::uint32_t>(file.offsets[i] - file.offsets[i - 1]));
    }
    TESSERA_CHECK_KIND(
        ErrorKind::data, files.empty() || file.classes == classes,
        "{}: attribute 'classes': expected the list of the other files of the split, "
        "got another",
        file.h5.path().string());
    classes = file.classes;
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

  template <class T>
  std::vector<T> column(const char* name) const {
    std::vector<T> all;
    for (const NativeFile& file : files) {
      if (!file.append_column(name, all)) {
        return {};
      }
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
                       "{}: expected {} jets (manifest), got {}", entry.file, entry.n, file.jets());
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

std::vector<std::uint64_t> Dataset::ids() const { return impl_->column<std::uint64_t>("id"); }
std::vector<std::uint8_t> Dataset::class_labels() const {
  return impl_->column<std::uint8_t>("label/class");
}
std::vector<std::int8_t> Dataset::decay_modes() const {
  return impl_->column<std::int8_t>("label/tau_dm");
}
std::vector<float> Dataset::jet_pts() const { return impl_->column<float>("jet/pt"); }

}  // namespace tessera
