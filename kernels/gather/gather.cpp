#include "kernels/gather/gather.h"

#include <cstring>

#include "core/autograd.h"

namespace tessera {
namespace {

constexpr auto kForward = TESSERA_KERNEL(gather_forward);
constexpr auto kBackward = TESSERA_KERNEL(gather_backward);

/// Positions of each key in order: a stable counting sort.
struct ByKey {
  Tensor starts, order;  // (N + 1), (M) i32
};

ByKey sort_by_key(std::span<const std::int32_t> keys, std::int64_t count) {
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

Tensor gather_rows(const Tensor& x0, const Tensor& index0) {
  TESSERA_CHECK(x0.rank() == 2 && index0.rank() == 1,
                "gather_rows: x must be (N, d) and index (M), got {} and {}", x0.shape(),
                index0.shape());
  const Tensor index = index0.detach().to(kCpu).contiguous();  // checked and sorted on the host
  const std::int64_t rows = x0.shape(0), d = x0.shape(1), m = index.shape(0);
  for (const std::int32_t i : index.span<const std::int32_t>()) {
    TESSERA_CHECK(i >= 0 && i < rows, "gather_rows: index {} is outside [0, {})", i, rows);
  }
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty({m, d}, DType::f32, x.device());
  kForward(x.device(), x.view<const float, 2>(), index.to(x.device()).view<const std::int32_t, 1>(),
           y.view<float, 2>(), Stream{});
  const auto backward = [saved = Saved(index), rows](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    const ByKey by = sort_by_key(saved.get().span<const std::int32_t>(), rows);
    Tensor dx = Tensor::empty({rows, dy.shape(1)}, DType::f32, dy.device());
    const Device device = dy.device();
    kBackward(device, dy.view<const float, 2>(), by.starts.to(device).view<const std::int32_t, 1>(),
              by.order.to(device).view<const std::int32_t, 1>(), dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

Tensor embedding(const Tensor& table, const Tensor& ids) { return gather_rows(table, ids); }

Tensor concat_rows(std::span<const Tensor> parts) {
  TESSERA_CHECK(!parts.empty(), "concat_rows: expected at least one tensor");
  std::vector<std::int64_t> offsets{0};
  for (const Tensor& p : parts) {
    TESSERA_CHECK(p.rank() == 2 && p.shape(1) == parts[0].shape(1),
                  "concat_rows: expected (N, {}), got {}", parts[0].shape(1), p.shape());
    offsets.push_back(offsets.back() + p.shape(0));
  }
  Tensor y = Tensor::empty({offsets.back(), parts[0].shape(1)}, DType::f32, parts[0].device());
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
