// Products by cuBLASLt. The library is opened when the first is asked for: linked at start it would
// cost each program 0.3 s, also where no GPU takes part (540 MB of it are mapped and relocated).
#pragma once

#include <cublasLt.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/matmul/product.h"

namespace tessera::cublaslt {

/// Whether the library is there and has what we call. A GPU is not asked for.
bool available();

/// A ProductLibrary. The algorithm of a planned_request is asked for once and pinned: the first one
/// proposed that makes sums in one sequence or, where the request admits it, in parts that a
/// separate step adds from the workspace. Never in place, where blocks wait for each other. False
/// for a product that the library declines, and where there is no GPU.
bool multiply(const ProductRequest& request, Stream stream);

/// What is pinned so far, a line each: the shape asked for, the algorithm, its tile and parts.
std::vector<std::string> plans();

/// A request as cuBLASLt is told it. Needs no GPU. Throws Error(internal) for what it refuses.
class Description {
 public:
  explicit Description(const ProductRequest& request);

  template <class T>
  using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;
  Owned<cublasLtMatmulDescOpaque_t> operation;
  Owned<cublasLtMatrixLayoutOpaque_t> a, b, d;  ///< c has the layout of d
};

}  // namespace tessera::cublaslt
