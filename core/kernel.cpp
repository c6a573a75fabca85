#include "core/kernel.h"

#include "core/check.h"

namespace tessera::detail {

void throw_no_kernel(const char* kernel, Device device) {
  TESSERA_FAIL(ErrorKind::usage, "{}: this build has no kernel for device {}", kernel,
               name(device.type));
}

void throw_elsewhere(const char* kernel, int argument, Device lies, Device runs) {
  TESSERA_FAIL(ErrorKind::usage, "{}: argument {} lies on {}, the kernel runs on {}", kernel,
               argument, name(lies), name(runs));
}

}  // namespace tessera::detail
