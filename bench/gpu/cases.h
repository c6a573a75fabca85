// What the device kernels are run on: each op at a small shape, with the DRAM traffic that its
// kernels cannot avoid, as formulas in the shape, and at the shape that the design names. Walked on
// simt by the roofline test, the occupancy test and the prediction bench, on a GPU by the test that
// compares it with simt and by the table of measured times.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace tessera::bench {

/// Least DRAM traffic of the launches of one name in a case, bytes; and their FLOP.
struct Traffic {
  std::string launch;
  double read, written;
  double flops = 0;
};

struct GpuCase {
  std::string name;   ///< "layer_norm"
  std::string shape;  ///< of the run, "T=512 d=256"
  /// How often the run goes into the shape that the design names; 1 = no such shape.
  double times = 1;
  std::string full_shape;
  std::vector<Traffic> traffic;  ///< of the launches that have a formula
  /// Launches, and returns what came out: values, then the gradients of the inputs.
  using Run = std::function<std::vector<Tensor>()>;
  std::function<Run(Device)> make;  ///< makes the inputs

  [[nodiscard]] Run prepare(Device device = {DeviceType::simt, 0}) const { return make(device); }
};

/// For messages of tests.
inline void PrintTo(const GpuCase& c, std::ostream* out) { *out << c.name << " " << c.shape; }

/// small: what simt counts in seconds. full: the shape of the design, for a GPU.
enum class Size { small, full };
/// All cases, the same in either size; the ops of each are run forward and backward.
std::vector<GpuCase> gpu_cases(Size size = Size::small);

}  // namespace tessera::bench
