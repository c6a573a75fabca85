// GEMM, activations and column sums.
// Thin products, in fp32: a block makes a 64 x 64 tile of c, a thread 4 x 4 of
// it; both operands pass through shared memory in steps of 16 along k, with
// free strides. One fma chain per element, k ascending from the bias, so the
// bits depend on the problem alone. All others on tensor cores
// (kernels/matmul/tensor.cuh), unless the device has a library for them
// (kernels/matmul/product.h).
#include "core/gpu/quad.cuh"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/matmul/matmul_types.h"
#include "kernels/matmul/product.h"
#include "kernels/matmul/tensor.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kTile = 64;
constexpr int kStep = 16;
constexpr int kPointThreads = 256;

struct GemmSmem {
  float a[kStep][kTile + 1];  // odd rows: stores along k meet no bank twice
  float b[kStep][kTile + 1];
};

// Copies kTile lines by kStep of k: element (line, k) at data[line * outer + k
// * inner]. Neighbouring threads follow the unit stride. What lies outside
// becomes zero.
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

// Thread (row, col) of 16 x 16 owns c at rows row + 16 i and columns col + 16
// j: whole sectors.
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

// c = epilogue(sum of the parts in order), a thread per element.
TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    add_parts_kernel(const float* sums, std::int64_t parts, View<float, 2> c,
                     GemmEpilogue epilogue) {
  const std::int64_t n = c.shape[0] * c.shape[1];
  const std::int64_t at = global_thread();
  if (at < n) {
    const std::int64_t i = at / c.shape[1];
    const std::int64_t j = at % c.shape[1];
    float sum = start_value(epilogue, c, i, j);
    for (std::int64_t part = 0; part < parts; ++part) {
      sum += ldg(sums + part * n + at);
    }
    store_value(epilogue, c, i, j, sum);
  }
}

// A thread has four neighbouring elements, f32 or bf16.
template <class T>
TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_kernel(View<const T, 1> z, View<T, 1> y, Activation activation) {
  const std::int64_t first = 4 * global_thread();
  const std::int64_t left = y.shape[0] - first;
  if (left > 0) {
    const bool aligned = quads_are_aligned(z) && quads_are_aligned(y);
    Quad q = load_quad(z.data + first, left, aligned);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      q.x[e] = activate(q.x[e], activation);
    }
    store_quad(y.data + first, q, left, aligned);
  }
}

template <class T>
TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    activation_backward_kernel(View<const T, 1> dy, View<const T, 1> z, View<T, 1> dz,
                               Activation activation) {
  const std::int64_t first = 4 * global_thread();
  const std::int64_t left = dz.shape[0] - first;
  if (left > 0) {
    const bool aligned = quads_are_aligned(dy) && quads_are_aligned(z) && quads_are_aligned(dz);
    const Quad up = load_quad(dy.data + first, left, aligned);
    Quad q = load_quad(z.data + first, left, aligned);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      q.x[e] = up.x[e] * activate_slope(q.x[e], activation);
    }
    store_quad(dz.data + first, q, left, aligned);
  }
}

struct ColumnSmem {
  float sum[8][32];
};

// A block owns 32 columns; warp w adds rows w, w + 8, ... of each block of 256
// rows, then the blocks, then the warps are added in order.
template <class T>
TESSERA_GLOBAL void __launch_bounds__(256)
    column_sums_kernel(View<const T, 2> x, View<float, 1> out) {
  TESSERA_SMEM(ColumnSmem, s);
  const std::int64_t column = static_cast<std::int64_t>(block_idx().x) * 32 + lane();
  const bool there = column < x.shape[1];
  float total = 0;
  for (std::int64_t begin = 0; begin < x.shape[0]; begin += 256) {
    const std::int64_t end = begin + 256 < x.shape[0] ? begin + 256 : x.shape[0];
    float part = 0;
    for (std::int64_t row = begin + warp(); row < end; row += 8) {
      part += there ? static_cast<float>(ldg(x.row(row) + column)) : 0.0F;
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

// Lines of `length` elements, rounded to bf16, nearest even; those of `to` are whole and padded
// with zeros. A thread makes a pair.
TESSERA_GLOBAL void __launch_bounds__(kPointThreads)
    round_kernel(const float* from, std::int64_t leading, std::int64_t lines, std::int64_t length,
                 std::uint32_t* to, std::int64_t pairs) {
  const std::int64_t at = global_thread();
  if (at >= lines * pairs) {
    return;
  }
  const std::int64_t i = at % pairs * 2;
  const float* line = from + at / pairs * leading;
  stg(to + at,
      pack_bf16x2(i < length ? ldg(line + i) : 0.0F, i + 1 < length ? ldg(line + i + 1) : 0.0F));
}

// Puts a rounded copy of the matrix in its place.
void round_matrix(ProductMatrix& m, float* to, Stream stream) {
  const std::int64_t leading = ProductScratch::padded(m.rows), pairs = leading / 2;
  launch(round_kernel,
         {"gemm_round", {blocks_for(m.columns * pairs, kPointThreads)}, {kPointThreads}, 0, stream},
         static_cast<const float*>(m.data), m.leading, m.columns, m.rows,
         reinterpret_cast<std::uint32_t*>(to), pairs);
  m.data = to;
  m.leading = leading;
}

// Too thin for tiles of tensor cores and for a library. Whatever the number of rows: the bits of
// one must not depend on the others.
bool is_thin(const View<float, 2>& c, std::int64_t k) { return k < 16 || c.shape[1] < 8; }

// Tiles of c, in parts along k where the plan cuts it and there is scratch for their sums.
template <class A, class B>
void tensor_gemm(const TensorKernel<A, B, float>& form, OperandOf<A> a, OperandOf<B> b,
                 View<float, 2> c, std::int64_t k, const GemmEpilogue& epilogue,
                 View<float, 1> panels, Stream stream) {
  const GemmPlan plan(c.shape[0], c.shape[1], k);
  const bool whole = plan.parts == 1 || panels.shape[0] < plan.workspace(c.shape[0], c.shape[1]);
  const auto parts = static_cast<unsigned>(whole ? 1 : plan.parts);
  const LaunchConfig config{
      form.name, {static_cast<unsigned>(plan.tiles), parts}, {kThreads}, form.smem_bytes, stream};
  auto* kernel = form.kernels[a.col == 1][b.row == 1];
  if (whole) {
    launch(kernel, config, a, b, c, k, k, epilogue);
    return;
  }
  const View<float, 2> sums{panels.data, {c.shape[0], c.shape[1]}, {c.shape[1], 1}};
  launch(kernel, config, a, b, sums, k, plan.depth, GemmEpilogue{});
  launch(add_parts_kernel,
         {"gemm_add_parts", {blocks_for(c.size(), kPointThreads)}, {kPointThreads}, 0, stream},
         panels.data, plan.parts, c, epilogue);
}

LaunchConfig quads_config(const char* name, std::int64_t elements, Stream stream) {
  return {name, {blocks_for(elements, 4 * kPointThreads)}, {kPointThreads}, 0, stream};
}

template <class T>
void activate_all(View<const T, 1> z, View<T, 1> y, Activation activation, Stream stream) {
  if (y.shape[0] > 0) {
    launch(activation_kernel<T>, quads_config("activation", y.shape[0], stream), z, y, activation);
  }
}

template <class T>
void times_slopes(View<const T, 1> dy, View<const T, 1> z, View<T, 1> dz, Activation activation,
                  Stream stream) {
  if (dz.shape[0] > 0) {
    launch(activation_backward_kernel<T>, quads_config("activation_backward", dz.shape[0], stream),
           dy, z, dz, activation);
  }
}

template <class T>
void sum_columns(View<const T, 2> x, View<float, 1> out, Stream stream) {
  if (x.shape[1] > 0) {
    launch(column_sums_kernel<T>,
           {"column_sums", {blocks_for(x.shape[1], 32)}, {256}, sizeof(ColumnSmem), stream}, x,
           out);
  }
}

// c by the library of this device, then its activation; false where there is none, or where form
// or scratch do not suffice.
bool made_by_library(Operand a, Operand b, View<float, 2> c, std::int64_t k,
                     const GemmEpilogue& epilogue, Precision precision, View<float, 1> panels,
                     Stream stream) {
  const ProductLibrary library = product_library(kDevice);
  const ProductScratch scratch(c.shape[0], k, c.shape[1], precision);
  if (library == nullptr || panels.shape[0] < scratch.floats) {
    return false;
  }
  auto [fits, request] = requested_product(a, b, c, k, epilogue);
  if (!fits) {
    return false;
  }
  request.workspace = panels.data;
  request.workspace_bytes = kProductWorkspace;
  if (precision == Precision::bf16) {
    request.operands = precision;
    round_matrix(request.a, panels.data + scratch.b, stream);  // the request's a is our b
    round_matrix(request.b, panels.data + scratch.a, stream);
  }
  if (!library(request, stream)) {
    return false;
  }
  if (epilogue.activation != Activation::none) {
    const std::int64_t n = c.size();
    activate_all<float>({request.d, {n}, {1}}, {c.data, {n}, {1}}, epilogue.activation, stream);
  }
  return true;
}

}  // namespace

void gemm(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
          View<float, 1> panels, Stream stream) {
  if (c.size() == 0) {
    return;
  }
  if (is_thin(c, k)) {
    const unsigned blocks = blocks_for(c.shape[0], kTile) * blocks_for(c.shape[1], kTile);
    launch(gemm_kernel, {"gemm", {blocks}, {kThreads}, sizeof(GemmSmem), stream}, a, b, c, k,
           epilogue);
  } else if (!made_by_library(a, b, c, k, epilogue, Precision::f32, panels, stream)) {
    tensor_gemm(kWholeKernel, a, b, c, k, epilogue, panels, stream);
  }
}

void gemm_bf16(Operand a, Operand b, View<float, 2> c, std::int64_t k, GemmEpilogue epilogue,
               View<float, 1> panels, Stream stream) {
  if (c.size() == 0) {
    return;
  }
  if (is_thin(c, k) || !made_by_library(a, b, c, k, epilogue, Precision::bf16, panels, stream)) {
    tensor_gemm(kRoundedKernel<float, float, float>, a, b, c, k, epilogue, panels, stream);
  }
}

// k is not cut in parts: it is the width of a layer here.
void gemm_rows_bf16(OperandOf<bf16> a, Operand b, View<bf16, 2> c, std::int64_t k,
                    EpilogueOf<bf16> epilogue, Stream stream) {
  if (c.size() > 0) {
    const auto& form = kRoundedKernel<bf16, float, bf16>;
    const auto tiles = static_cast<unsigned>(GemmPlan(c.shape[0], c.shape[1], k).tiles);
    launch(form.kernels[a.col == 1][b.row == 1],
           {"gemm_rows_bf16", {tiles}, {kThreads}, form.smem_bytes, stream}, a, b, c, k, k,
           epilogue);
  }
}

void gemm_sums_bf16(OperandOf<bf16> a, OperandOf<bf16> b, View<float, 2> c, std::int64_t k,
                    GemmEpilogue epilogue, View<float, 1> panels, Stream stream) {
  if (c.size() > 0) {
    tensor_gemm(kRoundedKernel<bf16, bf16, float>, a, b, c, k, epilogue, panels, stream);
  }
}

void activation_forward(View<const float, 1> z, View<float, 1> y, Activation activation,
                        Stream stream) {
  activate_all(z, y, activation, stream);
}
void activation_forward_bf16(View<const bf16, 1> z, View<bf16, 1> y, Activation activation,
                             Stream stream) {
  activate_all(z, y, activation, stream);
}

void activation_backward(View<const float, 1> dy, View<const float, 1> z, View<float, 1> dz,
                         Activation activation, Stream stream) {
  times_slopes(dy, z, dz, activation, stream);
}
void activation_backward_bf16(View<const bf16, 1> dy, View<const bf16, 1> z, View<bf16, 1> dz,
                              Activation activation, Stream stream) {
  times_slopes(dy, z, dz, activation, stream);
}

void column_sums(View<const float, 2> x, View<float, 1> out, Stream stream) {
  sum_columns(x, out, stream);
}
void column_sums_bf16(View<const bf16, 2> x, View<float, 1> out, Stream stream) {
  sum_columns(x, out, stream);
}

}  // namespace tessera::TESSERA_GPU_NS
