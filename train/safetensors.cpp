#include "train/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/check.h"

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint64_t kMaxHeader = 100'000'000;

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr DTypeName kDTypes[] = {{DType::f64, "F64"}, {DType::i64, "I64"},   {DType::f32, "F32"},
                                 {DType::i32, "I32"}, {DType::bf16, "BF16"}, {DType::u8, "U8"}};

const char* file_name_of(DType dtype) {
  return std::find_if(std::begin(kDTypes), std::end(kDTypes),
                      [&](const DTypeName& d) { return d.dtype == dtype; })
      ->name;
}

std::optional<DType> dtype_from(std::string_view name) {
  for (const DTypeName& d : kDTypes) {
    if (name == d.name) {
      return d.dtype;
    }
  }
  return std::nullopt;
}

// What the header says of one tensor.
struct Entry {
  std::string name, dtype;
  std::vector<std::uint64_t> shape, offsets;
  bool has_shape = false;
};

// Reads exactly {name: {dtype, shape, data_offsets}, "__metadata__": {string: string}}; a false
// return stops the parser.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return refuse("a fraction"); }
  bool binary(binary_t&) override { return refuse("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (list_ == nullptr || list_->size() >= 64) {
      return refuse("a number out of place");
    }
    list_->push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (depth_ != 2 || list_ != nullptr) {
      return refuse("a string out of place");
    }
    if (in_metadata_) {
      metadata[key_] = value;
      return true;
    }
    if (key_ != "dtype") {
      return refuse("a string for '" + key_ + "'");
    }
    entries.back().dtype = value;
    return true;
  }

  bool start_object(std::size_t) override {
    if (++depth_ > 2 || list_ != nullptr) {
      return refuse("an object nested too deep");
    }
    if (depth_ == 2) {
      in_metadata_ = key_ == "__metadata__";
      inner_keys_.clear();
      if (!in_metadata_) {
        entries.push_back({.name = key_, .dtype = {}, .shape = {}, .offsets = {}});
      }
    }
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    auto& seen = depth_ == 1 ? outer_keys_ : inner_keys_;
    return seen.insert(value).second || refuse("the key '" + value + "' twice");
  }

  bool end_object() override {
    --depth_;
    return true;
  }

  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || list_ != nullptr) {
      return refuse("a list out of place");
    }
    if (key_ == "shape") {
      entries.back().has_shape = true;
      list_ = &entries.back().shape;
    } else if (key_ == "data_offsets") {
      list_ = &entries.back().offsets;
    } else {
      return refuse("a list for '" + key_ + "'");
    }
    return true;
  }

  bool end_array() override {
    list_ = nullptr;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    error = fmt::format("broken JSON at byte {}", position);
    return false;
  }

 private:
  bool refuse(std::string what) {
    error = std::move(what);
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string key_;
  std::set<std::string> outer_keys_, inner_keys_;
  std::vector<std::uint64_t>* list_ = nullptr;
};

// Elements of a shape times the width, or nothing on overflow. An extent of zero does not excuse
// the others: strides are products of them.
std::optional<std::uint64_t> byte_count(const std::vector<std::uint64_t>& shape, DType dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  bool empty = false;
  for (const std::uint64_t n : shape) {
    empty = empty || n == 0;
    if (__builtin_mul_overflow(bytes, std::max<std::uint64_t>(n, 1), &bytes)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : static_cast<std::uint64_t>(bytes);
}

class FileParser {
 public:
  FileParser(std::string_view bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  Safetensors parse() {
    HeaderReader header = read_header();
    std::sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
      return a.offsets != b.offsets ? a.offsets < b.offsets : a.name < b.name;
    });
    check_entries(header.entries);
    Safetensors result{.tensors = {}, .metadata = std::move(header.metadata)};
    for (const Entry& entry : header.entries) {
      result.tensors.emplace(entry.name, tensor_of(entry));
    }
    return result;
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", name_, fmt::format(text, std::forward<Args>(args)...));
  }

  HeaderReader read_header() {
    std::uint64_t length = 0;
    if (bytes_.size() < 8) {
      fail("expected at least 8 bytes, got {}", bytes_.size());
    }
    std::memcpy(&length, bytes_.data(), 8);
    if (length > kMaxHeader || length > bytes_.size() - 8) {
      fail("expected a header of at most {} bytes, got {}", std::min(kMaxHeader, bytes_.size() - 8),
           length);
    }
    const std::string_view text = bytes_.substr(8, length);
    buffer_ = bytes_.substr(8 + length);
    if (!text.starts_with('{')) {
      fail("expected a header that begins with '{{'");
    }
    HeaderReader reader;
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) {
      fail("header: {}", reader.error.empty() ? "broken JSON" : reader.error);
    }
    return reader;
  }

  void check_entries(const std::vector<Entry>& entries) const {
    std::uint64_t position = 0;
    for (const Entry& e : entries) {
      const auto dtype = dtype_from(e.dtype);
      if (!dtype) {
        fail("tensor '{}': expected F64, F32, BF16, I64, I32 or U8, got '{}'", e.name, e.dtype);
      }
      if (!e.has_shape || e.shape.size() > kMaxRank || e.offsets.size() != 2) {
        fail("tensor '{}': expected a shape of rank 0 to {} and two offsets, got rank {} and {}",
             e.name, kMaxRank, e.shape.size(), e.offsets.size());
      }
      if (e.offsets[0] != position || e.offsets[1] < position || e.offsets[1] > buffer_.size()) {
        fail("tensor '{}': expected offsets that begin at {} within {} bytes, got {} to {}", e.name,
             position, buffer_.size(), e.offsets[0], e.offsets[1]);
      }
      const auto bytes = byte_count(e.shape, *dtype);
      if (!bytes || *bytes != e.offsets[1] - e.offsets[0]) {
        fail("tensor '{}': shape and offsets disagree: {} bytes stored", e.name,
             e.offsets[1] - e.offsets[0]);
      }
      position = e.offsets[1];
    }
    if (position != buffer_.size()) {
      fail("expected {} bytes of tensors, got {}", position, buffer_.size());
    }
  }

  [[nodiscard]] Tensor tensor_of(const Entry& e) const {
    const std::vector<std::int64_t> extents(e.shape.begin(), e.shape.end());
    const Tensor tensor =
        Tensor::empty(Shape(std::span<const std::int64_t>(extents)), dtype_from(e.dtype).value());
    const std::string_view data = buffer_.substr(e.offsets[0], e.offsets[1] - e.offsets[0]);
    if (!data.empty()) {
      std::memcpy(bytes_of_tensor(tensor), data.data(), data.size());
    }
    return tensor;
  }

  static void* bytes_of_tensor(const Tensor& t) {
    switch (t.dtype()) {
      case DType::f64:
        return t.span<double>().data();
      case DType::i64:
        return t.span<std::int64_t>().data();
      case DType::f32:
        return t.span<float>().data();
      case DType::i32:
        return t.span<std::int32_t>().data();
      case DType::bf16:
        return t.span<bf16>().data();
      default:
        return t.span<std::uint8_t>().data();
    }
  }

  std::string_view bytes_, name_, buffer_;
};

std::span<const std::byte> tensor_bytes(const Tensor& t) {
  switch (t.dtype()) {
    case DType::f64:
      return std::as_bytes(t.span<const double>());
    case DType::i64:
      return std::as_bytes(t.span<const std::int64_t>());
    case DType::f32:
      return std::as_bytes(t.span<const float>());
    case DType::i32:
      return std::as_bytes(t.span<const std::int32_t>());
    case DType::bf16:
      return std::as_bytes(t.span<const bf16>());
    default:
      return std::as_bytes(t.span<const std::uint8_t>());
  }
}

std::string header_of(const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    header["__metadata__"] = metadata;
  }
  std::uint64_t position = 0;
  for (const auto& [name, t] : tensors) {
    const std::uint64_t end = position + tensor_bytes(t).size();
    header[name] = {{"dtype", file_name_of(t.dtype())},
                    {"shape", std::vector<std::int64_t>(t.shape().extents().begin(),
                                                        t.shape().extents().end())},
                    {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata, const FileIo& io) {
  std::vector<std::pair<std::string, Tensor>> ordered;  // on the host, contiguous
  for (const auto& [name, tensor] : tensors) {
    TESSERA_CHECK(tensor.defined() && name != "__metadata__",
                  "write_safetensors: expected a defined tensor for '{}'", name);
    ordered.emplace_back(name, tensor.detach().to(kCpu).contiguous());
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return size_of(a.second.dtype()) > size_of(b.second.dtype());
  });
  const std::string header = header_of(ordered, metadata);
  const std::uint64_t length = header.size();
  std::vector<std::span<const std::byte>> pieces{
      std::as_bytes(std::span(&length, 1)), std::as_bytes(std::span(header.data(), header.size()))};
  for (const auto& [name, tensor] : ordered) {
    if (tensor.size() > 0) {
      pieces.push_back(tensor_bytes(tensor));
    }
  }
  io.write_file(path, pieces);
}

Safetensors parse_safetensors(std::string_view bytes, std::string_view name) {
  return FileParser(bytes, name).parse();
}

Safetensors read_safetensors(const std::filesystem::path& path) {
  return parse_safetensors(read_text(path, 1ULL << 40), path.string());
}

}  // namespace tessera
