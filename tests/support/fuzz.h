// Mutations of a good file, and the bounds under which a parser must read or refuse each: a typed
// error, a second, and no memory that the file does not account for. It replaces operator new, so a
// program includes it in one file.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/rng.h"

namespace {
// Bytes that operator new gave to this thread: an upper bound of what a parser held at any time.
thread_local std::size_t t_allocated = 0;

void* counted(std::size_t bytes) noexcept {
  t_allocated += bytes;
  return std::malloc(bytes > 0 ? bytes : 1);
}
}  // namespace

// Never inlined, or g++ 12 takes new and free for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* p = counted(bytes)) {
    return p;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return ::operator new(bytes); }
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes);
}
[[gnu::noinline]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace tessera {
namespace {

constexpr int kTrials = 1500;  // for each format

// Pieces that mean something to one of the formats.
const std::vector<std::string> kTokens = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\",
                                          "\n",
                                          "=",
                                          "#",
                                          "'''",
                                          "\"\"\"",
                                          "\\u0000",
                                          "\\ud800",
                                          "null",
                                          "true",
                                          "nan",
                                          "inf",
                                          "-0",
                                          "-1",
                                          "0",
                                          "1e400",
                                          "1e308",
                                          "4611686018427387904",
                                          "9223372036854775807",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "99999999999999999999",
                                          "0x7fffffffffffffff",
                                          "1979-05-27",
                                          "[0,4611686018427387904,4]",
                                          "\"step\":",
                                          "\"bytes\":",
                                          "\"n\":",
                                          "\"shape\":",
                                          "\"data_offsets\":[0,0]",
                                          "\"__metadata__\":{}",
                                          "..",
                                          "/",
                                          "\xc3\x28",
                                          std::string(1, '\0'),
                                          "a.b.c = 1\n",
                                          "[train]\n",
                                          "[[train]]\n"};

std::size_t place(Rng& rng, const std::string& text) {
  return static_cast<std::size_t>(rng.below(text.size() + 1));
}

// One edit of a text: a byte, a bit, a token, a cut, a repeat, or another number.
void edit(std::string& text, Rng& rng) {
  const std::size_t at = place(rng, text);
  const std::size_t length = std::min<std::size_t>(rng.below(40), text.size() - at);
  switch (rng.below(6)) {
    case 0:
      text.replace(at, at < text.size() ? 1 : 0, 1, static_cast<char>(rng.below(256)));
      return;
    case 1:
      if (at < text.size()) {
        text[at] = static_cast<char>(text[at] ^ (1 << rng.below(8)));
      }
      return;
    case 2:
      text.insert(at, kTokens[rng.below(kTokens.size())]);
      return;
    case 3:
      text.erase(at, rng.below(8) == 0 ? std::string::npos : length);
      return;
    case 4:
      text.insert(place(rng, text), text.substr(at, length));
      return;
    default: {
      const std::size_t digit = text.find_first_of("0123456789", at);
      if (digit != std::string::npos) {
        const std::size_t end = text.find_first_not_of("0123456789", digit);
        text.replace(digit, end - digit, kTokens[rng.below(kTokens.size())]);
      }
    }
  }
}

std::string mutated(std::string text, Rng& rng) {
  for (std::uint64_t edits = 1 + rng.below(4); edits > 0; --edits) {
    edit(text, rng);
  }
  return text;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Reads `bytes` under the bounds; whether they were accepted.
template <class Read>
bool accepted(const std::string& bytes, ErrorKind refusal, const Read& read) {
  const std::size_t before = t_allocated;
  const double start = cpu_seconds();
  bool ok = true;
  try {
    read(bytes);
  } catch (const Error& e) {
    ok = false;
    EXPECT_EQ(e.kind(), refusal) << e.message();
    EXPECT_LT(e.message().size(), 4096 + bytes.size()) << e.message().substr(0, 300);
  }
  EXPECT_LT(cpu_seconds() - start, 1.0) << bytes.size() << " bytes";
  EXPECT_LT(t_allocated - before, (std::size_t{64} << 20) + 64 * bytes.size());
  return ok;
}

// Mutations of `good`, and of each mutation that was accepted, so that edits add up.
template <class Read>
void fuzz(const std::string& good, ErrorKind refusal, const Read& read, std::uint64_t seed) {
  ASSERT_TRUE(accepted(good, refusal, read));
  Rng rng(seed);
  std::vector<std::string> seeds{good};
  int refused = 0;
  for (int trial = 0; trial < kTrials && !testing::Test::HasFailure(); ++trial) {
    const std::string bad = mutated(seeds[rng.below(seeds.size())], rng);
    if (!accepted(bad, refusal, read)) {
      ++refused;
    } else if (seeds.size() < 50) {
      seeds.push_back(bad);
    }
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "trial " << trial << " of seed " << seed << ":\n" << bad.substr(0, 2000);
    }
  }
  EXPECT_GT(refused, kTrials / 4);
}

// Texts that are large or deep rather than broken, around a key that the format knows.
std::vector<std::string> hostile_json(const std::string& key) {
  std::string wide = "{";
  for (int i = 0; i < 30'000; ++i) {
    wide += "\"k" + std::to_string(i) + "\":\"\",";
  }
  wide += "\"" + key + "\":1}";
  std::vector<std::string> list{wide, "", std::string(100'000, '['), std::string(100'000, '{'),
                                "[" + std::string(99'999, ',')};
  for (const auto& [open, close] : {std::pair{"[", "]"}, std::pair{"{\"a\":", "}"}}) {
    std::string deep = "{\"version\":1,\"" + key + "\":";
    for (int i = 0; i < 100'000; ++i) {
      deep += open;
    }
    deep += "1";
    for (int i = 0; i < 100'000; ++i) {
      deep += close;
    }
    list.push_back(deep + "}");
  }
  return list;
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::remove(
      path);  // thousands of times: neither fsync nor the flush of a truncated file
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace
}  // namespace tessera
