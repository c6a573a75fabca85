#include "kernels/decode_attention/decode_attention.h"

#include <cmath>
#include <vector>

namespace tessera {
namespace {

constexpr auto kStep = TESSERA_KERNEL(decode_attention_step);

void check_rows(const KeyValueCache& cache, std::int64_t rows, std::span<const std::int32_t> slots,
                std::span<const std::int32_t> positions) {
  const std::int64_t count = cache.values.shape(0), capacity = cache.values.shape(2);
  TESSERA_CHECK(std::ssize(slots) == rows && std::ssize(positions) == rows,
                "decode_attention: {} rows, {} slots, {} positions", rows, slots.size(),
                positions.size());
  std::vector<bool> taken(static_cast<std::size_t>(count), false);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    TESSERA_CHECK(slots[i] >= 0 && slots[i] < count, "decode_attention: slot {} of {}", slots[i],
                  count);
    TESSERA_CHECK(!taken[static_cast<std::size_t>(slots[i])],
                  "decode_attention: slot {} has two rows in one step", slots[i]);
    TESSERA_CHECK(positions[i] >= 0 && positions[i] < capacity,
                  "decode_attention: position {} in a cache of {} rows", positions[i], capacity);
    taken[static_cast<std::size_t>(slots[i])] = true;
  }
}

float* data(const Tensor& t) { return t.reshape({t.size()}).view<float, 1>().data; }

// Slots, then positions, on a device; undefined on the cpu, which reads the caller's.
Tensor copied(std::span<const std::int32_t> slots, std::span<const std::int32_t> positions,
              Device device) {
  if (device == kCpu) {
    return {};
  }
  std::vector<std::int32_t> both(slots.begin(), slots.end());
  both.insert(both.end(), positions.begin(), positions.end());
  return Tensor::from(both, {std::ssize(both)}, device);
}

}  // namespace

KeyValueCache KeyValueCache::create(std::int64_t slots, std::int64_t heads, std::int64_t width,
                                    std::int64_t capacity, Device device) {
  return {Tensor::empty({slots, heads, width, capacity}, DType::f32, device),
          Tensor::empty({slots, heads, capacity, width}, DType::f32, device)};
}

Tensor decode_attention(const Tensor& qkv0, const KeyValueCache& cache,
                        std::span<const std::int32_t> slots,
                        std::span<const std::int32_t> positions, float scale) {
  const std::int64_t h = cache.values.shape(1), d = cache.values.shape(3);
  TESSERA_CHECK(qkv0.rank() == 4 && qkv0.shape() == (Shape{qkv0.shape(0), 3, h, d}),
                "decode_attention: qkv must be (B, 3, {}, {}), got {}", h, d, qkv0.shape());
  check_same_device("decode_attention", {&qkv0, &cache.keys, &cache.values});
  check_rows(cache, qkv0.shape(0), slots, positions);
  const Tensor qkv = qkv0.detach().contiguous();
  const Tensor out = Tensor::empty({qkv.shape(0), h, d}, DType::f32, qkv.device());
  const Tensor places = copied(slots, positions, qkv.device());
  const std::int32_t* at = places.defined() ? places.view<const std::int32_t, 1>().data : nullptr;
  const DecodeLayout layout{.rows = qkv.shape(0),
                            .heads = h,
                            .width = d,
                            .capacity = cache.values.shape(2),
                            .scale = scale != 0 ? scale : 1.0F / std::sqrt(static_cast<float>(d)),
                            .slots = at != nullptr ? at : slots.data(),
                            .positions = at != nullptr ? at + slots.size() : positions.data()};
  kStep(qkv.device(), data(qkv), layout, data(cache.keys), data(cache.values), data(out), Stream{});
  cache.keys.bump_version();
  cache.values.bump_version();
  return out;
}

}  // namespace tessera
