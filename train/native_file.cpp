#include "train/native_file.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "train/names.h"

namespace tessera {
namespace {

constexpr std::int64_t kMaxConstituents = 1 << 20;
constexpr std::int64_t kFormatMajor = 1;
constexpr std::uint64_t kCheckedAtOnce = 4096;  // jets

enum class Rows : std::uint8_t { constituents, jets };

// What the format says of a column; "" = no unit.
struct ColumnRule {
  const char* path;
  Rows rows;
  bool required;
  const char* unit;
};
constexpr ColumnRule kColumns[] = {{"pf/px", Rows::constituents, true, "GeV"},
                                   {"pf/py", Rows::constituents, true, "GeV"},
                                   {"pf/pz", Rows::constituents, true, "GeV"},
                                   {"pf/energy", Rows::constituents, true, "GeV"},
                                   {"pf/charge", Rows::constituents, true, "e"},
                                   {"pf/pid", Rows::constituents, true, ""},
                                   {"pf/mass", Rows::constituents, false, "GeV"},
                                   {"pf/d0", Rows::constituents, false, "mm"},
                                   {"pf/d0err", Rows::constituents, false, "mm"},
                                   {"pf/dz", Rows::constituents, false, "mm"},
                                   {"pf/dzerr", Rows::constituents, false, "mm"},
                                   {"id", Rows::jets, true, ""},
                                   {"jet/pt", Rows::jets, true, "GeV"},
                                   {"jet/eta", Rows::jets, true, ""},
                                   {"jet/phi", Rows::jets, true, "rad"},
                                   {"jet/energy", Rows::jets, true, "GeV"},
                                   {"weight", Rows::jets, false, ""},
                                   {"label/class", Rows::jets, false, ""},
                                   {"label/tau_dm", Rows::jets, false, ""},
                                   {"truth/vis_px", Rows::jets, false, "GeV"},
                                   {"truth/vis_py", Rows::jets, false, "GeV"},
                                   {"truth/vis_pz", Rows::jets, false, "GeV"},
                                   {"truth/vis_energy", Rows::jets, false, "GeV"}};

void check_extent(const H5File& h5, const std::string& column, std::uint64_t want) {
  const std::uint64_t got = h5.size(column);
  TESSERA_CHECK_KIND(ErrorKind::data, got == want, "{}: dataset '{}': expected {} rows, got {}",
                     h5.path().string(), column, want, got);
  TESSERA_CHECK_KIND(ErrorKind::data, h5.info(column).checksummed,
                     "{}: dataset '{}': expected the fletcher32 filter, got none (h5repack -f "
                     "FLET, or convert again)",
                     h5.path().string(), column);
}

// A reader holds some columns whole, so a file must not expand to much more than its size. Momenta
// and ids do not compress 64-fold; small files may, since their columns are mostly empty chunks.
void check_expansion(const H5File& h5) {
  constexpr long double kFactor = 64, kFree = 64 << 20;
  const auto stored = static_cast<long double>(std::filesystem::file_size(h5.path()));
  long double bytes = 0;
  for (const std::string& column : h5.columns()) {
    if (h5.is_column(column)) {
      const ColumnInfo info = h5.info(column);
      bytes += static_cast<long double>(std::max(info.shape.at(0), info.chunk)) *
               static_cast<long double>(width(info.type));
    }
  }
  TESSERA_CHECK_KIND(ErrorKind::data, bytes <= kFree + kFactor * stored,
                     "{}: its columns expand to {:.0f} MB from {:.1f} MB, expected at most {:.0f} "
                     "MB; rewrite it with less compression or smaller chunks",
                     h5.path().string(), bytes * 1e-6L, stored * 1e-6L,
                     (kFree + kFactor * stored) * 1e-6L);
}

// A unit need not be written, but a written one must be ours: nothing is rescaled in silence.
void check_unit(const H5File& h5, const ColumnRule& rule) {
  if (!h5.has_attribute("unit", rule.path)) {
    return;
  }
  const auto got = h5.read_attribute<std::string>("unit", rule.path);
  TESSERA_CHECK_KIND(ErrorKind::data, got == rule.unit,
                     "{}: dataset '{}', attribute 'unit': expected '{}', got '{}'",
                     h5.path().string(), rule.path, rule.unit, got);
}

}  // namespace

std::string column_unit(std::string_view column) {
  const auto* rule = std::find_if(std::begin(kColumns), std::end(kColumns),
                                  [&](const ColumnRule& r) { return column == r.path; });
  return rule == std::end(kColumns) ? "" : rule->unit;
}

/// Reads some rows of columns and checks their values.
class NativeFile::Columns {
 public:
  Columns(const NativeFile& file, std::uint64_t first_jet, std::uint64_t last_jet)
      : file_(file),
        jets_{first_jet, last_jet},
        constituents_{static_cast<std::uint64_t>(file.offsets_[first_jet]),
                      static_cast<std::uint64_t>(file.offsets_[last_jet])} {}

  template <class T>
  [[nodiscard]] std::vector<T> read(const char* column) const {
    const auto [begin, end] = range(column);
    return file_.h5_.read_range<T>(column, begin, end - begin);
  }
  [[nodiscard]] bool has(const char* column) const { return file_.h5_.has(column); }

  [[nodiscard]] std::vector<float> finite(const char* column) const {
    auto values = read<float>(column);
    expect(column, values, "a finite value", [](float v) { return std::isfinite(v); });
    return values;
  }
  [[nodiscard]] std::vector<float> not_negative(const char* column) const {
    auto values = finite(column);
    expect(column, values, "at least 0", [](float v) { return v >= 0; });
    return values;
  }
  // NaN means "not measured" in track columns; an infinity means nothing.
  [[nodiscard]] std::vector<float> track(const char* column) const {
    if (!has(column)) {
      return {};
    }
    auto values = read<float>(column);
    expect(column, values, "a finite value or NaN", [](float v) { return !std::isinf(v); });
    return values;
  }
  [[nodiscard]] std::vector<float> optional(const char* column) const {
    return has(column) ? finite(column) : std::vector<float>{};
  }
  template <class T>
  [[nodiscard]] std::vector<T> between(const char* column, int low, int high) const {
    auto values = read<T>(column);
    expect(column, values, fmt::format("{} to {}", low, high),
           [=](T v) { return v >= low && v <= high; });
    return values;
  }

 private:
  struct Range {
    std::uint64_t begin, end;
  };
  [[nodiscard]] Range range(std::string_view column) const {
    return column.starts_with("pf/") ? constituents_ : jets_;
  }

  template <class T, class Good>
  void expect(const char* column, const std::vector<T>& values, std::string_view expected,
              Good good) const {
    const auto bad = std::ranges::find_if_not(values, good);
    if (bad != values.end()) {
      fail(column, static_cast<std::uint64_t>(bad - values.begin()), expected,
           fmt::format("{}", *bad));
    }
  }

  [[noreturn]] void fail(std::string_view column, std::uint64_t index, std::string_view expected,
                         std::string_view got) const {
    const std::uint64_t row = range(column).begin + index;
    std::string jet;
    if (column.starts_with("pf/")) {
      const auto after = std::ranges::upper_bound(file_.offsets_, static_cast<std::int64_t>(row));
      jet = fmt::format(" (jet {})", after - file_.offsets_.begin() - 1);
    }
    TESSERA_FAIL(ErrorKind::data, "{}: dataset '{}', row {}{}: expected {}, got {}",
                 file_.h5_.path().string(), column, row, jet, expected, got);
  }

  const NativeFile& file_;
  Range jets_, constituents_;
};

NativeFile::NativeFile(const std::filesystem::path& path) : h5_(H5File::open(path)) {
  check_expansion(h5_);
  check_attributes();
  load_offsets();
  check_columns();
  load_classes();
}

void NativeFile::check_attributes() const {
  const auto expect = [&](const char* attribute, const std::string& want) {
    const auto got = h5_.read_attribute<std::string>(attribute);
    TESSERA_CHECK_KIND(ErrorKind::data, got == want, "{}: attribute '{}': expected '{}', got '{}'",
                       h5_.path().string(), attribute, want, got);
  };
  expect("format", "tessera");
  expect("kind", "jets");
  const auto version = h5_.read_attribute<std::int64_t>("format_version");
  TESSERA_CHECK_KIND(ErrorKind::data, version == kFormatMajor,
                     "{}: attribute 'format_version': expected {}, got {}", h5_.path().string(),
                     kFormatMajor, version);
}

void NativeFile::load_offsets() {
  const auto fail = [&](std::size_t row, std::int64_t low, std::int64_t high) {
    TESSERA_FAIL(ErrorKind::data, "{}: dataset 'offsets', row {}: expected {}, got {}",
                 h5_.path().string(), row,
                 low == high ? fmt::format("{}", low) : fmt::format("{} to {}", low, high),
                 offsets_[row]);
  };
  offsets_ = h5_.read_column<std::int64_t>("offsets");
  TESSERA_CHECK_KIND(ErrorKind::data, !offsets_.empty(),
                     "{}: dataset 'offsets': expected N + 1 entries, got none",
                     h5_.path().string());
  if (offsets_[0] != 0) {
    fail(0, 0, 0);
  }
  for (std::size_t i = 1; i < offsets_.size(); ++i) {
    // the extent is not compared before it is known to be no wild number
    if (offsets_[i] < offsets_[i - 1] || offsets_[i] - offsets_[i - 1] >= kMaxConstituents) {
      fail(i, offsets_[i - 1], offsets_[i - 1] + kMaxConstituents - 1);
    }
  }
}

void NativeFile::check_columns() const {
  const auto n = jets(), m = static_cast<std::uint64_t>(offsets_.back());
  check_extent(h5_, "offsets", n + 1);
  for (const ColumnRule& rule : kColumns) {
    if (rule.required || h5_.has(rule.path)) {
      check_extent(h5_, rule.path, rule.rows == Rows::jets ? n : m);
      check_unit(h5_, rule);
    }
  }
  for (const auto& [attribute, count] : {std::pair{"n", n}, std::pair{"m", m}}) {
    if (h5_.has_attribute(attribute)) {
      const auto got = h5_.read_attribute<std::int64_t>(attribute);
      TESSERA_CHECK_KIND(ErrorKind::data, std::cmp_equal(got, count),
                         "{}: attribute '{}': expected {} as in 'offsets', got {}",
                         h5_.path().string(), attribute, count, got);
    }
  }
}

void NativeFile::load_classes() {
  if (!h5_.has("label/class")) {
    return;
  }
  classes_ = h5_.read_attribute<std::vector<std::string>>("classes", "label/class");
  TESSERA_CHECK_KIND(ErrorKind::data, !classes_.empty() && classes_.size() <= 256,
                     "{}: dataset 'label/class', attribute 'classes': expected 1 to 256 names, got "
                     "{}",
                     h5_.path().string(), classes_.size());
  check_names(classes_,
              fmt::format("{}: dataset 'label/class', attribute 'classes'", h5_.path().string()));
}

void NativeFile::read_constituents(const Columns& columns, JetBlock& b) const {
  b.px = columns.finite("pf/px");
  b.py = columns.finite("pf/py");
  b.pz = columns.finite("pf/pz");
  b.energy = columns.not_negative("pf/energy");
  b.mass = columns.optional("pf/mass");
  b.charge = columns.read<std::int8_t>("pf/charge");
  b.pid = columns.between<std::int8_t>("pf/pid", 0, 5);
  b.d0 = columns.track("pf/d0");
  b.d0err = columns.track("pf/d0err");
  b.dz = columns.track("pf/dz");
  b.dzerr = columns.track("pf/dzerr");
}

void NativeFile::read_jets(const Columns& columns, JetBlock& b) const {
  b.id = columns.read<std::uint64_t>("id");
  b.jet_pt = columns.finite("jet/pt");
  b.jet_eta = columns.finite("jet/eta");
  b.jet_phi = columns.finite("jet/phi");
  b.jet_energy = columns.finite("jet/energy");
  b.weight = columns.optional("weight");
  if (columns.has("label/class")) {
    const int last = static_cast<int>(classes_.size()) - 1;
    b.label_class = columns.between<std::uint8_t>("label/class", 0, last);
  }
  if (columns.has("label/tau_dm")) {
    b.tau_dm = columns.between<std::int8_t>("label/tau_dm", -1, 16);
  }
  b.vis_px = columns.optional("truth/vis_px");
  b.vis_py = columns.optional("truth/vis_py");
  b.vis_pz = columns.optional("truth/vis_pz");
  b.vis_energy = columns.optional("truth/vis_energy");
}

JetBlock NativeFile::read(std::uint64_t begin, std::uint64_t end) const {
  JetBlock b;
  for (std::uint64_t i = begin; i <= end; ++i) {
    b.offsets.push_back(offsets_[i] - offsets_[begin]);
  }
  const Columns columns(*this, begin, end);
  read_constituents(columns, b);
  read_jets(columns, b);
  return b;
}

std::vector<std::uint64_t> NativeFile::ids() const {
  return Columns(*this, 0, jets()).read<std::uint64_t>("id");
}

std::vector<std::uint8_t> NativeFile::class_labels() const {
  const int last = static_cast<int>(classes_.size()) - 1;
  return classes_.empty() ? std::vector<std::uint8_t>{}
                          : Columns(*this, 0, jets()).between<std::uint8_t>("label/class", 0, last);
}

std::vector<std::int8_t> NativeFile::decay_modes() const {
  return h5_.has("label/tau_dm")
             ? Columns(*this, 0, jets()).between<std::int8_t>("label/tau_dm", -1, 16)
             : std::vector<std::int8_t>{};
}

std::vector<float> NativeFile::weights() const {
  return Columns(*this, 0, jets()).optional("weight");
}

std::vector<float> NativeFile::jet_pts() const {
  return Columns(*this, 0, jets()).finite("jet/pt");
}

void check_native_file(const std::filesystem::path& path) {
  const NativeFile file(path);
  for (std::uint64_t begin = 0; begin < file.jets(); begin += kCheckedAtOnce) {
    (void)file.read(begin, std::min(begin + kCheckedAtOnce, file.jets()));
  }
}

}  // namespace tessera
