#include "core/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/memory.h"
#include "core/tensor.h"
#include "tests/core/gpu/functions.h"

namespace tessera {
namespace {

class EveryDevice : public ::testing::TestWithParam<Device> {};

void* data(const Tensor& t) { return t.impl()->storage->data(); }

TEST_P(EveryDevice, CopiesQueuedInOneStreamRunInOrder) {
  const Device device = GetParam();
  std::vector<float> first{1, 2, 3}, second{4, 5, 6}, got(3);
  const Tensor t = Tensor::zeros({3}, DType::f32, device);
  const OwnedStream stream(device);
  stream.copy(data(t), first.data(), 12);
  stream.copy(data(t), second.data(), 12);
  stream.copy(got.data(), data(t), 12);
  stream.synchronize();
  EXPECT_EQ(got, second);
}

TEST_P(EveryDevice, EventOrdersTwoStreams) {
  const Device device = GetParam();
  std::vector<float> values{1, 2, 3}, got(3);
  const Tensor t = Tensor::zeros({3}, DType::f32, device);
  const OwnedStream producer(device), consumer(device);
  const StreamEvent copied(device);
  producer.copy(data(t), values.data(), 12);
  copied.record(producer);
  copied.wait(consumer);
  consumer.copy(got.data(), data(t), 12);
  consumer.synchronize();
  EXPECT_EQ(got, values);
}

TEST_P(EveryDevice, WhatIsLeftInAStreamRunsBeforeItGoes) {
  const Device device = GetParam();
  std::vector<float> values{7};
  const Tensor t = Tensor::zeros({1}, DType::f32, device);
  {
    const OwnedStream stream(device);
    stream.copy(data(t), values.data(), 4);
  }
  EXPECT_EQ(t.item(), 7.0F);
}

Tensor counting(std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = 1.0F + 0.013F * static_cast<float>(i);  // few of them are exact in bf16
  }
  return Tensor::from(v, {n});
}

std::vector<float> bits_of(const Tensor& t) { return t.to(kCpu).to(DType::f32).to_vector<float>(); }

TEST_P(EveryDevice, ConvertsBetweenF32AndBf16WhereTheTensorLies) {
  const Device device = GetParam();
  for (const std::int64_t n : {0, 1, 31, 33, 257, 3000}) {
    const Tensor x = counting(n), expected = x.to(DType::bf16).to(DType::f32);
    const Tensor there = x.to(device);
    const std::uint64_t waits = device_waits();
    const Tensor low = there.to(DType::bf16);
    const Tensor high = low.to(DType::f32);
    EXPECT_EQ(device_waits(), waits) << "a detour over the host";
    EXPECT_EQ(bits_of(low), expected.to_vector<float>());
    EXPECT_EQ(bits_of(high), expected.to_vector<float>());
  }
  const Tensor x = counting(48).reshape({4, 12});
  const Tensor part = x.to(device).slice(1, 3, 8).to(DType::bf16);
  EXPECT_EQ(bits_of(part), x.slice(1, 3, 8).to(DType::bf16).to(DType::f32).to_vector<float>());
}

TEST_P(EveryDevice, AddsBf16InF32AndRoundsOnce) {
  const Device device = GetParam();
  for (const std::int64_t n : {0, 1, 31, 33, 257}) {
    const Tensor a = counting(n).to(DType::bf16), b = counting(n + 7).slice(0, 7, n + 7);
    const auto x = bits_of(a), y = bits_of(b.to(DType::bf16));
    const Tensor sum = a.clone().to(device);
    accumulate(sum, b.to(DType::bf16).to(device));
    const auto got = bits_of(sum);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i], static_cast<float>(bf16(x[i] + y[i]))) << i;
    }
  }
  const Tensor wide = Tensor::zeros({3, 8}, DType::bf16, device);
  accumulate(wide.slice(1, 1, 3), Tensor::full({3, 2}, 2, DType::bf16, device));
  EXPECT_EQ(bits_of(wide.slice(0, 1, 2)), (std::vector<float>{0, 2, 2, 0, 0, 0, 0, 0}));
  EXPECT_THROW(accumulate(wide, Tensor::zeros({3, 8}, DType::f32, device)), Error);
}

constexpr auto kExp = TESSERA_DEVICE_KERNEL(exp_of);

std::vector<float> exp_on(Device device, const std::vector<float>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  const Tensor in = Tensor::from(x, {n}, device), out = Tensor::empty({n}, DType::f32, device);
  kExp(device, in.view<const float, 1>(), out.view<float, 1>(), Stream{});
  return out.to_vector<float>();
}

/// How far y is from exp(x), in units of the last place of a float there.
double ulps(float x, float y) {
  const double exact = std::exp(static_cast<double>(x));
  const double unit = std::ldexp(1.0, std::ilogb(exact) - 23);
  return std::abs(static_cast<double>(y) - exact) / unit;
}

TEST_P(EveryDevice, ExpIsGoodTo2UlpBesideThoseOfTheInstruction) {
  const Device device = GetParam();
  if (device == kCpu) {
    GTEST_SKIP() << "the kernels of the cpu have an exp of their own";
  }
  std::vector<float> x;
  for (int i = 0; i <= 40'000; ++i) {
    x.push_back(-87.3F + 0.0044F * static_cast<float>(i));  // to 88.7
  }
  for (const float near : {0.0F, -0.0F, 1e-40F, -1e-40F, 1e-7F, -1e-7F, 1e-3F, 88.72F, 88.72283F}) {
    x.push_back(near);
  }
  const std::vector<float> y = exp_on(device, x);
  const double most = device.type == DeviceType::simt ? 2 : 4;  // ex2.approx is off by 2 itself
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(ulps(x[i], y[i]), most) << x[i] << " gives " << y[i];
  }
}

TEST_P(EveryDevice, ExpBeyondTheRangeIsZeroOrInfinite) {
  const Device device = GetParam();
  if (device == kCpu) {
    GTEST_SKIP() << "the kernels of the cpu have an exp of their own";
  }
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  const std::vector<float> low{-87.31F, -88, -100, -104, -1e30F, -kInfinite};
  EXPECT_EQ(exp_on(device, low), std::vector<float>(low.size(), 0.0F));
  const std::vector<float> high{88.7229F, 88.75F, 88.8F, 89, 1e4F, 1e30F, kInfinite};
  EXPECT_EQ(exp_on(device, high), std::vector<float>(high.size(), kInfinite));
  EXPECT_TRUE(std::isnan(exp_on(device, {std::nanf("")}).at(0)));
}

TEST(Devices, OfAKindThereIsOneAndTheSecondIsRefused) {
  for (const Device device : devices()) {
    EXPECT_EQ(device.index, 0) << name(device);
    const Device second{device.type, 1};
    try {
      static_cast<void>(Tensor::zeros({1}, DType::f32, second));
      EXPECT_EQ(device, kCpu) << "the second " << name(device.type) << " is the first";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(e.message().find(name(second)), std::string::npos) << e.message();
    }
  }
  for (const char* text : {"cuda:1", "simt:1", "cpu:0"}) {
    EXPECT_THROW(parse_device(text), Error) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EveryDevice, ::testing::ValuesIn(devices()),
                         [](const auto& d) { return std::string(name(d.param.type)); });

}  // namespace
}  // namespace tessera
