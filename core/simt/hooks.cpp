// The access hooks that instrumented kernels call (-fsanitize=thread, linked without its run-time
// library). Outside a kernel they return at once. They never unwind: a fault leaves through
// Launch::fail.
#include <cstddef>

#include "core/simt/launch_state.h"

using tessera::simt::t_launch;

namespace {
inline void seen(const void* address, std::size_t bytes, bool write, const void* pc) {
  if (t_launch != nullptr) {
    t_launch->access(address, bytes, write, false, pc);
  }
}
}  // namespace

// The names are the compiler's.
// NOLINTBEGIN(bugprone-reserved-identifier)
#define TESSERA_HOOK(name, bytes, write) \
  void name(void* address) { seen(address, bytes, write, __builtin_return_address(0)); }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void* /*caller*/) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void** /*place*/, void* /*value*/) {}
void __tsan_vptr_read(void** /*place*/) {}
TESSERA_HOOK(__tsan_read1, 1, false)
TESSERA_HOOK(__tsan_write1, 1, true)
TESSERA_HOOK(__tsan_read2, 2, false)
TESSERA_HOOK(__tsan_write2, 2, true)
TESSERA_HOOK(__tsan_read4, 4, false)
TESSERA_HOOK(__tsan_write4, 4, true)
TESSERA_HOOK(__tsan_read8, 8, false)
TESSERA_HOOK(__tsan_write8, 8, true)
TESSERA_HOOK(__tsan_read16, 16, false)
TESSERA_HOOK(__tsan_write16, 16, true)
TESSERA_HOOK(__tsan_unaligned_read2, 2, false)
TESSERA_HOOK(__tsan_unaligned_write2, 2, true)
TESSERA_HOOK(__tsan_unaligned_read4, 4, false)
TESSERA_HOOK(__tsan_unaligned_write4, 4, true)
TESSERA_HOOK(__tsan_unaligned_read8, 8, false)
TESSERA_HOOK(__tsan_unaligned_write8, 8, true)
TESSERA_HOOK(__tsan_unaligned_read16, 16, false)
TESSERA_HOOK(__tsan_unaligned_write16, 16, true)
void __tsan_read_range(void* address, std::size_t bytes) {
  seen(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  seen(address, bytes, true, __builtin_return_address(0));
}
}
// NOLINTEND(bugprone-reserved-identifier)
