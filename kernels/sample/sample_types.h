// What host and device units of sample share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// What the kernel needs of the options; excluded (V) is 1 where a class is never drawn.
struct SampleRule {
  float temperature;
  std::int64_t top_k;
  float top_p;
  const std::uint8_t* excluded;
};

}  // namespace tessera
