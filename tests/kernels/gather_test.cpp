#include "kernels/gather/gather.h"

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
