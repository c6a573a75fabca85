#include "core/vector_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/vector_loops.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

void AddRun(const float* x, float* y, std::int64_t n) { simd::HWY_NAMESPACE::AddRun(x, y, n); }

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
HWY_EXPORT(AddRun);

void add_run(const float* x, float* y, std::int64_t n) { HWY_DYNAMIC_DISPATCH(AddRun)(x, y, n); }

}  // namespace tessera
#endif
