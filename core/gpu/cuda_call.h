// One way to call the CUDA runtime: TESSERA_CUDA_CALL(cudaEventRecord(event, stream)) throws
// Error(resource) with the text of the call and CUDA's own words.
#pragma once

#include <cuda_runtime_api.h>

namespace tessera::cu {

/// Throws unless `error` is success.
void check_call(cudaError_t error, const char* call);

}  // namespace tessera::cu

#define TESSERA_CUDA_CALL(...) ::tessera::cu::check_call((__VA_ARGS__), #__VA_ARGS__)
