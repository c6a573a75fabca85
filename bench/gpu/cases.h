// What the device kernels are run on: each op at a small shape on simt, with the DRAM traffic that
// its kernels cannot avoid, as formulas in the shape. Walked by the roofline test, by the occupancy
// test and by the prediction bench.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

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
  /// A fresh run: inputs are made by the call, the returned function launches.
  std::function<std::function<void()>()> prepare;
};

/// For messages of tests.
inline void PrintTo(const GpuCase& c, std::ostream* out) { *out << c.name << " " << c.shape; }

/// All cases; the ops of each are run forward and backward.
std::vector<GpuCase> gpu_cases();

}  // namespace tessera::bench
