// Inputs of one op on different devices: an Error that names the op, before any memory is read.
#include <gtest/gtest.h>

#include <functional>

#include "core/autograd.h"
#include "kernels/adamw/adamw.h"
#include "kernels/attention/attention.h"
#include "kernels/batchnorm/batchnorm.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/losses/losses.h"
#include "kernels/matmul/matmul.h"
#include "kernels/sample/sample.h"
#include "kernels/softmax/softmax.h"
#include "kernels/vq/vq.h"

namespace tessera {
namespace {

/// An op on tensors of these shapes.
struct Op {
  const char* name;
  std::vector<Shape> shapes;
  std::function<void(const std::vector<Tensor>&)> call;
};

const Segments& two() {
  static const Segments s({0, 1, 4});
  return s;
}

std::vector<Op> ops() {
  using T = const std::vector<Tensor>&;
  const Shape rows{4, 8}, row{8};
  return {
      {"add", {rows, rows}, [](T t) { add(t[0], t[1]); }},
      {"mul", {rows, rows}, [](T t) { mul(t[0], t[1]); }},
      {"mul_rows", {rows, row}, [](T t) { mul_rows(t[0], t[1]); }},
      {"add_rows", {rows, row}, [](T t) { add_rows(t[0], t[1]); }},
      {"linear", {rows, {5, 8}, {5}}, [](T t) { linear(t[0], t[1], t[2]); }},
      {"matmul", {rows, {8, 3}}, [](T t) { matmul(t[0], t[1]); }},
      {"layer_norm", {rows, row, row}, [](T t) { layer_norm(t[0], t[1], t[2]); }},
      {"add_layer_norm",
       {rows, rows, row, row},
       [](T t) { add_layer_norm(t[0], t[1], t[2], t[3]); }},
      {"batch_norm", {rows, row, row}, [](T t) { batch_norm(t[0], t[1], t[2]); }},
      {"attention", {{4, 3, 2, 4}, {2, 10}}, [](T t) { attention(t[0], two(), {.bias = t[1]}); }},
      {"cross_attention",
       {{4, 2, 4}, {4, 2, 2, 4}, {2, 10}},
       [](T t) { cross_attention(t[0], t[1], two(), two(), {.bias = t[2]}); }},
      {"linear_cross_entropy",
       {rows, {5, 8}, {5}, {4}},
       [](T t) {
         const Tensor targets = Tensor::zeros({4}, DType::i32, t[0].device());
         linear_cross_entropy(t[0], t[1], t[2], targets, t[3]);
       }},
      {"cross_entropy",
       {rows, {4}},
       [](T t) { cross_entropy(t[0], Tensor::zeros({4}, DType::i32, t[0].device()), t[1]); }},
      {"concat_rows",
       {rows, rows},
       [](T t) {
         concat_rows(std::vector<Tensor>{t[0], t[1]});
       }},
      {"vq", {rows, {6, 8}, row, row}, [](T t) { vector_quantize(t[0], t[1], t[2], t[3], {}); }},
      {"vq", {rows, {6, 8}}, [](T t) { vq_assign(t[0], t[1]); }},
      {"sample", {rows, {4}}, [](T t) { sample(t[0], {}, t[1]); }},
      {"decode_attention",
       {{1, 3, 2, 4}, {3, 2, 4, 6}, {3, 2, 6, 4}},
       [](T t) {
         const std::int32_t slot[] = {0}, position[] = {0};
         decode_attention(t[0], {t[1], t[2]}, slot, position);
       }},
      {"adamw",
       {{40}, {40}, {40}, {40}},
       [](T t) {
         const AdamWSpan whole[] = {{0, 40}};
         adamw_step(t[0], t[1], t[2], t[3], whole, {});
       }},
      {"accumulate", {rows, rows}, [](T t) { accumulate(t[0], t[1]); }},
  };
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    return e.message();
  }
  return "accepted";
}

/// All inputs on `home` but one.
std::vector<Tensor> inputs(const Op& op, Device home, std::size_t stray, Device elsewhere) {
  std::vector<Tensor> t;
  for (std::size_t i = 0; i < op.shapes.size(); ++i) {
    t.push_back(Tensor::full(op.shapes[i], 0.5F, DType::f32, i == stray ? elsewhere : home));
  }
  return t;
}

class MixedDevices : public ::testing::TestWithParam<Device> {};

TEST_P(MixedDevices, AreRefusedByNameWhicheverInputStrays) {
  const Device device = GetParam();
  for (const Op& op : ops()) {
    SCOPED_TRACE(op.name);
    EXPECT_EQ(refusal([&] { op.call(inputs(op, device, 99, kCpu)); }), "accepted");
    for (std::size_t i = 0; i < op.shapes.size(); ++i) {
      for (const auto& [home, elsewhere] : {std::pair{device, kCpu}, std::pair{kCpu, device}}) {
        const std::string line = refusal([&] { op.call(inputs(op, home, i, elsewhere)); });
        EXPECT_TRUE(line.starts_with(op.name)) << "input " << i << ": " << line;
        EXPECT_NE(line.find("expected all inputs on one device, got "), std::string::npos) << line;
      }
    }
  }
}

// What an op forgets to check, the table of its kernel does.
TEST_P(MixedDevices, AreRefusedByTheTableOfAKernel) {
  const Device device = GetParam();
  const Kernel<void(View<const float, 1>, View<float, 1>, Stream)> table{
      "toy", [](View<const float, 1>, View<float, 1>, Stream) { FAIL() << "it ran"; }, nullptr,
      nullptr};
  const Tensor here = Tensor::zeros({3}), there = Tensor::zeros({3}, DType::f32, device);
  EXPECT_EQ(
      refusal([&] { table(kCpu, here.view<const float, 1>(), there.view<float, 1>(), Stream{}); }),
      fmt::format("toy: argument 2 lies on {}, the kernel runs on cpu", name(device)));
  EXPECT_EQ(
      refusal([&] { table(kCpu, there.view<const float, 1>(), here.view<float, 1>(), Stream{}); }),
      fmt::format("toy: argument 1 lies on {}, the kernel runs on cpu", name(device)));
}

TEST_P(MixedDevices, TheHostDoesNotReadADevicesMemory) {
  const Tensor t = Tensor::zeros({3}, DType::f32, GetParam());
  EXPECT_EQ(
      refusal([&] { static_cast<void>(t.span<float>()); }),
      fmt::format("span: the host cannot read memory of {}; copy it by to()", name(GetParam())));
}

TEST_P(MixedDevices, AGradientOfAnotherDeviceIsRefused) {
  Tensor x = Tensor::zeros({3}, DType::f32, GetParam());
  x.set_requires_grad(true);
  const Tensor y = differentiable(
      Tensor::zeros({}, DType::f32, GetParam()), {x},
      [](std::span<const Tensor>) { return std::vector<Tensor>{Tensor::zeros({3})}; });
  EXPECT_THROW(backward(y), Error);
}

std::vector<Device> beside_the_cpu() {
  std::vector<Device> all = devices();
  std::erase(all, kCpu);
  return all;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MixedDevices);
INSTANTIATE_TEST_SUITE_P(Devices, MixedDevices, ::testing::ValuesIn(beside_the_cpu()),
                         [](const auto& d) { return std::string(name(d.param.type)); });

}  // namespace
}  // namespace tessera
