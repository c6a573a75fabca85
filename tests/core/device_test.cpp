#include "core/device.h"

#include <gtest/gtest.h>

#include "core/memory.h"
#include "core/tensor.h"

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

INSTANTIATE_TEST_SUITE_P(Devices, EveryDevice, ::testing::ValuesIn(devices()),
                         [](const auto& d) { return std::string(name(d.param.type)); });

}  // namespace
}  // namespace tessera
