#include "kernels/matmul/precision.h"

#include <algorithm>
#include <atomic>

#include "core/check.h"
#include "core/simd_level.h"

#if defined(TESSERA_BF16_UNIT) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tessera {
namespace {

thread_local Precision current_precision = Precision::f32;

#ifdef TESSERA_BF16_UNIT
// Linux gives a process the tile registers on request only (arch_prctl, ARCH_REQ_XCOMP_PERM =
// 0x1023 for component 18, tile data).
bool tiles_are_granted() {
#ifdef __linux__
  return ::syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

Bf16Unit best_unit() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) {
    return Bf16Unit::none;
  }
  const bool amx = __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile");
  return amx && tiles_are_granted() ? Bf16Unit::tiles : Bf16Unit::dots;
}
#else
Bf16Unit best_unit() { return Bf16Unit::none; }
#endif

Bf16Unit available_unit() {
  static const Bf16Unit unit = best_unit();
  return unit;
}

// TESSERA_SIMD as a bound on the unit.
Bf16Unit admitted_unit() {
  if (simd_level().empty()) {
    return available_unit();
  }
  return simd_level() == "avx3_bf16" ? std::min(available_unit(), Bf16Unit::dots) : Bf16Unit::none;
}

std::atomic<Bf16Unit>& unit_in_use() {
  static std::atomic<Bf16Unit> unit = admitted_unit();
  return unit;
}

}  // namespace

const char* name(Precision precision) { return precision == Precision::bf16 ? "bf16" : "f32"; }

Precision parse_precision(const std::string& text) {
  for (const Precision p : {Precision::f32, Precision::bf16}) {
    if (text == name(p)) return p;
  }
  TESSERA_FAIL(ErrorKind::usage, "precision: expected f32 or bf16, got '{}'", text);
}

Precision precision() { return current_precision; }

PrecisionScope::PrecisionScope(Precision precision) : previous_(current_precision) {
  current_precision = precision;
}
PrecisionScope::~PrecisionScope() { current_precision = previous_; }

DType row_type(Device device) {
  return precision() == Precision::bf16 && device != kCpu ? DType::bf16 : DType::f32;
}

void check_precision(Precision precision, Device device) {
  TESSERA_CHECK(precision == Precision::f32 || device != kCpu || bf16_unit() != Bf16Unit::none,
                "precision bf16: this CPU, build or TESSERA_SIMD has no AVX512-BF16; choose "
                "precision f32");
}

const char* name(Bf16Unit unit) {
  switch (unit) {
    case Bf16Unit::dots:
      return "AVX512-BF16";
    case Bf16Unit::tiles:
      return "AMX";
    case Bf16Unit::none:
      break;
  }
  return "none";
}

Bf16Unit bf16_unit() { return unit_in_use().load(std::memory_order_relaxed); }

void set_bf16_unit(Bf16Unit unit) {
  TESSERA_CHECK(unit <= available_unit(), "bf16: this CPU has {}, not {}", name(available_unit()),
                name(unit));
  unit_in_use().store(unit, std::memory_order_relaxed);
}

}  // namespace tessera
