// Thread pool. Which thread does a chunk is free; what a chunk is depends only on the problem.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace tessera {

template <class Signature>
class FunctionRef;

/// A borrowed callable, two pointers wide; never outlives the call it is passed to.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT: implicit by design
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* o, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

/// Runs body(0) .. body(chunks - 1), each once, on the pool and the caller; returns when all are
/// done. Nested calls run inline. The exception of the lowest failing chunk is rethrown.
void parallel_for(std::int64_t chunks, FunctionRef<void(std::int64_t)> body);

/// Threads of the pool, the caller included. Default: TESSERA_THREADS, else the affinity mask.
int num_threads();
/// Replaces the pool; not to be called from inside parallel_for. Throws Error(usage) unless 1 <= n
/// <= 256.
void set_num_threads(int n);

/// Number of chunks of `size` that cover `total`.
constexpr std::int64_t chunk_count(std::int64_t total, std::int64_t size) {
  return (total + size - 1) / size;
}

/// Sums the slots pairwise, as a binary tree in slot order: the result depends on their number
/// only.
template <class T>
T tree_sum(std::vector<T> slots) {
  if (slots.empty()) {
    return T{};
  }
  for (std::size_t step = 1; step < slots.size(); step *= 2) {
    for (std::size_t i = 0; i + step < slots.size(); i += 2 * step) {
      slots[i] += slots[i + step];
    }
  }
  return slots[0];
}

}  // namespace tessera
