#include "core/scratch.h"

#include <sys/mman.h>

#include <cstdlib>
#include <memory>

#include "core/check.h"

namespace tessera {
namespace {

struct Free {
  void operator()(float* p) const { std::free(p); }
};

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

float* thread_scratch(std::int64_t floats) {
  thread_local std::unique_ptr<float, Free> memory;
  thread_local std::int64_t room = 0;
  if (room < floats) {
    // Whole huge pages: operands packed here are read along many rows at once.
    const std::size_t bytes =
        (static_cast<std::size_t>(floats) * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
    memory.reset();
    memory.reset(static_cast<float*>(std::aligned_alloc(kHugePage, bytes)));
    TESSERA_CHECK_KIND(ErrorKind::resource, memory != nullptr,
                       "scratch: {} bytes requested on cpu, none given", bytes);
    madvise(memory.get(), bytes, MADV_HUGEPAGE);  // advice: failure costs speed only
    room = static_cast<std::int64_t>(bytes / sizeof(float));
  }
  return memory.get();
}

}  // namespace tessera
