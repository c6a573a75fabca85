// The smallest program on the installed library: it prints the devices and normalises a tensor.
#include <cstdio>

#include "core/device.h"
#include "core/tensor.h"
#include "kernels/layernorm/layernorm.h"

int main() {
  for (const tessera::Device device : tessera::devices()) {
    std::printf("%s\n", tessera::name(device.type));
  }
  using tessera::Tensor;
  const Tensor y = tessera::layer_norm(Tensor::full({2, 3}, 1.5F), Tensor::full({3}, 1),
                                       Tensor::full({3}, 0.25F));
  return y.to_vector<float>()[5] == 0.25F ? 0 : 1;
}
