#include "core/kernel.h"

#include "core/check.h"

namespace tessera::detail {

void throw_no_kernel(const char* kernel, Device device) {
  TESSERA_FAIL(ErrorKind::usage, "{}: this build has no kernel for device {}", kernel,
               name(device.type));
}

}  // namespace tessera::detail
