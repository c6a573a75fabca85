// What tests of the executor share: device memory that frees itself, ramps, schedules.
#pragma once

#include <vector>

#include "core/simt/executor.h"
#include "core/simt/memory.h"
#include "core/simt/stream.h"
#include "core/view.h"

namespace tessera::simt {

/// Device memory that frees itself.
template <class T>
struct Buffer {
  explicit Buffer(std::size_t n)
      : data(static_cast<T*>(simt_allocate(n * sizeof(T)))), count(static_cast<std::int64_t>(n)) {}
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    simt_copy(data, values.data(), values.size() * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { simt_free(data); }
  [[nodiscard]] View<T, 1> view() const { return view(count); }
  /// Of the first n elements.
  [[nodiscard]] View<T, 1> view(std::int64_t n) const { return {data, {n}, {1}}; }
  [[nodiscard]] std::vector<T> host() const {
    std::vector<T> values(static_cast<std::size_t>(count));
    simt_copy(values.data(), data, values.size() * sizeof(T));
    return values;
  }

  T* data;
  std::int64_t count;
};

/// 1, 2, 3, ...
inline std::vector<float> ramp(std::size_t n) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    v[i] = 1.0F + static_cast<float>(i);
  }
  return v;
}

/// Launches of these programs run at once in any order.
inline const bool kAtOnce = (run_default_at_once(true), true);

/// Forward, reverse and six random orders, odd and even seeds.
inline std::vector<Schedule> schedules() {
  std::vector<Schedule> all{{Order::forward, 0}, {Order::reverse, 0}};
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    all.push_back({Order::random, seed});
  }
  return all;
}

}  // namespace tessera::simt
