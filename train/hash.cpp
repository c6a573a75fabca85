#include "train/hash.h"

#include <xxhash.h>

#include <vector>

#include "core/check.h"
#include "train/plain_file.h"

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
  PlainFile file(path);
  std::vector<std::byte> piece(1 << 20);
  Hasher hasher;
  while (const std::size_t got = file.read(piece)) {
    hasher.update(std::span(piece).first(got));
  }
  return hasher.hex();
}

}  // namespace tessera
