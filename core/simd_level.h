// TESSERA_SIMD: which vector instructions the kernels of the cpu may use.
#pragma once

#include <string_view>

namespace tessera {

/// The level that the environment variable TESSERA_SIMD asks for: scalar, ssse3, sse4, avx2, avx3
/// or avx3_bf16; "" where it is not set. The first call, which the first allocation of a tensor
/// makes, bounds the choice of every kernel by it. Throws Error(usage) with the levels of this
/// machine for a value that is no level, and for a level that the CPU lacks.
std::string_view simd_level();

/// The target that the kernels run at, in Highway's words: "AVX3", "SSE4", ...
const char* simd_target();

}  // namespace tessera
