#include "core/autograd.h"

#include <gtest/gtest.h>

#include "core/tensor.h"

namespace tessera {
namespace {

Tensor twice(const Tensor& x) {
  Tensor y = x.clone();
  accumulate(y, x.detach());
  return differentiable(y, {x}, [](std::span<const Tensor> g) {
    Tensor dx = g[0].clone();
    accumulate(dx, g[0]);
    return std::vector<Tensor>{dx};
  });
}

Tensor leaf(std::vector<float> values, const Shape& shape) {
  Tensor t = Tensor::from(values, shape);
  t.set_requires_grad(true);
  return t;
}

TEST(Autograd, GradientsOfSharedInputsAdd) {
  const Tensor x = leaf({3}, {1});
  const Tensor y = twice(x);
  const Tensor parts[] = {twice(y), y};
  const Tensor sum = differentiable(
      [&] {
        Tensor s = parts[0].clone();
        accumulate(s, parts[1].detach());
        return s;
      }(),
      {parts[0], parts[1]},
      [](std::span<const Tensor> g) {
        return std::vector<Tensor>{g[0], g[0]};
      });
  backward(sum);
  EXPECT_FLOAT_EQ(x.grad().item(), 6);  // 4x + 2x
}

// Contributions are added in place only where nobody else holds the first one: here it is the
// caller's tensor, passed on to two inputs.
TEST(Autograd, AddingContributionsLeavesTheUpstreamGradientAsItWas) {
  const Tensor x = leaf({1, 1}, {2}), upstream = Tensor::from(std::vector<float>{5, 7}, {2});
  const Tensor b = twice(x), c = twice(b);
  const Tensor sum = differentiable(b.clone(), {b, c}, [](std::span<const Tensor> g) {
    return std::vector<Tensor>{g[0], g[0]};
  });
  backward(differentiable(Tensor::scalar(0), {sum},
                          [&](std::span<const Tensor>) { return std::vector<Tensor>{upstream}; }));
  EXPECT_EQ(upstream.to_vector<float>(), (std::vector<float>{5, 7}));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{30, 42}));  // 2 (1 + 2) upstream
}

/// A loss whose gradient in each of `inputs` is `g`.
Tensor loss_with(std::vector<Tensor> inputs, const Tensor& g) {
  const std::size_t count = inputs.size();
  return differentiable(Tensor::scalar(0), std::move(inputs), [g, count](std::span<const Tensor>) {
    return std::vector<Tensor>(count, g);
  });
}

TEST(Autograd, GradientsOfBf16TensorsAreBf16AndAdd) {
  Tensor x = Tensor::full({3}, 1, DType::bf16);
  x.set_requires_grad(true);
  const Tensor y = x.to(DType::f32), g = Tensor::full({3}, 1.5F, DType::bf16);
  backward(loss_with({x, x}, g));
  backward(loss_with({y}, Tensor::full({3}, 2)));  // rounded on its way back
  EXPECT_EQ(x.grad().dtype(), DType::bf16);
  EXPECT_EQ(x.grad().to(DType::f32).to_vector<float>(), (std::vector<float>{5, 5, 5}));
}

TEST(Autograd, AGradientOfAnotherTypeThanItsTensorIsRefused) {
  const Tensor x = leaf({1}, {1});
  EXPECT_THROW(backward(loss_with({x.to(DType::bf16)}, Tensor::full({1}, 1))), Error);
  EXPECT_THROW(backward(loss_with({x}, Tensor::full({1}, 1, DType::bf16))), Error);
}

TEST(Autograd, FreesAsItGoesAndRefusesASecondBackward) {
  const Tensor x = leaf({1}, {1});
  auto alive = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = alive;
  const Tensor y = differentiable(
      x.clone(), {x}, [alive](std::span<const Tensor> g) { return std::vector<Tensor>{g[0]}; });
  alive.reset();
  backward(y);
  EXPECT_TRUE(watch.expired());
  EXPECT_THROW(backward(y), Error);
}

TEST(Autograd, ChangedSavedTensorThrows) {
  const Tensor x = leaf({1}, {1});
  const Saved saved(x);
  fill(x, 2);
  EXPECT_THROW((void)saved.get(), Error);
}

TEST(Autograd, NothingIsRecordedUnderNoGrad) {
  const Tensor x = leaf({1}, {1});
  const NoGrad off;
  EXPECT_FALSE(twice(x).requires_grad());
}

TEST(Autograd, LongTapesDoNotOverflowTheStack) {
  const Tensor x = leaf({1}, {1});
  Tensor y = x;
  for (int i = 0; i < 100000; ++i) {
    y = differentiable(y.clone(), {y},
                       [](std::span<const Tensor> g) { return std::vector<Tensor>{g[0]}; });
  }
  backward(y);
  EXPECT_EQ(x.grad().to_vector<float>(), std::vector<float>{1});
  y = Tensor();  // freeing the tape must not recurse either
}

TEST(Autograd, GradientsPassThroughViews) {
  const Tensor x = leaf({0, 1, 2, 3, 4, 5}, {2, 3});
  const Tensor y = x.transpose(0, 1).slice(0, 1, 3);  // (2, 2)
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 4, 2, 5}));
  const Tensor picked = y.slice(0, 1, 2).slice(1, 1, 2).reshape({1});
  backward(picked);
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{0, 0, 0, 0, 0, 1}));
}

}  // namespace
}  // namespace tessera
