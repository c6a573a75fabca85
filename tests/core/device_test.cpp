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

INSTANTIATE_TEST_SUITE_P(Devices, EveryDevice, ::testing::ValuesIn(devices()),
                         [](const auto& d) { return std::string(name(d.param.type)); });

}  // namespace
}  // namespace tessera
