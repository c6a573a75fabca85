#include "core/indices.h"

#include <algorithm>

namespace tessera {
namespace {

// Contiguous elements on the host; a device is read.
Tensor on_host(const Tensor& t) { return t.detach().to(kCpu).contiguous(); }

bool marked_within(const Tensor& t, std::int64_t count) {
  const auto marks = t.impl()->storage->bounds();
  return marks && marks->least >= 0 && marks->most < count;
}

}  // namespace

void mark_indices(const Tensor& t, std::int32_t least, std::int32_t most) {
  t.impl()->storage->mark_bounds({least, most});
}

void copy_marks(const Tensor& target, const Tensor& source) {
  if (const auto marks = source.impl()->storage->bounds()) {
    mark_indices(target, marks->least, marks->most);
  } else if (source.device() == kCpu && source.is_contiguous() && source.size() > 0) {
    const auto [least, most] = std::ranges::minmax(source.span<const std::int32_t>());
    mark_indices(target, least, most);
  }
}

void check_indices(const char* op, const char* what, const Tensor& t, std::int64_t count) {
  if (t.size() == 0 || (t.device() != kCpu && marked_within(t, count))) {
    return;
  }
  const Tensor host = on_host(t);
  for (const std::int32_t i : host.span<const std::int32_t>()) {
    TESSERA_CHECK(i >= 0 && i < count, "{}: {} {} is outside [0, {})", op, what, i, count);
  }
}

}  // namespace tessera
