#include "train/native_writer.h"

#include <bit>

#include "core/check.h"
#include "train/hdf5.h"
#include "train/manifest.h"

namespace tessera {

float round_mantissa(float value, int bits) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const int drop = 23 - bits;
  if (drop <= 0 || (word & 0x7F800000U) == 0x7F800000U) {
    return value;
  }
  const std::uint32_t odd = (word >> drop) & 1U;
  const std::uint32_t rounded = (word + (1U << (drop - 1)) - 1U + odd) >> drop << drop;
  // a carry into the largest exponent would make an infinity: keep such a value as it is
  return (rounded & 0x7F800000U) == 0x7F800000U ? value : std::bit_cast<float>(rounded);
}

namespace {

constexpr std::uint64_t kRowChunk = 16384, kConstituentChunk = 65536;

bool is_constituent_column(const std::string& name) { return name.starts_with("pf/"); }

void check_extents(const NativeJets& jets) {
  TESSERA_CHECK(!jets.offsets.empty() && jets.offsets.front() == 0,
                "native file: offsets must begin with 0");
  const auto n = jets.offsets.size() - 1;
  const auto m = static_cast<std::size_t>(jets.offsets.back());
  for (const auto& [name, column] : jets.columns) {
    const std::size_t size = std::visit([](const auto& v) { return v.size(); }, column);
    const std::size_t expected = is_constituent_column(name) ? m : n;
    TESSERA_CHECK(size == expected, "native file: column {} has {} values, expected {}", name, size,
                  expected);
  }
}

void round_columns(NativeJets& jets, int bits) {
  for (auto& [name, column] : jets.columns) {
    if (auto* values = std::get_if<std::vector<float>>(&column);
        values != nullptr && is_constituent_column(name)) {
      for (float& v : *values) {
        v = round_mantissa(v, bits);
      }
    }
  }
}

void write_columns(H5File& file, const NativeJets& jets, int deflate) {
  const auto options = [&](std::uint64_t chunk) {
    return ColumnOptions{.chunk = chunk, .deflate = deflate, .shuffle = true};
  };
  file.write_column("offsets", jets.offsets, options(kRowChunk));
  for (const auto& [name, column] : jets.columns) {
    const std::uint64_t chunk = is_constituent_column(name) ? kConstituentChunk : kRowChunk;
    std::visit([&](const auto& v) { file.write_column(name, v, options(chunk)); }, column);
  }
  if (!jets.classes.empty()) {
    file.write_attribute("classes", jets.classes, "label/class");
  }
}

void write_attributes(H5File& file, const NativeJets& jets, int mantissa_bits) {
  file.write_attribute("format", "tessera");
  file.write_attribute("format_version", std::uint32_t{1});
  file.write_attribute("kind", "jets");
  file.write_attribute("n", static_cast<std::int64_t>(jets.offsets.size() - 1));
  file.write_attribute("m", jets.offsets.back());
  file.write_attribute("mantissa_bits", std::int64_t{mantissa_bits});
  for (const auto& [name, value] : jets.attributes) {
    std::visit(
        [&](const auto& v) {
          if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string>) {
            file.write_attribute(name, std::string_view(v));
          } else {
            file.write_attribute(name, v);
          }
        },
        value);
  }
}

}  // namespace

void write_native_jets(const std::filesystem::path& path, NativeJets jets,
                       const NativeOptions& options) {
  TESSERA_CHECK(options.overwrite || !std::filesystem::exists(path),
                "{}: exists; it is not overwritten", path.string());
  check_extents(jets);
  round_columns(jets, options.mantissa_bits);
  H5File file = H5File::create(path, options.io);
  write_columns(file, jets, options.deflate);
  write_attributes(file, jets, options.mantissa_bits);
  file.write_attribute("content_xxh3", std::string_view(content_hash(file)));
  file.close();
}

}  // namespace tessera
