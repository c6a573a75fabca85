#include "kernels/gather/gather.h"

#include <algorithm>
#include <cstring>

#include "core/autograd.h"
#include "core/indices.h"

namespace tessera {
namespace {

// The tables of an element type.
template <class T>
constexpr auto kForward = TESSERA_KERNEL(gather_forward);
template <class T>
constexpr auto kBackward = TESSERA_KERNEL(gather_backward);
template <>
constexpr auto kForward<bf16> = TESSERA_DEVICE_KERNEL(gather_forward_bf16);
template <>
constexpr auto kBackward<bf16> = TESSERA_DEVICE_KERNEL(gather_backward_bf16);
constexpr auto kTokens = TESSERA_KERNEL(gather_integers);
constexpr auto kSort = TESSERA_DEVICE_KERNEL(gather_sort);  // the host sorts its own keys

RowsByKey sort_on_host(std::span<const std::int32_t> keys, std::int64_t count) {
  std::vector<std::int32_t> starts(static_cast<std::size_t>(count) + 1, 0), order(keys.size());
  for (const std::int32_t k : keys) {
    ++starts[static_cast<std::size_t>(k) + 1];
  }
  for (std::size_t n = 0; n + 1 < starts.size(); ++n) {
    starts[n + 1] += starts[n];
  }
  std::vector<std::int32_t> next(starts.begin(), starts.end() - 1);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    order[static_cast<std::size_t>(next[static_cast<std::size_t>(keys[i])]++)] =
        static_cast<std::int32_t>(i);
  }
  return {Tensor::from(starts, {count + 1}),
          Tensor::from(order, {static_cast<std::int64_t>(keys.size())})};
}

}  // namespace

RowsByKey rows_by_key(const Tensor& keys, std::int64_t count) {
  const Device device = keys.device();
  if (device == kCpu) {
    return sort_on_host(keys.span<const std::int32_t>(), count);
  }
  const std::int64_t m = keys.shape(0), chunks = (m + kSortChunk - 1) / kSortChunk;
  const Tensor counts = Tensor::empty({chunks, count}, DType::i32, device);
  const RowsByKey by{Tensor::empty({count + 1}, DType::i32, device),
                     Tensor::empty({m}, DType::i32, device)};
  kSort(device, keys.view<const std::int32_t, 1>(), counts.view<std::int32_t, 2>(),
        by.starts.view<std::int32_t, 1>(), by.order.view<std::int32_t, 1>(), Stream{});
  return by;
}

namespace {

template <class T>
Tensor sum_by_key_of(const Tensor& x, const RowsByKey& by) {
  Tensor sums = Tensor::empty({by.starts.shape(0) - 1, x.shape(1)}, dtype_of<T>, x.device());
  kBackward<T>(x.device(), x.view<const T, 2>(), by.starts.view<const std::int32_t, 1>(),
               by.order.view<const std::int32_t, 1>(), sums.view<T, 2>(), Stream{});
  return sums;
}

template <class T>
Tensor gather_rows_of(const Tensor& x0, const Tensor& index0) {
  const Tensor x = x0.detach().contiguous();
  const Tensor index = index0.detach().contiguous().to(x.device());
  Tensor y = Tensor::empty({index.shape(0), x.shape(1)}, dtype_of<T>, x.device());
  kForward<T>(x.device(), x.view<const T, 2>(), index.view<const std::int32_t, 1>(), y.view<T, 2>(),
              Stream{});
  const auto backward = [saved = Saved(index), rows = x.shape(0)](std::span<const Tensor> g) {
    return std::vector<Tensor>{sum_by_key(g[0].contiguous(), rows_by_key(saved.get(), rows))};
  };
  return differentiable(y, {x0}, backward);
}

}  // namespace

Tensor sum_by_key(const Tensor& x, const RowsByKey& by) {
  check_same_device("sum_by_key", {&x, &by.starts, &by.order});
  if (is_host_bf16(x)) {
    return sum_by_key_of<float>(x.to(DType::f32), by).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? sum_by_key_of<bf16>(x, by) : sum_by_key_of<float>(x, by);
}

Tensor gather_rows(const Tensor& x, const Tensor& index) {
  TESSERA_CHECK(x.rank() == 2 && index.rank() == 1,
                "gather_rows: x must be (N, d) and index (M), got {} and {}", x.shape(),
                index.shape());
  check_indices("gather_rows", "index", index, x.shape(0));
  if (is_host_bf16(x)) {
    return gather_rows_of<float>(x.to(DType::f32), index).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? gather_rows_of<bf16>(x, index)
                                  : gather_rows_of<float>(x, index);
}

Tensor gather_tokens(const Tensor& values, const std::vector<std::int32_t>& index,
                     std::int32_t shift) {
  TESSERA_CHECK(values.rank() == 1 && values.dtype() == DType::i32,
                "gather_tokens: values must be i32 (N), got {} {}", name(values.dtype()),
                values.shape());
  const Device device = values.device();
  const Shape shape{static_cast<std::int64_t>(index.size())};
  Bounds literals{INT32_MAX, INT32_MIN};
  for (const std::int32_t i : index) {
    TESSERA_CHECK(i < values.size(), "gather_tokens: index {} is outside [0, {})", i,
                  values.size());
    if (i < 0) {
      literals = {std::min(literals.least, -1 - i), std::max(literals.most, -1 - i)};
    }
  }
  const Tensor out = Tensor::empty(shape, DType::i32, device);
  kTokens(device, values.contiguous().view<const std::int32_t, 1>(),
          Tensor::from(index, shape, device).view<const std::int32_t, 1>(), shift,
          out.view<std::int32_t, 1>(), Stream{});
  if (const auto known = values.impl()->storage->bounds(); known && device != kCpu) {
    mark_indices(out, std::min(literals.least, known->least + shift),
                 std::max(literals.most, known->most + shift));
  }
  return out;
}

Tensor embedding(const Tensor& table, const Tensor& ids) { return gather_rows(table, ids); }

Tensor concat_rows(std::span<const Tensor> parts) {
  TESSERA_CHECK(!parts.empty(), "concat_rows: expected at least one tensor");
  std::vector<std::int64_t> offsets{0};
  for (const Tensor& p : parts) {
    TESSERA_CHECK(p.rank() == 2 && p.shape(1) == parts[0].shape(1) && p.dtype() == parts[0].dtype(),
                  "concat_rows: expected (N, {}) {}, got {} {}", parts[0].shape(1),
                  name(parts[0].dtype()), p.shape(), name(p.dtype()));
    check_same_device("concat_rows", {&parts[0], &p});
    offsets.push_back(offsets.back() + p.shape(0));
  }
  Tensor y =
      Tensor::empty({offsets.back(), parts[0].shape(1)}, parts[0].dtype(), parts[0].device());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    copy_into(y.slice(0, offsets[i], offsets[i + 1]), parts[i].detach());
  }
  const auto backward = [offsets](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    std::vector<Tensor> gradients;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      gradients.push_back(dy.slice(0, offsets[i], offsets[i + 1]));
    }
    return gradients;
  };
  return differentiable(y, {parts.begin(), parts.end()}, backward);
}

}  // namespace tessera
