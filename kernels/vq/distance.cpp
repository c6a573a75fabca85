#include "kernels/vq/distance.h"

#include "core/check.h"

namespace tessera {

const char* name(VqDistance distance) { return distance == VqDistance::f16 ? "f16" : "f32"; }

VqDistance parse_vq_distance(const std::string& text) {
  for (const VqDistance d : {VqDistance::f32, VqDistance::f16}) {
    if (text == name(d)) return d;
  }
  TESSERA_FAIL(ErrorKind::usage, "distance: expected f32 or f16, got '{}'", text);
}

void check_vq_distance(VqDistance distance, Device device) {
  TESSERA_CHECK(distance == VqDistance::f32 || device == kCpu,
                "vq: distance f16 is for device cpu, got {}", name(device.type));
}

}  // namespace tessera
