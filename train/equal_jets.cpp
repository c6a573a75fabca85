#include "train/equal_jets.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>

#include "train/hash.h"

namespace tessera {
namespace {

constexpr std::uint64_t kAtOnce = 4096;  // jets

template <class T>
void append_bytes(const std::vector<T>& values, std::size_t begin, std::size_t end,
                  std::vector<std::byte>& out) {
  const auto bytes = std::as_bytes(std::span(values).subspan(begin, end - begin));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> constituents(const JetBlock& b, std::uint64_t row) {
  const auto begin = static_cast<std::size_t>(b.offsets[row]);
  const auto end = static_cast<std::size_t>(b.offsets[row + 1]);
  std::vector<std::byte> bytes;
  for (const auto* column : {&b.px, &b.py, &b.pz, &b.energy}) {
    append_bytes(*column, begin, end, bytes);
  }
  for (const auto* column : {&b.charge, &b.pid}) {
    append_bytes(*column, begin, end, bytes);
  }
  return bytes;
}

bool generated(const H5File& file) {
  return file.has_attribute("source") && file.read_attribute<std::string>("source") == "generated";
}

std::uint64_t key_of(const std::vector<std::byte>& bytes) {
  return bytes.empty() ? 0 : std::max<std::uint64_t>(1, hash_key(bytes));
}

std::vector<std::byte> constituents_at(const EqualJets::Place& place) {
  return constituents(NativeFile(place.file).read(place.row, place.row + 1), 0);
}

}  // namespace

void EqualJetSearch::add(const std::filesystem::path& path) {
  const NativeFile file(path);
  File entry{.path = path, .keys = {}};
  if (!generated(file.h5())) {
    for (std::uint64_t begin = 0; begin < file.jets(); begin += kAtOnce) {
      const JetBlock block = file.read(begin, std::min(begin + kAtOnce, file.jets()));
      for (std::uint64_t row = 0; row < block.jets(); ++row) {
        entry.keys.push_back(key_of(constituents(block, row)));
      }
    }
  }
  files_.push_back(std::move(entry));
}

std::vector<std::uint64_t> EqualJetSearch::repeated_keys() const {
  std::vector<std::uint64_t> all;
  for (const File& file : files_) {
    std::ranges::copy_if(file.keys, std::back_inserter(all), [](auto key) { return key != 0; });
  }
  std::ranges::sort(all);
  std::vector<std::uint64_t> repeated;
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i] == all[i - 1] && (repeated.empty() || repeated.back() != all[i])) {
      repeated.push_back(all[i]);
    }
  }
  return repeated;
}

std::optional<EqualJets> EqualJetSearch::find() const {
  const std::vector<std::uint64_t> repeated = repeated_keys();
  std::map<std::uint64_t, EqualJets::Place> seen;
  std::optional<EqualJets> found;
  for (const File& file : files_) {
    for (std::size_t row = 0; row < file.keys.size() && !repeated.empty(); ++row) {
      if (!std::ranges::binary_search(repeated, file.keys[row])) {
        continue;
      }
      const EqualJets::Place here{file.path, row};
      const auto [earlier, first_time] = seen.try_emplace(file.keys[row], here);
      if (first_time) {
        continue;
      }
      if (found) {
        ++found->others;  // by their keys alone: it is a count for a message
      } else if (constituents_at(earlier->second) == constituents_at(here)) {
        found = EqualJets{.first = earlier->second, .second = here};
      }
    }
  }
  return found;
}

}  // namespace tessera
