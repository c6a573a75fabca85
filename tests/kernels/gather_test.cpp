#include "kernels/gather/gather.h"

#include <algorithm>
#include <numeric>
#include "core/indices.h"

#include "support/bf16_op.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(Gather, RowsMayRepeatAndTheirGradientsAdd) {
  const std::vector<std::int32_t> index{3, 0, 3, 3, 1};
  check_op([&](const auto& x) { return gather_rows(x[0], Tensor::from(index, {5})); },
           [&](const std::vector<std::vector<double>>& x) {
             std::vector<double> y;
             for (const std::int32_t i : index) {
               for (std::size_t j = 0; j < 33; ++j)
                 y.push_back(x[0][static_cast<std::size_t>(i) * 33 + j]);
             }
             return y;
           },
           {random({4, 33}, 1)});
}

TEST(GatherBf16, RowsMayRepeatAndTheirGradientsAreAddedInF32) {
  for (const std::int64_t d : {1, 33, 132}) {
    std::vector<std::int32_t> index(40, 3);
    index[7] = 0;
    index[30] = 1;
    const auto width = static_cast<std::size_t>(d);
    check_bf16_op([&](const auto& x) { return gather_rows(x[0], Tensor::from(index, {40})); },
                  [&](const std::vector<std::vector<double>>& x) {
                    std::vector<double> y;
                    for (const std::int32_t i : index) {
                      for (std::size_t j = 0; j < width; ++j) {
                        y.push_back(x[0][static_cast<std::size_t>(i) * width + j]);
                      }
                    }
                    return y;
                  },
                  {random({4, d}, 1)}, 1);
  }
}

TEST(GatherBf16, ConcatStacksRowsOfOneType) {
  check_bf16_op([](const auto& x) { return concat_rows(x); },
                [](const std::vector<std::vector<double>>& x) {
                  std::vector<double> y;
                  for (const auto& part : x) y.insert(y.end(), part.begin(), part.end());
                  return y;
                },
                {random({2, 5}, 1), random({0, 5}, 2), random({3, 5}, 3)}, 3);
  const Tensor mixed[] = {random({2, 5}, 1), random({2, 5}, 1).to(DType::bf16)};
  EXPECT_THROW(concat_rows(mixed), Error);
}

TEST(Gather, TokensComeByIndexOrLiterally) {
  for (const Device device : devices()) {
    for (const std::size_t m : {0, 1, 31, 33, 257, 700}) {
      const std::vector<std::int32_t> values{7, 0, 511};
      std::vector<std::int32_t> index(m), expected(m);
      for (std::size_t i = 0; i < m; ++i) {
        index[i] = i % 5 == 4 ? literal_token(513) : static_cast<std::int32_t>(i % 3);
        expected[i] = i % 5 == 4 ? 513 : values[i % 3] + 1;
      }
      const Tensor on_device = Tensor::from(values, {3}, device);
      const std::uint64_t waits = device_waits();
      const Tensor tokens = gather_tokens(on_device, index, 1);
      check_indices("test", "token", tokens, 514);
      EXPECT_EQ(device_waits(), waits) << "the bounds were known";
      EXPECT_EQ(tokens.to_vector<std::int32_t>(), expected);
      if (m > 4) {
        EXPECT_THROW(check_indices("test", "token", tokens, 513), Error);
      }
      EXPECT_THROW(gather_tokens(on_device, {3}), Error);
    }
  }
}

// Bounds are of the values that were there when they were marked.
TEST(Gather, AnIndexThatWasWrittenToIsLookedAtAgain) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::zeros({3, 2}, DType::f32, device);
    const Tensor index = Tensor::from(std::vector<std::int32_t>{0, 2}, {2}, device);
    EXPECT_NO_THROW(gather_rows(x, index));
    copy_into(index, Tensor::from(std::vector<std::int32_t>{0, 3}, {2}, device));
    EXPECT_THROW(gather_rows(x, index), Error) << name(device.type);
    EXPECT_NO_THROW(gather_rows(x, index.slice(0, 0, 1))) << "what is not in the slice is no fault";
  }
}

// Around a warp, a chunk of 512 keys and the 1,024 keys that are scanned at a time.
TEST(Gather, SortingByKeyIsStableOnEveryDevice) {
  for (const std::int64_t count : {1, 33, 1500}) {
    for (const std::size_t m : {0, 1, 31, 513, 1100}) {
      std::vector<std::int32_t> keys, order(m), starts(static_cast<std::size_t>(count) + 1, 0);
      for (std::size_t i = 0; i < m; ++i) {
        keys.push_back(static_cast<std::int32_t>(i * i * 7 % static_cast<std::size_t>(count)));
      }
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, {},
                               [&](std::int32_t i) { return keys[static_cast<std::size_t>(i)]; });
      for (const std::int32_t k : keys) {
        for (std::size_t n = static_cast<std::size_t>(k) + 1; n < starts.size(); ++n) ++starts[n];
      }
      on_every_device([&](Device device, const std::string& level) {
        const RowsByKey by =
            rows_by_key(Tensor::from(keys, {static_cast<std::int64_t>(m)}, device), count);
        EXPECT_EQ(by.starts.to_vector<std::int32_t>(), starts)
            << level << " " << m << " of " << count;
        EXPECT_EQ(by.order.to_vector<std::int32_t>(), order)
            << level << " " << m << " of " << count;
      });
    }
  }
}

TEST(Gather, ConcatStacksRowsInOrder) {
  check_op([](const auto& x) { return concat_rows(x); },
           [](const std::vector<std::vector<double>>& x) {
             std::vector<double> y;
             for (const auto& part : x) y.insert(y.end(), part.begin(), part.end());
             return y;
           },
           {random({2, 5}, 1), random({0, 5}, 2), random({3, 5}, 3)});
}

TEST(Gather, RejectsIndicesOutsideTheTable) {
  EXPECT_THROW(gather_rows(random({4, 2}, 1), Tensor::from(std::vector<std::int32_t>{4}, {1})),
               Error);
  EXPECT_THROW(embedding(random({4, 2}, 1), Tensor::from(std::vector<std::int32_t>{-1}, {1})),
               Error);
}

}  // namespace
}  // namespace tessera
