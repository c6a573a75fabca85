// GEMM in fp32, activations and column sums. A block makes a 64 x 64 tile of c, a thread 4 x 4 of
// it; both operands pass through shared memory in steps of 16 along k, with free strides. One fma
// chain per element, k ascending from the bias, so the bits depend on the problem alone. Bound by
// fp32 fma: m n k of them; shared memory is read 8 floats for 16 fma.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/matmul/matmul_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kTile = 64;
constexpr int kStep = 16;
constexpr int kThreads = 256;
constexpr int kPointThreads = 256;

// Phi(x) and exp(-x^2/2). erfc by the minimax fit of kernels/matmul/activation-inl.h.
struct Normal {
  float cdf, bell;
};

TESSERA_DEVICE Normal normal_of(float x) {
  const float size = x < 0 ? -x : x;
  const float t = 1.0F / fma(0.24748737F, size < 1e30F ? size : 1e30F, 1.0F);
  float r = fma(0.02129995925F, t, -0.0909689965F);
  r = fma(r, t, 0.1181246505F);
  r = fma(r, t, -0.050986586F);
  r = fma(r, t, 0.07502353F);
  r = fma(r, t, 0.055701574F);
  r = fma(r, t, 0.08173732F);
  r = fma(r, t, 0.0925996635F);
  r = fma(r, t, 0.098735728F);
  r = fma(r, t, 0.0987331645F);
  const float bell = exp(-0.5F * x * x);
  const float tail = r * t * bell;
  return {x < 0 ? tail : 1.0F - tail, bell};
}

TESSERA_DEVICE float sigmoid(float x) { return 1.0F / (1.0F + exp(x < -80.0F ? 80.0F : -x)); }

TESSERA_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? 0.0F : x;  // NaN passes
    case Activation::gelu:
      return x * normal_of(x).cdf;
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::none:
      break;
  }
  return x;
}

// relu: x > 0; gelu: Phi(x) + x phi(x); silu: s (1 + x (1 - s)).
TESSERA_DEVICE float activate_slope(float x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0F : 0.0F;
    case Activation::gelu: {
      const Normal n = normal_of(x);
      return fma(x * 0.39894228F, n.bell, n.cdf);
    }
    case Activation::silu: {
      const float s = sigmoid(x);
      return s * fma(x, 1.0F - s, 1.0F);
    }
    case Activation::none:
      break;
  }
  return 1.0F;
}

struct GemmSmem {
  float a[kStep][kTile + 1];  // odd rows: stores along k meet no bank twice
  float b[kStep][kTile + 1];
};

// Copies kTile lines by kStep of k: element (line, k) at data[line * outer + k * inner].
// Neighbouring threads follow the unit stride. What lies outside becomes zero.
TESSERA_DEVICE void load_tile(float (&tile)[kStep][kTile + 1], const float* data,
                              std::int64_t outer, std::int64_t inner, std::int64_t first,
                              std::int64_t lines, std::int64_t k0, std::int64_t k) {
  for (int i = linear_thread(); i < kTile * kStep; i += kThreads) {
    const int line = inner == 1 ? i / kStep : i % kTile;
    const int step = inner == 1 ? i % kStep : i / kTile;
    const bool there = first + line < lines && k0 + step < k;
    tile[step][line] = there ? ldg(data + (first + line) * outer + (k0 + step) * inner) : 0.0F;
  }
}

TESSERA_DEVICE float start_value(const GemmEpilogue& epilogue, const View<float, 2>& c,
                                 std::int64_t i, std::int64_t j) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return 0.0F;
  }
  if (epilogue.accumulate) {
    return ldg(&c(i, j));
  }
  return epilogue.bias == nullptr ? 0.0F : ldg(epilogue.bias + j);
}

TESSERA_DEVICE void store_value(const GemmEpilogue& epilogue, const View<float, 2>& c,
                                std::int64_t i, std::int64_t j, float value) {
  if (i >= c.shape[0] || j >= c.shape[1]) {
    return;
  }
  if (epilogue.keep != nullptr) {
    stg(epilogue.keep + i * c.shape[1] + j, value);
  }
  stg(&c(i, j), activate(value, epilogue.activation));
}

// Thread (row, col) of 16 x 16 owns c at rows row + 16 i and columns col + 16 j: whole sectors.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    gemm_kernel(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue) {
  TESSERA_SMEM(GemmSmem, s);
  const std::int64_t tiles = (c.shape[1] + kTile - 1) / kTile;
  const std::int64_t top = block_idx().x / tiles * kTile;
  const std::int64_t left = block_idx().x % tiles * kTile;
  const int row = linear_thread() / 16;
  const int col = linear_thread() % 16;
  float sum[4][4];
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    sum[e / 4][e % 4] =
        start_value(epilogue, c, top + row + 16 * (e / 4), left + col + 16 * (e % 4));
  }
  for (std::int64_t k0 = 0; k0 < k; k0 += kStep) {
    load_tile(s.a, a.data, a.row, a.col, top, c.shape[0], k0, k);
    load_tile(s.b, b.data, b.col, b.row, left, c.shape[1], k0, k);
    sync_block();
    const int steps = k - k0 < kStep ? static_cast<int>(k - k0) : kStep;
    for (int step = 0; step < steps; ++step) {
      TESSERA_UNROLL
      for (int e = 0; e < 16; ++e) {
        sum[e / 4][e % 4] =
            fma(s.a[step][row + 16 * (e / 4)], s.b[step][col + 16 * (e % 4)], sum[e / 4][e % 4]);
      }
    }
    sync_block();
  }
  TESSERA_UNROLL
  for (int e = 0; e < 16; ++e) {
    store_value(epilogue, c, top + row + 16 * (e / 4), left + col + 16 * (e % 4),
                sum[e / 4][e % 4]);
  }
}

TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_kernel(View<const float, 1> z, View<float, 1> y, Activation activation) {
  const std::int64_t i = global_thread();
  if (i < y.shape[0]) {
    stg(y.data + i, activate(ldg(z.data + i), activation));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_backward_kernel(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                               Activation activation) {
  const std::int64_t i = global_thread();
  if (i < dz.shape[0]) {
    stg(dz.data + i, ldg(dy.data + i) * activate_slope(ldg(z.data + i), activation));
  }
}

struct ColumnSmem {
  float sum[8][32];
};

// A block owns 32 columns; warp w adds rows w, w + 8, ... of each block of 256 rows, then the
// blocks, then the warps are added in order.
TESSERA_GLOBAL void __launch_bounds__(256)
    column_sums_kernel(View<const float, 2> x, View<float, 1> out) {
  TESSERA_SMEM(ColumnSmem, s);
  const std::int64_t column = static_cast<std::int64_t>(block_idx().x) * 32 + lane();
  const bool there = column < x.shape[1];
  float total = 0;
  for (std::int64_t begin = 0; begin < x.shape[0]; begin += 256) {
    const std::int64_t end = begin + 256 < x.shape[0] ? begin + 256 : x.shape[0];
    float part = 0;
    for (std::int64_t row = begin + warp(); row < end; row += 8) {
      part += there ? ldg(x.row(row) + column) : 0.0F;
    }
    total += part;
  }
  s.sum[warp()][lane()] = total;
  sync_block();
  if (warp() == 0 && there) {
    float merged = 0;
    for (int w = 0; w < 8; ++w) {
      merged += s.sum[w][lane()];
    }
    stg(out.data + column, merged);
  }
}

}  // namespace

void gemm(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
          View<float, 1> /*panels*/, Stream stream) {
  const unsigned blocks = blocks_for(c.shape[0], kTile) * blocks_for(c.shape[1], kTile);
  if (blocks > 0) {
    launch(gemm_kernel, {"gemm", {blocks}, {kThreads}, sizeof(GemmSmem), stream}, a, b, c, k,
           epilogue);
  }
}

void activation_forward(View<const float, 1> z, View<float, 1> y, Activation activation,
                        Stream stream) {
  if (y.shape[0] > 0) {
    launch(activation_kernel,
           {"activation", {blocks_for(y.shape[0], kPointThreads)}, {kPointThreads}, 0, stream}, z,
           y, activation);
  }
}

void activation_backward(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                         Activation activation, Stream stream) {
  if (dz.shape[0] > 0) {
    launch(activation_backward_kernel,
           {"activation_backward",
            {blocks_for(dz.shape[0], kPointThreads)},
            {kPointThreads},
            0,
            stream},
           dy, z, dz, activation);
  }
}

void column_sums(View<const float, 2> x, View<float, 1> out, Stream stream) {
  if (x.shape[1] > 0) {
    launch(column_sums_kernel,
           {"column_sums", {blocks_for(x.shape[1], 32)}, {256}, sizeof(ColumnSmem), stream}, x,
           out);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
