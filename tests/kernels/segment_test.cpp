#include "kernels/segment/segment.h"

#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

TEST(SegmentPool, SumsAndMeansPerSegmentAndZeroWhereEmpty) {
  const Segments s({0, 0, 1, 5, 5, 36});
  for (const Pool pool : {Pool::sum, Pool::mean}) {
    check_op([&](const auto& x) { return segment_pool(x[0], s, pool); },
             [&](const std::vector<std::vector<double>>& x) {
               std::vector<double> y(5 * 7, 0.0);
               for (int b = 0; b < 5; ++b) {
                 const auto row = static_cast<std::size_t>(b),
                            first = static_cast<std::size_t>(s.cu_seqlens()[row]);
                 for (std::size_t i = first; i < first + static_cast<std::size_t>(s.length(b));
                      ++i) {
                   for (std::size_t j = 0; j < 7; ++j) {
                     y[row * 7 + j] += x[0][i * 7 + j] / (pool == Pool::mean ? s.length(b) : 1);
                   }
                 }
               }
               return y;
             },
             {random({36, 7}, 1)});
  }
}

TEST(SegmentPool, RejectsRowsThatTheOffsetsDoNotCover) {
  EXPECT_THROW(segment_pool(random({3, 2}, 1), Segments({0, 2}), Pool::sum), Error);
}

}  // namespace
}  // namespace tessera
