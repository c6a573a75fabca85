// The smallest program on the installed library: it prints the devices and makes a tensor.
#include <cstdio>

#include "core/device.h"
#include "core/tensor.h"

int main() {
  for (const tessera::Device device : tessera::devices()) {
    std::printf("%s\n", tessera::name(device.type));
  }
  const auto x = tessera::Tensor::full({2, 3}, 1.5F);
  return x.shape().size() == 6 ? 0 : 1;
}
