#include "kernels/losses/losses.h"

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/reduce/reduce.h"
#include "support/golden.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

// Equal logits, gamma 2, weights 10 and 1: 0.25 ln 2 for signal, ten times that for background.
TEST(Losses, FocalHasItsClosedForm) {
  const Tensor logits = Tensor::zeros({2, 2}),
               weight = Tensor::from(std::vector<float>{10, 1}, {2});
  const auto loss =
      focal_loss(logits, Tensor::from(std::vector<std::int32_t>{1, 0}, {2}), weight, 2)
          .to_vector<float>();
  EXPECT_NEAR(loss[0], 0.17329, 1e-5);
  EXPECT_NEAR(loss[1], 1.7329, 1e-4);
}

TEST(Losses, FocalMatchesTheDoubleReference) {
  const std::vector<std::int32_t> y{0, 2, 1, 2};
  const std::vector<float> w{1, 2, 0.5F};
  check_op(
      [&](const auto& x) {
        return focal_loss(x[0], Tensor::from(y, {4}), Tensor::from(w, {3}), 2);
      },
      [&](const std::vector<std::vector<double>>& x) {
        std::vector<double> out;
        for (std::size_t i = 0; i < 4; ++i) {
          double sum = 0;
          for (std::size_t c = 0; c < 3; ++c) sum += std::exp(x[0][3 * i + c]);
          const auto t = static_cast<std::size_t>(y[i]);
          const double p = std::exp(x[0][3 * i + t]) / sum;
          out.push_back(-std::pow(1 - p, 2) * static_cast<double>(w[t]) * std::log(p));
        }
        return out;
      },
      {random({4, 3}, 1)});
}

TEST(Losses, ResidualLossesMatchTheDoubleReference) {
  const Tensor target = random({33}, 3);
  const auto t = doubles(target);
  const auto each = [&](const std::function<double(double)>& f) {
    return [&, f](const std::vector<std::vector<double>>& x) {
      std::vector<double> out;
      for (std::size_t i = 0; i < t.size(); ++i) out.push_back(f(x[0][i] - t[i]));
      return out;
    };
  };
  check_op([&](const auto& x) { return squared_error(x[0], target); },
           each([](double r) { return r * r; }), {random({33}, 2)});
  check_op([&](const auto& x) { return huber_loss(x[0], target, 1); },
           each([](double r) { return std::abs(r) <= 1 ? r * r / 2 : std::abs(r) - 0.5; }),
           {random({33}, 2)});
}

TEST(Losses, RowsMeansAndTheirGradientsAreThoseOfTheGoldenFile) {
  const test::GoldenFile file("losses");
  const Tensor y = Tensor::from(file.ints("in/classes"), {33}),
               w = Tensor::from(std::vector<float>{10, 1}, {2}),
               target = Tensor::from(file.floats("in/target"), {33});
  const auto check = [&](const std::string& name, const char* input, const Shape& shape,
                         const std::function<Tensor(const Tensor&)>& op) {
    Tensor x = Tensor::from(file.floats(input), shape);
    x.set_requires_grad(true);
    const Tensor rows = op(x);
    EXPECT_LE(relative_error(doubles(rows), file.at("out/" + name + ".rows").values), 1e-6) << name;
    const Tensor loss = mean(rows);
    EXPECT_NEAR(static_cast<double>(loss.item()), file.scalar("out/" + name + ".mean.f64"), 1e-5)
        << name;
    backward(loss);
    EXPECT_LE(relative_error(doubles(x.grad()), file.at("grad_in/" + name + ".mean").values), 1e-5)
        << name;
  };
  check("focal", "in/logits", {33, 2}, [&](const Tensor& x) { return focal_loss(x, y, w, 2); });
  check("cross_entropy", "in/logits", {33, 2},
        [&](const Tensor& x) { return cross_entropy(x, y); });
  check("huber", "in/prediction", {33}, [&](const Tensor& x) { return huber_loss(x, target, 1); });
}

TEST(Losses, RejectTargetsOutsideTheClasses) {
  EXPECT_THROW(focal_loss(random({1, 2}, 1), Tensor::from(std::vector<std::int32_t>{2}, {1}),
                          random({2}, 1), 2),
               Error);
}

}  // namespace
}  // namespace tessera
