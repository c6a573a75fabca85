// What the tensor cores and the copy engine do: mma, ldmatrix, cp.async. The fragment tables are
// written from the PTX ISA text ("Matrix fragments for mma.m16n8k16", "ldmatrix"), independent of
// those in tile.cuh.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/simt/launch_state.h"

namespace tessera::simt {
namespace {

// A (16, k), B (k, 8) and C (16, 8) of a warp.
struct Tiles {
  float a[16][16], b[16][8], c[16][8];
};

// The registers of A hold rows group and group + 8 in turn, then the next `per * 4` columns; those
// of B the k rows likewise. `per` elements of k share a register: two of 16 bits, one of 32.
template <int k, int per, class Element>
void gather(void* const* lanes, Tiles& t, Element element) {
  for (int l = 0; l < 32; ++l) {
    const auto& o = *static_cast<const MmaOperand*>(lanes[l]);
    const int group = l / 4;
    const int in_group = l % 4;
    for (int r = 0; r < 2 * k / (4 * per); ++r) {
      for (int e = 0; e < per; ++e) {
        const int column = in_group * per + e + r / 2 * 4 * per;
        t.a[group + (r % 2 == 0 ? 0 : 8)][column] = element(o.a[r], e);
      }
    }
    for (int r = 0; r < k / (4 * per); ++r) {
      for (int e = 0; e < per; ++e) {
        t.b[in_group * per + e + r * 4 * per][group] = element(o.b[r], e);
      }
    }
    for (int i = 0; i < 4; ++i) {
      t.c[group + (i >= 2 ? 8 : 0)][in_group * 2 + i % 2] = o.c[i];
    }
  }
}

// c + products as tensor cores add them (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of
// NVIDIA tensor cores", 2021): all are aligned to the largest and cut off one bit below the 24 of
// f32, the sum is cut off to 24. Exact in double until then.
float cut_sum(float c, const float* products, int n) {
  float largest = std::abs(c);
  double plain = static_cast<double>(c);
  for (int i = 0; i < n; ++i) {
    largest = std::max(largest, std::abs(products[i]));
    plain += static_cast<double>(products[i]);
  }
  if (!std::isfinite(plain) || largest == 0) {
    return static_cast<float>(plain);
  }
  const double unit = std::ldexp(1.0, std::ilogb(largest) - 24);
  double sum = std::trunc(static_cast<double>(c) / unit);
  for (int i = 0; i < n; ++i) {
    sum += std::trunc(static_cast<double>(products[i]) / unit);
  }
  sum *= unit;
  const auto nearest = static_cast<float>(sum);
  return std::abs(static_cast<double>(nearest)) > std::abs(sum) ? std::nextafter(nearest, 0.0F)
                                                                : nearest;
}

// Noisy: `step` products at a time, as many as an A100 adds at once.
template <int k, int step>
void multiply_tiles(void* const* lanes, Tiles& t) {
  const bool cuts = is_noisy();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int i = 0; i < k; i += step) {
        float products[step];
        for (int e = 0; e < step; ++e) {  // of 8- and 11-bit significands: exact in f32
          products[e] = t.a[m][i + e] * t.b[i + e][n];
        }
        if (cuts) {
          t.c[m][n] = cut_sum(t.c[m][n], products, step);
          continue;
        }
        for (const float product : products) {
          t.c[m][n] += product;
        }
      }
    }
  }
  for (int l = 0; l < 32; ++l) {
    auto& o = *static_cast<MmaOperand*>(lanes[l]);
    for (int i = 0; i < 4; ++i) {
      o.c[i] = t.c[l / 4 + (i >= 2 ? 8 : 0)][l % 4 * 2 + i % 2];
    }
  }
}

float bf16_element(std::uint32_t pair, int half) {
  return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xffff0000U);
}

// IEEE binary16, subnormals included.
float f16_element(std::uint32_t pair, int half) {
  const std::uint32_t h = half == 0 ? pair & 0xffffU : pair >> 16;
  const std::uint32_t exponent = h >> 10 & 31U;
  const auto fraction = static_cast<float>(h & 1023U);
  const float size = exponent == 0 ? fraction * 0x1p-24F
                     : exponent == 31
                         ? ((h & 1023U) == 0 ? HUGE_VALF : NAN)
                         : std::ldexp(1024.0F + fraction, static_cast<int>(exponent) - 25);
  return (h & 0x8000U) != 0 ? -size : size;
}

// The hardware reads 10 bits of the fraction.
float tf32_element(std::uint32_t word, int /*only*/) {
  return std::bit_cast<float>(word & 0xffffe000U);
}

template <int k, int per, float (*element)(std::uint32_t, int)>
void multiply(void* const* lanes, std::uint32_t /*mask*/) {
  Tiles t;
  gather<k, per>(lanes, t, element);
  multiply_tiles<k, 4 * per>(lanes, t);
}

// How an mma is called in messages, and what it does.
struct MmaKind {
  const char* name;
  Combine combine;
};
constexpr MmaKind kMma[] = {{"mma_m16n8k16", multiply<16, 2, bf16_element>},
                            {"mma_m16n8k16_f16", multiply<16, 2, f16_element>},
                            {"mma_m16n8k8", multiply<8, 2, bf16_element>},
                            {"mma_m16n8k8_tf32", multiply<8, 1, tf32_element>}};

// One line is one instruction.
const void* site_of(const Where& where) { return where.file_name() + where.line(); }

struct MatrixLoad {
  const void* row;
  int count;
  bool transposed;
  std::uint32_t registers[4];
};

std::uint16_t element(void* const* lanes, int tile, int row, int column) {
  std::uint16_t v = 0;
  const auto* at =
      static_cast<const std::byte*>(static_cast<const MatrixLoad*>(lanes[tile * 8 + row])->row);
  std::memcpy(&v, at + 2 * column, 2);
  return v;
}

void distribute(void* const* lanes, std::uint32_t /*mask*/) {
  for (int l = 0; l < 32; ++l) {
    auto& o = *static_cast<MatrixLoad*>(lanes[l]);
    const int far = l / 4;
    const int near = l % 4 * 2;
    for (int t = 0; t < o.count; ++t) {
      const std::uint32_t low =
          o.transposed ? element(lanes, t, near, far) : element(lanes, t, far, near);
      const std::uint32_t high =
          o.transposed ? element(lanes, t, near + 1, far) : element(lanes, t, far, near + 1);
      o.registers[t] = low | high << 16;
    }
  }
}

}  // namespace

void mma(MmaShape shape, MmaOperand& operand, Where where) {
  const MmaKind& kind = kMma[static_cast<int>(shape)];
  if (t_launch->current().place.lane == 0) {
    ++t_launch->stats.mma;
    t_launch->stats.mma_k8 += shape == MmaShape::m16n8k8_bf16 ? 1 : 0;
  }
  warp_collective(kind.name, 0xffffffffU, &operand, kind.combine, false, where);
}

void load_matrix(std::uint32_t* registers, const void* row, int count, bool transposed,
                 Where where) {
  Launch& launch = *t_launch;
  launch.current().where = where;
  if (launch.current().place.lane < 8 * count) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
      launch.fail(fmt::format("ldmatrix: a row starts at an address that is no multiple of 16"));
    }
    launch.access(row, 16, false, false, nullptr);
    launch.count_banks(static_cast<const std::byte*>(row), 16, site_of(where));
  }
  MatrixLoad operand{row, count, transposed, {}};
  warp_collective("ldmatrix", 0xffffffffU, &operand, distribute, false, where);
  for (int t = 0; t < count; ++t) {
    registers[t] = operand.registers[t];
  }
}

void Launch::land(const AsyncCopy& copy) {
  access(copy.target, copy.bytes, true, false, nullptr);
  std::memset(copy.target, 0, copy.bytes);
  std::memcpy(copy.target, copy.source, copy.source_bytes);
}

void Launch::start_copy(const AsyncCopy& copy) {
  access(copy.target, copy.bytes, true, false, nullptr);
  if (copy.target < shared_ || copy.target >= shared_ + geometry_.smem_bytes) {
    fail(fmt::format("cp_async: the target is not shared memory"));
  }
  const auto offset = static_cast<std::size_t>(copy.target - shared_);
  std::memset(copy.target, 0xFF, copy.bytes);
  std::memset(&shared_written_[offset], 0, copy.bytes);
  if (schedule_.order == Order::random && random_() % 2 == 0) {
    land(copy);
  } else {
    current_->copies.push_back(copy);
  }
}

void Launch::land_copies(int pending) {
  Thread& t = *current_;
  const int covered = t.group - pending;
  for (const AsyncCopy& copy : t.copies) {
    if (copy.group < covered) {
      land(copy);
    }
  }
  std::erase_if(t.copies, [&](const AsyncCopy& copy) { return copy.group < covered; });
}

void copy_async(void* target, const void* source, unsigned bytes, unsigned source_bytes,
                Where where) {
  Launch& launch = *t_launch;
  launch.current().where = where;
  if (reinterpret_cast<std::uintptr_t>(target) % bytes != 0 ||
      reinterpret_cast<std::uintptr_t>(source) % bytes != 0 || source_bytes > bytes) {
    launch.fail(
        fmt::format("cp_async of {} of {} bytes: misaligned or too long", source_bytes, bytes));
  }
  if (source_bytes > 0) {
    launch.count_global(source, source_bytes, false, where);
    launch.access(source, source_bytes, false, false, nullptr);
  }
  launch.stats.async_bytes += source_bytes;
  launch.start_copy({static_cast<std::byte*>(target), static_cast<const std::byte*>(source), bytes,
                     source_bytes, launch.current().group});
}
void copy_async_commit() { t_launch->commit_copies(); }
void copy_async_wait(int pending, Where where) {
  t_launch->current().where = where;
  t_launch->land_copies(pending);
}

}  // namespace tessera::simt
