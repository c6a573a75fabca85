// A residual and the norm behind it as one op, against the two ops and a double reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/reduce/reduce.h"
#include "support/bf16_op.h"
#include "tests/kernels/layernorm_reference.h"

namespace tessera {
namespace {

using testing_support::random;

/// Both outputs of a residual and its norm, and all gradients.
struct OfSum {
  std::vector<float> sum, normed;
  std::vector<std::vector<float>> gradients;
  bool operator==(const OfSum&) const = default;
};

using Residual = std::function<NormedSum(const std::vector<Tensor>&)>;

// x, y (t, d), weight, bias (d).
std::vector<Tensor> leaves(std::int64_t t, std::int64_t d, Device device = kCpu) {
  std::vector<Tensor> all{random({t, d}, 1), random({t, d}, 2), random({d}, 3), random({d}, 4)};
  for (Tensor& leaf : all) {
    leaf = leaf.to(device);
    leaf.set_requires_grad(true);
  }
  return all;
}

OfSum of_sum(const Residual& op, std::int64_t t, std::int64_t d, Device device) {
  const std::vector<Tensor> x = leaves(t, d, device);
  const NormedSum out = op(x);
  backward(add(weighted_sum(out.sum, random({t, d}, 5).to(device)),
               weighted_sum(out.normed, random({t, d}, 6).to(device))));
  OfSum result{out.sum.to_vector<float>(), out.normed.to_vector<float>(), {}};
  for (const Tensor& leaf : x) {
    result.gradients.push_back(leaf.grad().to_vector<float>());
  }
  return result;
}

NormedSum fused(const std::vector<Tensor>& x) { return add_layer_norm(x[0], x[1], x[2], x[3]); }
NormedSum apart(const std::vector<Tensor>& x) {
  const Tensor sum = add(x[0], x[1]);
  return {sum, layer_norm(sum, x[2], x[3])};
}

TEST(AddLayerNorm, HasTheBitsOfItsTwoOpsAndTheirGradients) {
  testing_support::on_every_device([](Device device, const std::string& level) {
    for (const auto& [t, d] :
         {std::pair<std::int64_t, std::int64_t>{0, 31}, {1, 1}, {33, 257}, {257, 128}}) {
      EXPECT_TRUE(of_sum(fused, t, d, device) == of_sum(apart, t, d, device))
          << level << ", " << t << " rows of " << d;
    }
  });
}

// Those of x and of y, which are the same.
TEST(AddLayerNorm, PassesOnTheGradientOfEitherOutputAlone) {
  for (const Device device : devices()) {
    for (const bool of_norm : {false, true}) {
      const Tensor up = random({3, 8}, 7).to(device);
      const auto gradients = [&](const Residual& op) {
        const std::vector<Tensor> x = leaves(3, 8, device);
        const NormedSum out = op(x);
        backward(weighted_sum(of_norm ? out.normed : out.sum, up));
        return std::pair{x[0].grad().to_vector<float>(), x[1].grad().to_vector<float>()};
      };
      const auto got = gradients(fused);
      EXPECT_EQ(got, gradients(apart)) << name(device.type);
      EXPECT_EQ(got.first, got.second);
    }
  }
}

#ifdef TESSERA_BUILD_SIMT
TEST(AddLayerNormSimt, ReadsAndWritesEachRowOnce) {
  constexpr Device kSimt{DeviceType::simt, 0};
  const std::int64_t t = 256, d = 256, rows = t * d * 4 / 32;
  const std::vector<Tensor> in = leaves(t, d, kSimt);
  const Tensor dy = random({t, d}, 5).to(kSimt);
  const auto out = [&](const Shape& s) { return Tensor::empty(s, DType::f32, kSimt); };
  const Tensor sum = out({t, d}), y = out({t, d}), mean = out({t}), rstd = out({t});
  simt::layernorm_forward(
      in[0].view<const float, 2>(), {in[1].view<const float, 2>(), sum.view<float, 2>()},
      in[2].view<const float, 1>(), in[3].view<const float, 1>(), 1e-5F, y.view<float, 2>(),
      mean.view<float, 1>(), rstd.view<float, 1>(), Stream{});
  EXPECT_EQ(simt::last_launch().sectors_read,
            static_cast<std::uint64_t>(2 * rows + 2 * (t / 4) * d * 4 / 32));
  EXPECT_EQ(simt::last_launch().sectors_written,
            static_cast<std::uint64_t>(2 * rows + 2 * (t / 4)));
  simt::layernorm_backward(dy.view<const float, 2>(), in[0].view<const float, 2>(),
                           sum.view<const float, 2>(), in[2].view<const float, 1>(),
                           mean.view<const float, 1>(), rstd.view<const float, 1>(),
                           out({t, d}).view<float, 2>(), out({2, 1, d}).view<float, 3>(), Stream{});
  EXPECT_GE(simt::last_launch().unique_sectors_read, static_cast<std::uint64_t>(3 * rows));
  EXPECT_LE(32 * simt::last_launch().unique_sectors_read,
            static_cast<std::uint64_t>(32 * 3 * rows + 8 * t + 4 * d));
}
#endif

// 0.5 s + norm(s) of s = x + y, so that both outputs have a gradient.
testing_support::DoubleFunction half_and_norm(std::int64_t d) {
  return [d](const std::vector<std::vector<double>>& in) {
    std::vector<double> sum = in[0];
    std::ranges::transform(sum, in[1], sum.begin(), std::plus());
    std::vector<double> y = testing_support::normed_rows(d)({sum, in[2], in[3]});
    for (std::size_t i = 0; i < y.size(); ++i) {
      y[i] += 0.5 * sum[i];
    }
    return y;
  };
}

TEST(AddLayerNorm, GradientsMatchFiniteDifferences) {
  const auto op = [](const auto& x) {
    const NormedSum out = fused(x);
    return add(scale(out.sum, 0.5F), out.normed);
  };
  for (const std::int64_t d : {2, 31, 33}) {
    for (const std::int64_t t : {1, 5}) {
      const std::vector<Tensor> in{random({t, d}, 1), random({t, d}, 2), random({d}, 3),
                                   random({d}, 4)};
      testing_support::check_op(op, half_and_norm(d), in);
      testing_support::check_bf16_op(op, half_and_norm(d), in, 2);
    }
  }
}

TEST(AddLayerNorm, RejectsShapesThatDoNotFit) {
  const Tensor x = Tensor::zeros({2, 3}), three = Tensor::zeros({3}), four = Tensor::zeros({4});
  EXPECT_THROW(add_layer_norm(x, three, three, three), Error);
  EXPECT_THROW(add_layer_norm(x, x.to(DType::bf16), three, three), Error);
  EXPECT_THROW(add_layer_norm(x, x, four, three), Error);
}

}  // namespace
}  // namespace tessera
