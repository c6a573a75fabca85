// Is there a GPU that kernels can run on? 0 if so; else 77 and a line that says why not.
#include <cstdio>

#include "core/gpu/runtime.h"

int main() {
  if (tessera::cuda_device_count() > 0) {
    return 0;
  }
  std::puts("skipped: no CUDA device, or no driver for it");
  return 77;
}
