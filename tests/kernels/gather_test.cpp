#include "kernels/gather/gather.h"

#include <algorithm>
#include <numeric>

#include "support/gradcheck.h"

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
