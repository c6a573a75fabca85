// A warp per row. Rows of up to 1,024 columns stay in registers between the passes, 8 N C bytes in
// all forward and 12 N C backward; of wider ones the later passes find the row in the cache. Lane l
// adds columns l, l + 32, ... either way: the bits do not depend on the path.
#include <limits>

#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/softmax/softmax_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;

constexpr int kMaxItems = 32;  // values of a row per lane

/// The warp's row of a matrix, element i of this lane is column 32 i + lane. In registers, read
/// once; kItems = 0: wider than that, read anew each time.
template <int kItems>
struct Row {
  float v[kItems];
  TESSERA_DEVICE Row(const float* from, int columns) {
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      v[i] = 32 * i + lane() < columns ? ldg(from + 32 * i + lane()) : 0.0F;
    }
  }
  TESSERA_DEVICE float at(int i) const { return v[i]; }
};
template <>
struct Row<0> {
  const float* from;
  TESSERA_DEVICE Row(const float* row, int /*columns*/) : from(row) {}
  TESSERA_DEVICE float at(int i) const { return ldg(from + 32 * i + lane()); }
};

/// body(i) for the elements of this lane.
template <int kItems, class Body>
TESSERA_DEVICE void for_items(int columns, Body body) {
  if constexpr (kItems > 0) {
    TESSERA_UNROLL
    for (int i = 0; i < kItems; ++i) {
      if (32 * i + lane() < columns) {
        body(i);
      }
    }
  } else {
    for (int i = 0; 32 * i + lane() < columns; ++i) {
      body(i);
    }
  }
}

template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y) {
  const std::int64_t row = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (row >= x.shape[0]) {
    return;  // a whole warp, and no barrier follows
  }
  const auto columns = static_cast<int>(x.shape[1]);
  Row<kItems> values(x.row(row), columns);  // (C / 32) per lane
  float top = -std::numeric_limits<float>::infinity();
  for_items<kItems>(columns, [&](int i) { top = max(top, values.at(i)); });
  top = max_over_warp(top);
  float total = 0;
  for_items<kItems>(columns, [&](int i) { total += exp(values.at(i) - top); });
  total = sum_over_warp(total);
  const bool probability = kind == SoftmaxKind::probability;
  const float part = probability ? 1.0F / total : log(total);
  for_items<kItems>(columns, [&](int i) {
    const float z = values.at(i) - top;
    stg(y.row(row) + 32 * i + lane(), probability ? exp(z) * part : z - part);
  });
}

template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                    View<float, 2> dx) {
  const std::int64_t row = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (row >= dy.shape[0]) {
    return;
  }
  const auto columns = static_cast<int>(dy.shape[1]);
  const bool probability = kind == SoftmaxKind::probability;
  const Row<kItems> g(dy.row(row), columns);
  const Row<kItems> v(y.row(row), columns);
  float total = 0;
  for_items<kItems>(columns,
                    [&](int i) { total = fma(g.at(i), probability ? v.at(i) : 1.0F, total); });
  total = sum_over_warp(total);
  for_items<kItems>(columns, [&](int i) {
    stg(dx.row(row) + 32 * i + lane(),
        probability ? v.at(i) * (g.at(i) - total) : fma(-exp(v.at(i)), total, g.at(i)));
  });
}

// Calls body with the number of values per lane as a constant; 0: more than fit in registers.
template <class Body>
void with_items(std::int64_t columns, Body body) {
  if (columns <= 128) {
    body(std::integral_constant<int, 4>{});
  } else if (columns <= 32 * kMaxItems) {
    body(std::integral_constant<int, kMaxItems>{});
  } else {
    body(std::integral_constant<int, 0>{});
  }
}

LaunchConfig rows_config(const char* name, std::int64_t rows, Stream stream) {
  return {name, {blocks_for(rows, kWarps)}, {32 * kWarps}, 0, stream};
}

}  // namespace

void softmax_forward(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y, Stream stream) {
  if (x.size() > 0) {
    with_items(x.shape[1], [&](auto items) {
      launch(forward_kernel<items.value>, rows_config("softmax_forward", x.shape[0], stream), kind,
             x, y);
    });
  }
}

void softmax_backward(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                      View<float, 2> dx, Stream stream) {
  if (dy.size() > 0) {
    with_items(dy.shape[1], [&](auto items) {
      launch(backward_kernel<items.value>, rows_config("softmax_backward", dy.shape[0], stream),
             kind, dy, y, dx);
    });
  }
}

}  // namespace tessera::TESSERA_GPU_NS
