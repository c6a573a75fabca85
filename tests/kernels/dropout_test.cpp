#include "kernels/dropout/dropout.h"

#include <limits>

#include "core/parallel.h"
#include "support/bf16_op.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

const RngKey kKey{7, 11};

TEST(Dropout, KeepsTheElementsWhoseDrawReachesPAndScalesThem) {
  for (const std::int64_t n : {0, 1, 31, 32, 33, 257}) {
    check_op([](const auto& x) { return dropout(x[0], 0.3F, kKey); },
             [](const std::vector<std::vector<double>>& x) {
               std::vector<double> y;
               for (std::size_t e = 0; e < x[0].size(); ++e) {
                 y.push_back(kKey.uniform(e) >= 0.3F ? x[0][e] / (1 - double{0.3F}) : 0.0);
               }
               return y;
             },
             {random({n}, 1)});
  }
}

TEST(Dropout, DrawsTheWordsOfThePhiloxStreamAtEveryLevel) {
  on_every_simd_level([](const char* level) {
    const Tensor y = dropout(Tensor::full({70001}, 1.0F), 0.3F, kKey);
    const auto kept = y.to_vector<float>();
    for (std::size_t e = 0; e < kept.size(); ++e) {
      ASSERT_EQ(kept[e] != 0.0F, kKey.uniform(e) >= 0.3F) << level << " element " << e;
    }
  });
}

TEST(Dropout, DropsTheStatedFractionAndKeepsTheMean) {
  const Tensor y = dropout(Tensor::full({1000, 100}, 1.0F), 0.25F, kKey);
  double dropped = 0, total = 0;
  for (const float v : y.to_vector<float>()) {
    dropped += v == 0.0F ? 1 : 0;
    total += static_cast<double>(v);
  }
  EXPECT_NEAR(dropped / 1e5, 0.25, 5 * std::sqrt(0.25 * 0.75 / 1e5));
  EXPECT_NEAR(total / 1e5, 1.0, 0.01);
}

TEST(Dropout, CountsElementsInRowMajorOrderWhateverTheStrides) {
  const Tensor x = random({33, 31}, 2);
  const auto direct = dropout(x.transpose(0, 1).clone(), 0.5F, kKey).to_vector<float>();
  EXPECT_EQ(dropout(x.transpose(0, 1), 0.5F, kKey).to_vector<float>(), direct);
}

TEST(Dropout, IsBitEqualForAnyThreadCount) {
  const Tensor x = random({100003}, 3);
  set_num_threads(1);
  const auto one = dropout(x, 0.1F, kKey).to_vector<float>();
  for (const int threads : {2, 3, 8}) {
    set_num_threads(threads);
    EXPECT_EQ(dropout(x, 0.1F, kKey).to_vector<float>(), one);
  }
}

// The mask of f32, also from a start that no quad may have.
TEST(DropoutBf16, KeepsWhatF32KeepsAndScalesIt) {
  const auto reference = [](std::size_t begin) {
    return [begin](const std::vector<std::vector<double>>& x) {
      std::vector<double> y;
      for (std::size_t e = begin; e < x[0].size(); ++e) {
        y.push_back(kKey.uniform(e - begin) >= 0.3F ? x[0][e] / (1 - double{0.3F}) : 0.0);
      }
      return y;
    };
  };
  for (const std::int64_t n : {0, 1, 31, 32, 33, 257}) {
    check_bf16_op([](const auto& x) { return dropout(x[0], 0.3F, kKey); }, reference(0),
                  {random({n}, 1)}, 1);
  }
  check_bf16_op([](const auto& x) { return dropout(x[0].slice(0, 1, 70), 0.3F, kKey); },
                reference(1), {random({70}, 1)}, 1);
}

TEST(Dropout, ReturnsItsInputAtZero) {
  const Tensor x = random({5}, 4);
  EXPECT_EQ(dropout(x, 0.0F, kKey).impl(), x.impl());
}

TEST(Dropout, RejectsProbabilitiesOutsideZeroToOne) {
  const Tensor x = random({5}, 4);
  EXPECT_THROW(dropout(x, 1.0F, kKey), Error);
  EXPECT_THROW(dropout(x, -0.1F, kKey), Error);
  EXPECT_THROW(dropout(x, std::numeric_limits<float>::quiet_NaN(), kKey), Error);
}

}  // namespace
}  // namespace tessera
