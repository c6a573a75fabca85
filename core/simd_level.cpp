#include "core/simd_level.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/simd_level.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

std::int64_t Target() { return HWY_TARGET; }

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstdlib>
#include <string>

#include "core/check.h"

namespace tessera {
namespace {

HWY_EXPORT(Target);

/// A level and the best target that it admits; a smaller number is a better target.
struct Level {
  std::string_view name;
  std::int64_t best;
};
constexpr Level kLevels[] = {{"scalar", HWY_SCALAR}, {"ssse3", HWY_SSSE3}, {"sse4", HWY_SSE4},
                             {"avx2", HWY_AVX2},     {"avx3", HWY_AVX3},   {"avx3_bf16", HWY_AVX3}};

bool has_bf16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool available(const Level& level, std::int64_t targets) {
  return level.best == HWY_SCALAR ||
         ((targets & level.best) != 0 && (level.name != "avx3_bf16" || has_bf16()));
}

// The asked level, with the better targets disabled.
std::string_view read_level() {
  const char* asked = std::getenv("TESSERA_SIMD");
  if (asked == nullptr || *asked == '\0') {
    return "";
  }
  const std::int64_t targets = hwy::SupportedTargets();
  std::string names;
  for (const Level& level : kLevels) {
    if (!available(level, targets)) {
      continue;
    }
    if (level.name == asked) {
      hwy::DisableTargets(level.best - 1);
      return level.name;
    }
    names += fmt::format("{}{}", names.empty() ? "" : ", ", level.name);
  }
  TESSERA_FAIL(ErrorKind::usage, "TESSERA_SIMD: expected one of {}, which this CPU has, got '{}'",
               names, asked);
}

}  // namespace

std::string_view simd_level() {
  static const std::string_view level = read_level();
  return level;
}

const char* simd_target() {
  (void)simd_level();
  return hwy::TargetName(HWY_DYNAMIC_DISPATCH(Target)());
}

}  // namespace tessera
#endif
