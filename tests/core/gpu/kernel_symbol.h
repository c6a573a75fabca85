// Which kernel a launch on simt ran: its code's symbol in this program, and the device unit that
// the symbol came from.
#pragma once

#include <string>

namespace tessera {

struct KernelSymbol {
  std::string op;      ///< "layernorm" of layernorm_cuda.cpp
  std::string kernel;  ///< "forward_kernel<8>"
};

/// Empty where the program has no symbol at that address.
KernelSymbol kernel_symbol(const void* entry);

}  // namespace tessera
