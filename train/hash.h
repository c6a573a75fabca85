// XXH3-128 of bytes and files: protects against corruption, not against tampering.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// A running XXH3-128.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  /// 32 hex digits, canonical (big-endian) form as xxhsum prints it.
  [[nodiscard]] std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_bytes(std::span<const std::byte> bytes);
/// XXH3-64: a key for many small things, where equal keys are compared byte by byte.
std::uint64_t hash_key(std::span<const std::byte> bytes);
std::string hash_text(std::string_view text);
/// Reads the file in pieces of 1 MiB. Throws Error(missing) or Error(io).
std::string hash_file(const std::filesystem::path& path);

}  // namespace tessera
