#include "core/parallel.h"
#include "kernels/segment/segment.h"

namespace tessera::cpu {
namespace {
float weight(std::int32_t length, Pool pool) {
  return pool == Pool::mean && length > 0 ? 1.0F / static_cast<float>(length) : 1.0F;
}
}  // namespace

void segment_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                     View<float, 2> y, Stream) {
  parallel_for(y.shape[0], [&](std::int64_t b) {
    float* sum = y.row(b);
    for (std::int64_t j = 0; j < y.shape[1]; ++j) {
      sum[j] = 0.0F;
    }
    for (std::int32_t i = offsets(b); i < offsets(b + 1); ++i) {
      for (std::int64_t j = 0; j < y.shape[1]; ++j) {
        sum[j] += x(i, j);
      }
    }
    const float w = weight(offsets(b + 1) - offsets(b), pool);
    for (std::int64_t j = 0; j < y.shape[1]; ++j) {
      sum[j] *= w;
    }
  });
}

void segment_backward(View<const float, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                      View<float, 2> dx, Stream) {
  parallel_for(dy.shape[0], [&](std::int64_t b) {
    const float w = weight(offsets(b + 1) - offsets(b), pool);
    for (std::int32_t i = offsets(b); i < offsets(b + 1); ++i) {
      for (std::int64_t j = 0; j < dx.shape[1]; ++j) {
        dx(i, j) = w * dy(b, j);
      }
    }
  });
}

void segment_max_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets,
                         View<float, 2> y, View<std::int32_t, 2> row, Stream) {
  parallel_for(y.shape[0], [&](std::int64_t b) {
    for (std::int64_t j = 0; j < y.shape[1]; ++j) {
      std::int32_t best = offsets(b) < offsets(b + 1) ? offsets(b) : -1;
      for (std::int32_t i = offsets(b) + 1; i < offsets(b + 1); ++i) {
        // the second test stops at the first NaN
        if (!(x(i, j) <= x(best, j)) && x(best, j) == x(best, j)) {
          best = i;
        }
      }
      row(b, j) = best;
      y(b, j) = best < 0 ? 0.0F : x(best, j);
    }
  });
}

void segment_max_backward(View<const float, 2> dy, View<const std::int32_t, 2> row,
                          View<const std::int32_t, 1> offsets, View<float, 2> dx, Stream) {
  parallel_for(dy.shape[0], [&](std::int64_t b) {
    for (std::int32_t i = offsets(b); i < offsets(b + 1); ++i) {
      for (std::int64_t j = 0; j < dx.shape[1]; ++j) {
        dx(i, j) = i == row(b, j) ? dy(b, j) : 0.0F;
      }
    }
  });
}

}  // namespace tessera::cpu
