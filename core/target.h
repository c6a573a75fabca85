// Marks that let one source serve g++, nvcc and the simt device. Included by every compiler.
#pragma once

#if defined(__CUDACC__)
#define TESSERA_INLINE __host__ __device__ __forceinline__
#else
// always_inline also without optimisation: one out-of-line copy, if it were the uninstrumented one,
// would hide its accesses from the simt detectors.
#define TESSERA_INLINE inline __attribute__((always_inline))
#endif
