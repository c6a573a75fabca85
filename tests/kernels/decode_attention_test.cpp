#include "kernels/decode_attention/decode_attention.h"

#include <array>

#include "core/parallel.h"
#include "kernels/attention/attention.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

constexpr std::int64_t kHeads = 2;

using Indices = std::vector<std::int32_t>;

// Causal attention of the last row of x (L, 3, H, D), naive and in double.
std::vector<double> attend_last(const std::vector<double>& x, std::int64_t width) {
  const auto row = static_cast<std::size_t>(kHeads * width);
  const std::size_t rows = x.size() / (3 * row);
  std::vector<double> out(row, 0.0);
  for (std::size_t head = 0; head < static_cast<std::size_t>(kHeads); ++head) {
    const auto at = [&](std::size_t t, std::size_t part, std::size_t d) {
      return x[(t * 3 + part) * row + head * static_cast<std::size_t>(width) + d];
    };
    std::vector<double> p(rows);
    double sum = 0;
    for (std::size_t j = 0; j < rows; ++j) {
      double dot = 0;
      for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) {
        dot += at(rows - 1, 0, d) * at(j, 1, d);
      }
      p[j] = std::exp(dot / std::sqrt(static_cast<double>(width)));
      sum += p[j];
    }
    for (std::size_t j = 0; j < rows; ++j) {
      for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) {
        out[head * static_cast<std::size_t>(width) + d] += p[j] / sum * at(j, 2, d);
      }
    }
  }
  return out;
}

// Feeds the rows of a sequence (L, 3, H, D) to one slot; the outputs of all rows, (L, H D).
std::vector<float> feed(const Tensor& x, const KeyValueCache& cache, std::int32_t slot) {
  std::vector<float> out;
  for (std::int32_t i = 0; i < x.shape(0); ++i) {
    const auto row =
        decode_attention(x.slice(0, i, i + 1), cache, Indices{slot}, Indices{i}).to_vector<float>();
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

TEST(DecodeAttention, EachStepMatchesTheDoubleReferenceOverThePrefix) {
  on_every_device([](Device device, const std::string& level) {
    for (const std::int64_t width : {1, 8, 17, 32, 65}) {
      const std::int64_t length = 33, row = kHeads * width;
      const Tensor x = random({length, 3, kHeads, width}, 1);
      const auto cache = KeyValueCache::create(1, kHeads, width, length, device);
      const auto out = feed(x.to(device), cache, 0);
      const auto values = doubles(x);
      for (std::int64_t n = 1; n <= length; ++n) {
        const std::vector<double> got(out.begin() + (n - 1) * row, out.begin() + n * row);
        const std::vector<double> prefix(values.begin(), values.begin() + n * 3 * row);
        EXPECT_LE(relative_error(got, attend_last(prefix, width)), 1e-5)
            << level << " width " << width << " row " << n - 1;
      }
    }
  });
}

TEST(DecodeAttention, EqualsCausalAttentionOverTheWholeSequence) {
  const Tensor x = random({257, 3, kHeads, 16}, 2);
  const Tensor full = attention(x, Segments({0, 257}), {.causal = true});
  for (const Device device : devices()) {
    const auto out = feed(x.to(device), KeyValueCache::create(1, kHeads, 16, 300, device), 0);
    EXPECT_LE(relative_error({out.begin(), out.end()}, doubles(full)), 1e-5) << name(device.type);
  }
}

// Slots at different positions in one step, in any order, beside slots full of NaN.
TEST(DecodeAttention, ARowDependsOnItsOwnSlotOnly) {
  const std::int64_t width = 8, capacity = 48;
  for (const Device device : devices()) {
    const auto cache = KeyValueCache::create(5, kHeads, width, capacity, device);
    fill(cache.keys, NAN);
    fill(cache.values, NAN);
    const Tensor a = random({40, 3, kHeads, width}, 3).to(device),
                 b = random({3, 3, kHeads, width}, 4).to(device);
    const auto alone_a = feed(a, KeyValueCache::create(1, kHeads, width, capacity, device), 0);
    const auto alone_b = feed(b, KeyValueCache::create(1, kHeads, width, capacity, device), 0);
    feed(a.slice(0, 0, 39), cache, 4);
    feed(b.slice(0, 0, 2), cache, 1);
    Tensor both = Tensor::empty({2, 3, kHeads, width}, DType::f32, device);
    copy_into(both.slice(0, 0, 1), a.slice(0, 39, 40));
    copy_into(both.slice(0, 1, 2), b.slice(0, 2, 3));
    const auto got =
        decode_attention(both, cache, Indices{4, 1}, Indices{39, 2}).to_vector<float>();
    const auto row = static_cast<std::size_t>(kHeads * width);
    EXPECT_TRUE(std::equal(got.begin(), got.begin() + row, alone_a.end() - row));
    EXPECT_TRUE(std::equal(got.begin() + row, got.end(), alone_b.end() - row));
  }
}

TEST(DecodeAttention, AReusedSlotForgetsItsFormerRows) {
  const Tensor a = random({9, 3, kHeads, 8}, 5), b = random({4, 3, kHeads, 8}, 6);
  const auto cache = KeyValueCache::create(1, kHeads, 8, 9);
  feed(a, cache, 0);
  EXPECT_EQ(feed(b, cache, 0), feed(b, KeyValueCache::create(1, kHeads, 8, 4), 0));
}

TEST(DecodeAttention, IsBitEqualForAnyThreadCount) {
  const Tensor x = random({31, 3, kHeads, 17}, 7);
  Indices slots, positions(31, 0);
  for (std::int32_t i = 30; i >= 0; --i) slots.push_back(i);
  const auto run = [&] {
    const auto cache = KeyValueCache::create(31, kHeads, 17, 2);
    return decode_attention(x, cache, slots, positions).to_vector<float>();
  };
  const int threads = num_threads();
  const auto expected = run();
  for (const int n : {1, 2, 3, 8}) {
    set_num_threads(n);
    EXPECT_EQ(run(), expected) << n << " threads";
  }
  set_num_threads(threads);
}

#ifdef TESSERA_BUILD_SIMT
// Bits of a long sequence for any schedule: several rounds of 32 keys.
TEST(DecodeAttentionSimt, BitsDoNotDependOnTheSchedule) {
  const Device device{DeviceType::simt, 0};
  const Tensor x = random({70, 3, kHeads, 16}, 2).to(device);
  std::vector<float> first;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::ScheduleGuard guard({seed == 0   ? simt::Order::forward
                                     : seed == 1 ? simt::Order::reverse
                                                 : simt::Order::random,
                                     seed});
    const auto got = feed(x, KeyValueCache::create(1, kHeads, 16, 70, device), 0);
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << "seed " << seed;
  }
}

// The cached keys and values of the last row's step are read once; what it writes is one row.
TEST(DecodeAttentionSimt, AStepReadsTheCacheOnce) {
  const Device device{DeviceType::simt, 0};
  const std::int64_t width = 32, rows = 64;
  const Tensor x = random({rows, 3, kHeads, width}, 2).to(device);
  feed(x, KeyValueCache::create(1, kHeads, width, rows, device), 0);
  const auto ideal = static_cast<double>(kHeads * rows * width * 2 * 4 / 32);
  const auto sectors = static_cast<double>(simt::last_launch().sectors_read);
  EXPECT_GE(sectors, ideal);
  EXPECT_LE(sectors, 1.15 * ideal);
}
#endif

TEST(DecodeAttention, NoRowsGiveNoRows) {
  for (const Device device : devices()) {
    const auto cache = KeyValueCache::create(2, kHeads, 8, 4, device);
    const Tensor none = Tensor::empty({0, 3, kHeads, 8}, DType::f32, device);
    EXPECT_EQ(decode_attention(none, cache, {}, {}).shape(), (Shape{0, kHeads, 8}));
  }
}

TEST(DecodeAttention, RejectsWhatDoesNotFitTheCache) {
  const auto cache = KeyValueCache::create(2, kHeads, 8, 4);
  const Tensor one = random({1, 3, kHeads, 8}, 8), two = random({2, 3, kHeads, 8}, 8);
  EXPECT_THROW(decode_attention(random({1, 2, kHeads, 8}, 8), cache, Indices{0}, Indices{0}),
               Error);
  EXPECT_THROW(decode_attention(one, cache, Indices{2}, Indices{0}), Error);
  EXPECT_THROW(decode_attention(one, cache, Indices{0}, Indices{4}), Error);
  EXPECT_THROW(decode_attention(one, cache, Indices{-1}, Indices{0}), Error);
  EXPECT_THROW(decode_attention(two, cache, Indices{0}, Indices{0, 0}), Error);
  EXPECT_THROW(decode_attention(two, cache, Indices{1, 1}, Indices{0, 1}), Error);
}

}  // namespace
}  // namespace tessera
