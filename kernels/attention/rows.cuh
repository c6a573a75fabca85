// Rows of heads between device memory, shared memory and the tensor cores. They go as they are, by
// asynchronous copies where their addresses allow it.
#pragma once

#include <cstdint>

#include "kernels/attention/head.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

// How an element type enters the tensor cores.
template <class T>
struct Operand {
  template <int kRows, int kColumns>
  using Part = Frag<kRows, kColumns>;
  template <int kRows, int kColumns>
  using Tile = SmemTile<kRows, kColumns>;
};
template <>
struct Operand<float> {
  template <int kRows, int kColumns>
  using Part = FloatFrag<kRows, kColumns>;
  template <int kRows, int kColumns>
  using Tile = FloatTile<kRows, kColumns>;
};
template <class T, int kRows, int kColumns>
using Part = typename Operand<T>::template Part<kRows, kColumns>;
template <class T, int kRows, int kColumns>
using Tile = typename Operand<T>::template Tile<kRows, kColumns>;

/// Heads of a block: enough work for its warps, and whole sectors of narrow heads.
template <class T, int kWidth>
constexpr int group_of(int rows) {
  const int for_warps = kStrip * kWarps / rows;
  const int for_sectors = 32 / (kWidth * static_cast<int>(sizeof(T)));
  return for_warps > for_sectors ? for_warps : for_sectors;
}

template <class T>
constexpr int kUnit = 16 / static_cast<int>(sizeof(T));  // elements of a lane's widest access

/// A head's rows in shared memory, with a gap of as many rows as put the units that neighbouring
/// lanes touch, of several heads of a row, into different banks.
constexpr int gap_of(int heads, int units) {
  return heads == 1 || units >= 8 ? 0 : heads * units >= 8 ? 1 : 8 / (heads * units);
}
template <class Base, class T, int kElements>
struct alignas(16) Spaced : Base {
  unsigned char gap[kElements * sizeof(T)];
};
template <class Base, class T>
struct Spaced<Base, T, 0> : Base {};
template <class T, int kHeads, int kRows, int kWidth>
using HeadTile = Spaced<Tile<T, kRows, kWidth>, T, gap_of(kHeads, kWidth / kUnit<T>) * kWidth>;

/// Rows of neighbouring heads in device memory: from the first row and head on.
template <class T>
struct Source {
  const T* data;
  std::int64_t stride;  // elements
  int rows, heads;
  int width;
};

struct alignas(16) Words4 {
  std::uint32_t w[4];
};
struct alignas(8) Words2 {
  std::uint32_t w[2];
};

// Whether rows of a padded width are read 16 bytes at a time.
template <int kWidth, class T>
TESSERA_DEVICE bool is_whole(const Source<T>& s) {
  return s.width == kWidth && s.stride % kUnit<T> == 0 &&
         reinterpret_cast<std::uintptr_t>(s.data) % 16 == 0;
}

TESSERA_DEVICE float low_half(std::uint32_t w) { return std::bit_cast<float>(w << 16U); }
TESSERA_DEVICE float high_half(std::uint32_t w) { return std::bit_cast<float>(w & 0xffff0000U); }

// The unit that begins at p, of which `count` elements are there; the others are zeros.
TESSERA_DEVICE void read_unit(float (&x)[4], const float* p, int count, bool whole) {
  if (whole) {
    const Float4 v = count > 0 ? ldg(reinterpret_cast<const Float4*>(p)) : Float4{0, 0, 0, 0};
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    return;
  }
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    x[e] = e < count ? ldg(p + e) : 0.0F;
  }
}
TESSERA_DEVICE void read_unit(float (&x)[8], const bf16* p, int count, bool whole) {
  if (whole) {
    const Words4 v = count > 0 ? ldg(reinterpret_cast<const Words4*>(p)) : Words4{};
    TESSERA_UNROLL
    for (int e = 0; e < 8; e += 2) {
      x[e] = low_half(v.w[e / 2]);
      x[e + 1] = high_half(v.w[e / 2]);
    }
    return;
  }
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    x[e] = e < count ? static_cast<float>(ldg(p + e)) : 0.0F;
  }
}

// A unit of a row in shared memory, written and read.
template <int kRows, int kWidth>
TESSERA_DEVICE void put_unit(SmemTile<kRows, kWidth>& tile, int row, int unit,
                             const float (&x)[8]) {
  Words4 v;
  TESSERA_UNROLL
  for (int e = 0; e < 8; e += 2) {
    v.w[e / 2] = pack_bf16x2(x[e], x[e + 1]);
  }
  *reinterpret_cast<Words4*>(tile.unit(row, unit)) = v;
}
template <int kRows, int kWidth>
TESSERA_DEVICE void put_unit(FloatTile<kRows, kWidth>& tile, int row, int unit,
                             const float (&x)[4]) {
  *reinterpret_cast<Float4*>(tile.unit(row, unit)) = {x[0], x[1], x[2], x[3]};
}
template <int kRows, int kWidth>
TESSERA_DEVICE void get_unit(float (&x)[8], const SmemTile<kRows, kWidth>& tile, int row,
                             int unit) {
  const Words4 v = *reinterpret_cast<const Words4*>(tile.unit(row, unit));
  TESSERA_UNROLL
  for (int e = 0; e < 8; e += 2) {
    x[e] = low_half(v.w[e / 2]);
    x[e + 1] = high_half(v.w[e / 2]);
  }
}
template <int kRows, int kWidth>
TESSERA_DEVICE void get_unit(float (&x)[4], const FloatTile<kRows, kWidth>& tile, int row,
                             int unit) {
  const auto v = *reinterpret_cast<const Float4*>(tile.unit(row, unit));
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

// Calls body(row, head, unit) for the units of `rows` rows of heads, spread over the block; units
// of a row, then heads, then rows are neighbours.
template <class T, int kHeads, int kWidth, class Body>
TESSERA_DEVICE void for_each_unit(int rows, Body body) {
  constexpr int kUnits = kWidth / kUnit<T>;
  for (int i = linear_thread(); i < rows * kHeads * kUnits; i += kThreads) {
    body(i / (kUnits * kHeads), i / kUnits % kHeads, i % kUnits);
  }
}

template <class T>
TESSERA_DEVICE const T* unit_at(const Source<T>& s, int row, int head, int unit) {
  return s.data + row * s.stride + head * s.width + unit * kUnit<T>;
}

// Rows [first, first + kRows) of the source to tiles, a tile a head; zeros beyond rows and width,
// nothing beyond the last block of 16. Ends with a group of asynchronous copies.
template <class T, int kHeads, int kRows, int kWidth>
TESSERA_DEVICE void load_rows(HeadTile<T, kHeads, kRows, kWidth> (&tiles)[kHeads],
                              const Source<T>& s, int first) {
  const bool whole = is_whole<kWidth>(s);
  const int filled = kStrip * strips_of(s.rows - first);
  for_each_unit<T, kHeads, kWidth>(
      filled < kRows ? filled : kRows, [&](int row, int head, int unit) {
        if (head >= s.heads) {
          return;
        }
        const bool there = first + row < s.rows;
        const T* from = there ? unit_at(s, first + row, head, unit) : s.data;
        if (whole) {
          cp_async<16>(tiles[head].unit(row, unit), from, there ? 16U : 0U);
          return;
        }
        float x[kUnit<T>];
        read_unit(x, from, there ? s.width - unit * kUnit<T> : 0, whole);
        put_unit(tiles[head], row, unit, x);
      });
  cp_async_commit();
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
