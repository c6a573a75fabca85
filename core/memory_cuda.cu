// Filling, copying and adding where the tensors lie: a thread takes 16 elements, neighbours side by
// side. Bound by memory; the walk costs a division for each axis but the first, and element.
#include "core/gpu/warp.cuh"
#include "core/memory_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 128;
constexpr int kItems = 16;

struct Offsets {
  std::int64_t target, source;
};

TESSERA_DEVICE Offsets offsets_of(const StridedWalk& walk, std::int64_t i) {
  Offsets at{0, 0};
  for (int axis = walk.rank - 1; axis >= 0; --axis) {
    const std::int64_t index = axis > 0 ? i % walk.shape[axis] : i;
    i = axis > 0 ? i / walk.shape[axis] : 0;
    at.target += index * walk.target[axis];
    at.source += index * walk.source[axis];
  }
  return at;
}

// Calls body(target offset, source offset) for the thread's elements.
template <class Body>
TESSERA_DEVICE void for_each_element(const StridedWalk& walk, Body body) {
  const std::int64_t first =
      static_cast<std::int64_t>(block_idx().x) * kThreads * kItems + linear_thread();
  for (int item = 0; item < kItems; ++item) {
    const std::int64_t i = first + item * kThreads;
    if (i < walk.size) {
      const Offsets at = offsets_of(walk, i);
      body(at.target, at.source);
    }
  }
}

template <class Word>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    fill_kernel(Word* target, StridedWalk walk, Word value) {
  for_each_element(walk, [&](std::int64_t t, std::int64_t) { stg(target + t, value); });
}

template <class Word>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    copy_kernel(Word* target, const Word* source, StridedWalk walk) {
  for_each_element(walk, [&](std::int64_t t, std::int64_t s) { stg(target + t, ldg(source + s)); });
}

template <class T>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    add_kernel(T* target, const T* source, StridedWalk walk) {
  for_each_element(walk, [&](std::int64_t t, std::int64_t s) {
    stg(target + t, T(static_cast<float>(ldg(target + t)) + static_cast<float>(ldg(source + s))));
  });
}

template <class To, class From>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    convert_kernel(To* target, const From* source, StridedWalk walk) {
  for_each_element(walk, [&](std::int64_t t, std::int64_t s) {
    stg(target + t, To(static_cast<float>(ldg(source + s))));
  });
}

LaunchConfig config_of(const char* name, const StridedWalk& walk, Stream stream) {
  return {name, {blocks_for(walk.size, kThreads * kItems)}, {kThreads}, 0, stream};
}

// Calls body with a null pointer to a word of the width.
template <class Body>
void with_word(int bytes, Body body) {
  if (bytes == 2) {
    body(static_cast<std::uint16_t*>(nullptr));
  } else if (bytes == 4) {
    body(static_cast<std::uint32_t*>(nullptr));
  } else {
    body(static_cast<std::uint64_t*>(nullptr));
  }
}

}  // namespace

void fill_elements(void* target, int bytes, StridedWalk walk, std::uint64_t value, Stream stream) {
  with_word(bytes, [&](auto* word) {
    using Word = std::remove_pointer_t<decltype(word)>;
    launch(fill_kernel<Word>, config_of("fill", walk, stream), static_cast<Word*>(target), walk,
           static_cast<Word>(value));
  });
}

void copy_elements(void* target, const void* source, int bytes, StridedWalk walk, Stream stream) {
  with_word(bytes, [&](auto* word) {
    using Word = std::remove_pointer_t<decltype(word)>;
    launch(copy_kernel<Word>, config_of("copy", walk, stream), static_cast<Word*>(target),
           static_cast<const Word*>(source), walk);
  });
}

void add_elements(float* target, const float* source, StridedWalk walk, Stream stream) {
  launch(add_kernel<float>, config_of("accumulate", walk, stream), target, source, walk);
}

void add_elements_bf16(bf16* target, const bf16* source, StridedWalk walk, Stream stream) {
  launch(add_kernel<bf16>, config_of("accumulate", walk, stream), target, source, walk);
}

void round_elements(bf16* target, const float* source, StridedWalk walk, Stream stream) {
  launch(convert_kernel<bf16, float>, config_of("round", walk, stream), target, source, walk);
}

void widen_elements(float* target, const bf16* source, StridedWalk walk, Stream stream) {
  launch(convert_kernel<float, bf16>, config_of("widen", walk, stream), target, source, walk);
}

}  // namespace tessera::TESSERA_GPU_NS
