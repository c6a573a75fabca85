#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace tessera {
namespace {

Tensor counting(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.size()));
  std::iota(values.begin(), values.end(), 0.0F);
  return Tensor::from(values, shape);
}

template <class F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    return e.message();
  }
  return "no error";
}

TEST(Tensor, ArenaTensorsAreReusedAfterReset) {
  StepArena arena;
  const void* first = nullptr;
  for (int step = 0; step < 3; ++step) {
    {
      const ArenaScope scope(arena);
      const Tensor t = Tensor::zeros({1000});
      const void* p = t.span<float>().data();
      EXPECT_TRUE(first == nullptr || first == p);
      first = p;
      EXPECT_THROW(arena.reset(), Error);
    }
    arena.reset();
  }
}

TEST(Tensor, CopiesAliasAndClonesDoNot) {
  const Tensor x = counting({3});
  const Tensor alias = x, copy = x.clone();
  fill(x, 7);
  EXPECT_EQ(alias.to_vector<float>(), (std::vector<float>{7, 7, 7}));
  EXPECT_EQ(copy.to_vector<float>(), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(x.version(), alias.version());
  EXPECT_FALSE(Tensor().defined());
}

TEST(Tensor, StridedViewsReadLikeLoops) {
  for (const std::int64_t rows : {0, 1, 31, 33}) {
    for (const std::int64_t columns : {1, 17, 257}) {
      const Tensor x = counting({rows, columns, 3});
      const Tensor y = x.transpose(0, 1).slice(0, columns / 2, columns).transpose(-1, 1);
      std::vector<float> want;  // (columns - columns / 2, 3, rows)
      for (std::int64_t c = columns / 2; c < columns; ++c) {
        for (std::int64_t k = 0; k < 3; ++k) {
          for (std::int64_t r = 0; r < rows; ++r) {
            want.push_back(static_cast<float>((r * columns + c) * 3 + k));
          }
        }
      }
      EXPECT_EQ(y.to_vector<float>(), want) << rows << " " << columns;
      EXPECT_EQ(y.contiguous().shape(), Shape({columns - columns / 2, 3, rows}));
    }
  }
}

TEST(Tensor, CopyIntoAndAccumulateWriteThroughStrides) {
  const Tensor x = Tensor::zeros({4, 5});
  copy_into(x.slice(1, 1, 3), counting({4, 2}));
  accumulate(x.slice(1, 1, 2), counting({4, 1}));
  EXPECT_EQ(x.to_vector<float>(),
            (std::vector<float>{0, 0, 1, 0, 0, 0, 3, 3, 0, 0, 0, 6, 5, 0, 0, 0, 9, 7, 0, 0}));
}

TEST(Tensor, MistakesNameTheOperationAndBothShapes) {
  const Tensor x = counting({2, 3});
  EXPECT_EQ(message_of([&] { (void)x.reshape({4}); }), "reshape: (4) does not fit (2, 3)");
  EXPECT_EQ(message_of([&] { (void)x.transpose(0, 2); }),
            "transpose: axis 2 is outside shape (2, 3)");
  EXPECT_NE(message_of([&] { (void)x.slice(1, 2, 4); }).find("(2, 3)"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)x.view<float, 3>(); }).find("rank"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)x.view<std::int32_t, 2>(); }).find("f32"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)x.transpose(0, 1).view<float, 2>(); }).find("stride"),
            std::string::npos);
  EXPECT_NE(message_of([&] { copy_into(x, counting({6})); }).find("(6)"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)x.item(); }).find("(2, 3)"), std::string::npos);
  EXPECT_NE(message_of([] { (void)Tensor::from(std::vector<float>{1}, {2}); }), "no error");
}

TEST(Shape, CountsAndPrints) {
  EXPECT_EQ(Shape().size(), 1);
  EXPECT_EQ(Shape({5, 0, 3}).size(), 0);
  EXPECT_EQ(Shape({5, 3}).str(), "(5, 3)");
  EXPECT_EQ(Shape({5, 3})[-1], 3);
  EXPECT_EQ(contiguous_strides({2, 3, 4}), Shape({12, 4, 1}));
  EXPECT_THROW(Shape({-1}), Error);
  EXPECT_THROW(Shape({1, 1, 1, 1, 1, 1, 1}), Error);
}

// Of the two neighbours in bf16 the nearer one, of equal ones that with an even last bit.
std::uint16_t nearest_bf16(float x) {
  const auto low = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
  const auto value = [](std::uint32_t bits) {
    return static_cast<double>(std::bit_cast<float>(bits << 16));
  };
  const double below = std::abs(static_cast<double>(x) - value(low));
  const double above = std::abs(value(low + 1U) - static_cast<double>(x));
  const bool up = above < below || (above == below && (low & 1U) != 0);
  return static_cast<std::uint16_t>(low + (up ? 1 : 0));
}

TEST(Shape, ExtentsBeyondAnyMemoryAreRefusedBeforeTheyOverflow) {
  constexpr std::int64_t big = std::int64_t{1} << 40;
  EXPECT_NE(message_of([&] { (void)Tensor::empty({big, big}); }).find("2^63"), std::string::npos);
  EXPECT_NE(message_of([&] {
              (void)Tensor::zeros({big, big, big, 0});
            }).find("2^63"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              (void)Tensor::empty({0, big, big});
            }).find("2^63"),
            std::string::npos);
  EXPECT_NE(message_of([&] { (void)Tensor::empty({big << 21}, DType::f64); }).find("beyond"),
            std::string::npos);
}

TEST(Bf16, RoundsToNearestEven) {
  for (std::uint32_t bits = 0x00800000; bits < 0x7f000000; bits += 0x1fff) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
      const auto x = std::bit_cast<float>(bits | sign);
      ASSERT_EQ(bf16(x).bits, nearest_bf16(x)) << x;
    }
  }
  EXPECT_EQ(bf16(1.00390625F).bits, 0x3f80);  // halfway, down to even
  EXPECT_EQ(bf16(1.01171875F).bits, 0x3f82);  // halfway, up to even
}

TEST(Bf16, KeepsNansAndInfinities) {
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffU)))));
  EXPECT_EQ(static_cast<float>(bf16(INFINITY)), INFINITY);
  EXPECT_EQ(static_cast<float>(bf16(3.4e38F)), INFINITY);  // above the largest bf16 by half a step
}

TEST(Device, UnknownNamesAreRefusedWithThoseAtHand) {
  EXPECT_EQ(parse_device("cpu"), kCpu);
  EXPECT_NE(message_of([] { (void)parse_device("gpu"); }).find("cpu"), std::string::npos);
}

TEST(Errors, SayWhatWhereAndTheExitCode) {
  try {
    TESSERA_FAIL(ErrorKind::io, "save: {} of {} bytes", 3, 5);
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "save: 3 of 5 bytes");
    EXPECT_EQ(exit_code(e.kind()), 74);
    EXPECT_NE(std::string(e.what()).find("tests/core/tensor_test.cpp:"), std::string::npos)
        << e.what();
    EXPECT_EQ(std::string(e.what()).find("[at /"), std::string::npos) << "a path of this machine";
  }
}

}  // namespace
}  // namespace tessera
