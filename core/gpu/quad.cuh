// Four neighbouring elements, f32 or bf16 in memory and f32 in registers: one access of 16 or 8
// bytes where the address allows it, else one an element.
#pragma once

#include "core/gpu/prim.cuh"

namespace tessera::TESSERA_GPU_NS {

struct Quad {
  float x[4];
};

/// Four bf16 on their way.
struct alignas(8) PackedQuad {
  std::uint32_t low, high;  // elements 0 and 1, 2 and 3
};

/// Whether quads may be accessed whole in rows `stride` elements apart, the first one at p.
template <class T>
TESSERA_DEVICE bool quads_are_aligned(const T* p, std::int64_t stride = 0) {
  return reinterpret_cast<std::uintptr_t>(p) % (4 * sizeof(T)) == 0 && stride % 4 == 0;
}
template <class T>
TESSERA_DEVICE bool quads_are_aligned(const View<T, 1>& v) {
  return quads_are_aligned(v.data);
}
template <class T>
TESSERA_DEVICE bool quads_are_aligned(const View<T, 2>& v) {
  return quads_are_aligned(v.data, v.stride[0]);
}

TESSERA_DEVICE Quad whole_quad(const float* p) {
  const auto v = ldg(reinterpret_cast<const Float4*>(p));
  return {{v.x, v.y, v.z, v.w}};
}
TESSERA_DEVICE Quad whole_quad(const bf16* p) {
  const auto v = ldg(reinterpret_cast<const PackedQuad*>(p));
  return {{std::bit_cast<float>(v.low << 16U), std::bit_cast<float>(v.low & 0xffff0000U),
           std::bit_cast<float>(v.high << 16U), std::bit_cast<float>(v.high & 0xffff0000U)}};
}

TESSERA_DEVICE void put_whole_quad(float* p, const Quad& q) {
  stg(reinterpret_cast<Float4*>(p), Float4{q.x[0], q.x[1], q.x[2], q.x[3]});
}
TESSERA_DEVICE void put_whole_quad(bf16* p, const Quad& q) {
  stg(reinterpret_cast<PackedQuad*>(p),
      PackedQuad{pack_bf16x2(q.x[0], q.x[1]), pack_bf16x2(q.x[2], q.x[3])});
}

/// The four elements from p on, of which `left` are there; zeros beyond.
template <class T>
TESSERA_DEVICE Quad load_quad(const T* p, std::int64_t left, bool aligned) {
  if (aligned && left >= 4) {
    return whole_quad(p);
  }
  Quad q;
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    q.x[e] = e < left ? static_cast<float>(ldg(p + e)) : 0.0F;
  }
  return q;
}

/// Writes the first min(left, 4), rounded to nearest even where T is bf16.
template <class T>
TESSERA_DEVICE void store_quad(T* p, const Quad& q, std::int64_t left, bool aligned) {
  if (aligned && left >= 4) {
    put_whole_quad(p, q);
    return;
  }
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    if (e < left) {
      stg(p + e, T(q.x[e]));
    }
  }
}

}  // namespace tessera::TESSERA_GPU_NS
