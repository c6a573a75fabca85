// Bounds of index tensors. Ops must not read or write outside of a table, and a device must not be
// asked what its indices are in the middle of a step: the bounds of what the host uploads, or of
// what an op makes, are remembered with the storage until somebody writes to it.
#pragma once

#include "core/tensor.h"

namespace tessera {

/// All elements of the i32 tensor, as it is now, lie in [least, most]. For ops that know what they
/// wrote.
void mark_indices(const Tensor& t, std::int32_t least, std::int32_t most);
/// Marks `target`, of any device, with the bounds of `source`: as marked, or as found on the cpu.
void copy_marks(const Tensor& target, const Tensor& source);
/// Throws Error(usage) "<op>: <what> 7 is outside [0, 5)" for the first element that is outside of
/// [0, count). Reads a device only where the marks do not answer.
void check_indices(const char* op, const char* what, const Tensor& t, std::int64_t count);

}  // namespace tessera
