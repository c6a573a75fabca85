#include "core/segments.h"

#include <algorithm>
#include <mutex>


namespace tessera {

struct Segments::Impl {
  std::vector<std::int32_t> offsets;
  int max_length = 0;
  mutable std::mutex mutex;
  mutable std::vector<Tensor> copies;  // one for each device asked for
};

namespace {
const std::vector<std::int32_t> kNone{0};
}

Segments::Segments(std::vector<std::int32_t> cu_seqlens) {
  TESSERA_CHECK(!cu_seqlens.empty() && cu_seqlens[0] == 0, "segments: offsets must start with 0");
  auto impl = std::make_shared<Impl>();
  for (std::size_t i = 1; i < cu_seqlens.size(); ++i) {
    const std::int32_t length = cu_seqlens[i] - cu_seqlens[i - 1];
    TESSERA_CHECK(length >= 0, "segments: offsets must not decrease, got {} after {} at {}",
                  cu_seqlens[i], cu_seqlens[i - 1], i);
    impl->max_length = std::max(impl->max_length, length);
  }
  impl->offsets = std::move(cu_seqlens);
  impl_ = std::move(impl);
}

Segments Segments::from_lengths(std::span<const std::int32_t> lengths) {
  std::vector<std::int32_t> offsets{0};
  std::int64_t total = 0;
  for (const std::int32_t n : lengths) {
    total += n;
    TESSERA_CHECK(n >= 0 && total < INT32_MAX, "segments: length {} at segment {}, total {}", n,
                  offsets.size() - 1, total);
    offsets.push_back(static_cast<std::int32_t>(total));
  }
  return Segments(std::move(offsets));
}

std::span<const std::int32_t> Segments::cu_seqlens() const {
  return impl_ ? impl_->offsets : kNone;
}

Tensor Segments::on(Device device) const {
  if (!impl_) {
    return Tensor::from(cu_seqlens(), {1}, device);
  }
  const std::lock_guard lock(impl_->mutex);
  std::erase_if(impl_->copies, [](const Tensor& t) { return t.impl()->storage->lost(); });
  for (const Tensor& t : impl_->copies) {
    if (t.device() == device) {
      return t;
    }
  }
  const NoArena heap;  // the handle may outlive the step
  impl_->copies.push_back(
      Tensor::from(cu_seqlens(), {static_cast<std::int64_t>(impl_->offsets.size())}, device));
  return impl_->copies.back();
}

int Segments::count() const { return static_cast<int>(cu_seqlens().size()) - 1; }
std::int32_t Segments::total() const { return cu_seqlens().back(); }
std::int32_t Segments::length(int segment) const {
  const auto s = static_cast<std::size_t>(segment);
  return cu_seqlens()[s + 1] - cu_seqlens()[s];
}
int Segments::max_length() const { return impl_ ? impl_->max_length : 0; }

std::vector<std::int32_t> Segments::segment_of_token() const {
  std::vector<std::int32_t> owner(static_cast<std::size_t>(total()));
  const auto offsets = cu_seqlens();
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    std::fill(owner.begin() + offsets[s], owner.begin() + offsets[s + 1],
              static_cast<std::int32_t>(s));
  }
  return owner;
}

}  // namespace tessera
