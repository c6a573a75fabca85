// Scratch memory of a thread: grows to the largest request and stays.
#pragma once

#include <cstdint>

namespace tessera {

/// Room for `floats` floats, on a cache line, until the next call on this thread: for the innermost
/// loop of one kernel at a time. Contents are undefined.
float* thread_scratch(std::int64_t floats);

}  // namespace tessera
