#include "train/hash.h"

#include <xxhash.h>

#include <fstream>
#include <vector>

#include "core/check.h"

namespace tessera {

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(state_->xxh); }
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

void Hasher::update(std::string_view text) {
  update(std::as_bytes(std::span(text.data(), text.size())));
}

std::string Hasher::hex() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh));
  std::string text;
  for (const unsigned char digit : canonical.digest) {
    text += fmt::format("{:02x}", digit);
  }
  return text;
}

std::string hash_bytes(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.hex();
}

std::uint64_t hash_key(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string hash_text(std::string_view text) {
  return hash_bytes(std::as_bytes(std::span(text.data(), text.size())));
}

std::string hash_file(const std::filesystem::path& path) {
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::is_regular_file(path),
                     "{}: expected a file, got nothing there", path.string());
  std::ifstream in(path, std::ios::binary);
  std::vector<char> piece(1 << 20);
  Hasher hasher;
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    hasher.update(std::string_view(piece.data(), static_cast<std::size_t>(in.gcount())));
  }
  TESSERA_CHECK_KIND(ErrorKind::io, in.eof(), "{}: cannot read", path.string());
  return hasher.hex();
}

}  // namespace tessera
