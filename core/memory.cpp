#include "core/memory.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/graph_memory.h"
#include "core/memory_types.h"
#include "core/parallel.h"
#include "core/staging.h"
#include "core/tensor.h"
#include "core/vector_loops.h"

namespace tessera {
namespace {

// The cpu has its own loops below.
constexpr auto kFill = TESSERA_DEVICE_KERNEL(fill_elements);
constexpr auto kCopy = TESSERA_DEVICE_KERNEL(copy_elements);
constexpr auto kAdd = TESSERA_DEVICE_KERNEL(add_elements);
constexpr auto kAddBf16 = TESSERA_DEVICE_KERNEL(add_elements_bf16);
constexpr auto kRound = TESSERA_DEVICE_KERNEL(round_elements);
constexpr auto kWiden = TESSERA_DEVICE_KERNEL(widen_elements);

constexpr std::int64_t kChunk = 1 << 16;  // elements: below it a second thread does not pay

bool on_cpu(const Tensor& t) { return t.device().type == DeviceType::cpu; }

// Calls f with a null pointer of the element type, so that one body serves every dtype.
template <class F>
void with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::f32:
      f(static_cast<float*>(nullptr));
      return;
    case DType::f64:
      f(static_cast<double*>(nullptr));
      return;
    case DType::bf16:
      f(static_cast<bf16*>(nullptr));
      return;
    case DType::i32:
      f(static_cast<std::int32_t*>(nullptr));
      return;
    case DType::i64:
      f(static_cast<std::int64_t*>(nullptr));
      return;
    case DType::u8:
      f(static_cast<std::uint8_t*>(nullptr));
      return;
  }
}

template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<From, To>) {
    return x;
  } else if constexpr (std::is_same_v<From, bf16>) {
    return convert<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bf16>) {
    return bf16(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class T>
T* data_of(const Tensor& t) {
  return reinterpret_cast<T*>(t.impl()->storage->data()) + t.impl()->offset;
}

std::byte* bytes_of(const Tensor& t) {
  return t.impl()->storage->data() +
         static_cast<std::size_t>(t.impl()->offset) * size_of(t.dtype());
}

// f(first byte, bytes) for pieces of a run, shared among the threads.
template <class F>
void for_pieces(std::size_t bytes, F f) {
  constexpr std::size_t kPiece = kChunk * sizeof(float);
  parallel_for(chunk_count(static_cast<std::int64_t>(bytes), kPiece), [&](std::int64_t c) {
    const std::size_t begin = static_cast<std::size_t>(c) * kPiece;
    f(begin, std::min(kPiece, bytes - begin));
  });
}

// Visits the innermost rows of two equally shaped strided tensors: f(target offset, source offset).
template <class F>
void for_each_row(const Shape& shape, const Shape& target, const Shape& source, F f) {
  const int outer = shape.rank() - 1;
  std::int64_t rows = 1;
  for (int i = 0; i < outer; ++i) {
    rows *= shape[i];
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t rest = r, t = 0, s = 0;
    for (int i = outer - 1; i >= 0; --i) {
      const std::int64_t index = rest % shape[i];
      rest /= shape[i];
      t += index * target[i];
      s += index * source[i];
    }
    f(t, s);
  }
}

template <class To, class From>
void copy_typed(const Tensor& target, const Tensor& source) {
  To* to = data_of<To>(target);
  const From* from = data_of<From>(source);
  if (target.rank() == 0) {
    *to = convert<To>(*from);
    return;
  }
  const std::int64_t n = target.shape(-1), ts = target.strides()[-1], ss = source.strides()[-1];
  for_each_row(target.shape(), target.strides(), source.strides(),
               [&](std::int64_t t, std::int64_t s) {
                 if (std::is_same_v<To, From> && ts == 1 && ss == 1) {
                   std::memcpy(to + t, from + s, static_cast<std::size_t>(n) * sizeof(To));
                   return;
                 }
                 for (std::int64_t i = 0; i < n; ++i) {
                   to[t + i * ts] = convert<To>(from[s + i * ss]);
                 }
               });
}

void copy_cpu(const Tensor& target, const Tensor& source) {
  const bool plain =
      target.dtype() == source.dtype() && target.is_contiguous() && source.is_contiguous();
  if (plain) {
    const auto bytes = static_cast<std::size_t>(target.size()) * size_of(target.dtype());
    for_pieces(bytes, [&](std::size_t begin, std::size_t size) {
      std::memcpy(bytes_of(target) + begin, bytes_of(source) + begin, size);
    });
    return;
  }
  with_type(target.dtype(), [&](auto* t) {
    with_type(source.dtype(), [&](auto* s) {
      copy_typed<std::remove_pointer_t<decltype(t)>, std::remove_pointer_t<decltype(s)>>(target,
                                                                                         source);
    });
  });
}

// From the first to one past the last element of a tensor with non-negative strides, in elements.
std::int64_t extent(const Tensor& t) {
  std::int64_t last = 0;
  for (int i = 0; i < t.rank(); ++i) {
    last += (t.shape(i) - 1) * t.strides()[i];
  }
  return t.size() == 0 ? 0 : last + 1;
}

// Without gaps a single axis: the walk divides at every other one.
StridedWalk walk_of(const Tensor& target, const Tensor& source) {
  static_assert(StridedWalk::kRank == kMaxRank);
  if (target.is_contiguous() && source.is_contiguous()) {
    const std::int64_t n = target.size();
    return {.rank = 1, .size = n, .shape = {n}, .target = {1}, .source = {1}};
  }
  StridedWalk w{
      .rank = target.rank(), .size = target.size(), .shape = {}, .target = {}, .source = {}};
  for (int i = 0; i < w.rank; ++i) {
    w.shape[i] = target.shape(i);
    w.target[i] = target.strides()[i];
    w.source[i] = source.strides()[i];
  }
  return w;
}

/// The bits of a value, in the lower bytes.
std::uint64_t bits_of(float value, DType dtype) {
  std::uint64_t bits = 0;
  with_type(dtype, [&](auto* t) {
    const auto x = convert<std::remove_pointer_t<decltype(t)>>(value);
    std::memcpy(&bits, &x, sizeof(x));
  });
  return bits;
}

int width_of(const Tensor& t) { return static_cast<int>(size_of(t.dtype())); }

// From one element type to another where the tensors lie; false where no device kernel does that.
bool convert_on_device(const Tensor& target, const Tensor& source) {
  if (target.device() != source.device()) {
    return false;
  }
  if (target.dtype() == DType::bf16 && source.dtype() == DType::f32) {
    kRound(target.device(), data_of<bf16>(target), data_of<float>(source), walk_of(target, source),
           Stream{});
    return true;
  }
  if (target.dtype() == DType::f32 && source.dtype() == DType::bf16) {
    kWiden(target.device(), data_of<float>(target), data_of<bf16>(source), walk_of(target, source),
           Stream{});
    return true;
  }
  return false;
}

// A change of device, or of type but for f32 and bf16, goes through the host, and so do single
// bytes, for which the executor keeps no shadow of their own: correct, slow, only at the edges of a
// run. The image has the strides of the tensor, so that gaps survive a round trip.
Tensor host_image(const Tensor& t) {
  const Tensor flat = Tensor::empty({extent(t)}, t.dtype());
  copy_bytes(flat.impl()->storage->data() +
                 static_cast<std::size_t>(flat.impl()->offset) * size_of(t.dtype()),
             kCpu, bytes_of(t), t.device(),
             static_cast<std::size_t>(extent(t)) * size_of(t.dtype()));
  auto impl = std::make_shared<TensorImpl>(*flat.impl());
  impl->shape = t.shape();
  impl->strides = t.strides();
  return Tensor(std::move(impl));
}

void copy_back(const Tensor& target, const Tensor& image) {
  copy_bytes(bytes_of(target), target.device(), bytes_of(image), kCpu,
             static_cast<std::size_t>(extent(target)) * size_of(target.dtype()));
}

}  // namespace

void copy_bytes(void* target, Device target_device, const void* source, Device source_device,
                std::size_t bytes) {
  if (bytes == 0) {
    return;
  }
  if (target_device == kCpu && source_device == kCpu) {
    std::memcpy(target, source, bytes);
  } else if (source_device == kCpu) {
    upload(target_device, target, source, bytes);
  } else {
    const Stream stream = current_stream(source_device);
    if (target_device == kCpu) {
      refuse_in_capture(source_device, "a read of the device");
    }
    queue_copy(source_device, stream, target, source, bytes);
    if (target_device == kCpu) {
      wait_for(source_device, stream);
    }
  }
}

void copy_into(const Tensor& target, const Tensor& source) {
  TESSERA_CHECK(target.shape() == source.shape(), "copy_into: target is {}, source is {}",
                target.shape(), source.shape());
  if (target.size() > 0) {
    if (on_cpu(target) && on_cpu(source)) {
      copy_cpu(target, source);
    } else if (target.device() == source.device() && target.dtype() == source.dtype() &&
               width_of(target) > 1) {
      kCopy(target.device(), bytes_of(target), bytes_of(source), width_of(target),
            walk_of(target, source), Stream{});
    } else if (target.dtype() == source.dtype() && target.is_contiguous() &&
               source.is_contiguous() && (on_cpu(target) || on_cpu(source))) {
      copy_bytes(bytes_of(target), target.device(), bytes_of(source), source.device(),
                 static_cast<std::size_t>(target.size()) * size_of(target.dtype()));
    } else if (!convert_on_device(target, source)) {
      const Tensor from = on_cpu(source) ? source : host_image(source);
      const Tensor to = on_cpu(target) ? target : host_image(target);
      copy_cpu(to, from);
      if (!on_cpu(target)) {
        copy_back(target, to);
      }
    }
  }
  target.bump_version();
}

void fill(const Tensor& target, float value) {
  target.bump_version();
  if (target.size() == 0) {
    return;
  }
  if (!on_cpu(target) && width_of(target) == 1) {
    const Tensor image = host_image(target);
    fill(image, value);
    copy_back(target, image);
  } else if (!on_cpu(target)) {
    kFill(target.device(), bytes_of(target), width_of(target), walk_of(target, target),
          bits_of(value, target.dtype()), Stream{});
  } else if (value == 0.0F && !std::signbit(value) && target.is_contiguous()) {
    // zero is all zero bits in every dtype
    const auto bytes = static_cast<std::size_t>(target.size()) * size_of(target.dtype());
    for_pieces(bytes, [&](std::size_t begin, std::size_t size) {
      std::memset(bytes_of(target) + begin, 0, size);
    });
  } else {
    with_type(target.dtype(), [&](auto* t) {
      using T = std::remove_pointer_t<decltype(t)>;
      T* data = data_of<T>(target);
      const T x = convert<T>(value);
      const Shape one = target.rank() == 0 ? Shape{1} : target.shape();
      const Shape strides = target.rank() == 0 ? Shape{1} : target.strides();
      const std::int64_t n = one[-1], step = strides[-1];
      for_each_row(one, strides, strides, [&](std::int64_t offset, std::int64_t) {
        for (std::int64_t i = 0; i < n; ++i) {
          data[offset + i * step] = x;
        }
      });
    });
  }
}

void fill(const Tensor& target, const Tensor& value) {
  TESSERA_CHECK(value.size() == 1 && value.dtype() == target.dtype() &&
                    value.device() == target.device() && width_of(value) > 1,
                "fill: expected one {} on {}, got {} of shape {} on {}", name(target.dtype()),
                name(target.device().type), name(value.dtype()), value.shape(),
                name(value.device().type));
  if (on_cpu(target)) {
    fill(target, value.to(DType::f32).item());
    return;
  }
  target.bump_version();
  if (target.size() > 0) {
    StridedWalk walk = walk_of(target, target);
    std::ranges::fill(walk.source, 0);
    kCopy(target.device(), bytes_of(target), bytes_of(value), width_of(target), walk, Stream{});
  }
}

namespace {

void add_on_device(const Tensor& target, const Tensor& from) {
  const StridedWalk walk = walk_of(target, from);
  if (target.dtype() == DType::bf16) {
    kAddBf16(target.device(), data_of<bf16>(target), data_of<bf16>(from), walk, Stream{});
  } else {
    kAdd(target.device(), data_of<float>(target), data_of<float>(from), walk, Stream{});
  }
}

template <class T>
void add_on_cpu(const Tensor& target, const Tensor& source) {
  const bool scalar = target.rank() == 0;
  const Shape shape = scalar ? Shape{1} : target.shape();
  const Shape to = scalar ? Shape{1} : target.strides(), from = scalar ? to : source.strides();
  T* t = data_of<T>(target);
  const T* s = data_of<T>(source);
  for_each_row(shape, to, from, [&](std::int64_t at, std::int64_t with) {
    for (std::int64_t i = 0; i < shape[-1]; ++i) {
      T& sum = t[at + i * to[-1]];
      sum = T(static_cast<float>(sum) + static_cast<float>(s[with + i * from[-1]]));
    }
  });
}

}  // namespace

void accumulate(const Tensor& target, const Tensor& source) {
  TESSERA_CHECK(target.shape() == source.shape() && target.dtype() == source.dtype() &&
                    (target.dtype() == DType::f32 || target.dtype() == DType::bf16),
                "accumulate: target is {} {}, source is {} {}", name(target.dtype()),
                target.shape(), name(source.dtype()), source.shape());
  check_same_device("accumulate", {&target, &source});
  if (!on_cpu(target)) {
    if (target.size() > 0) {
      add_on_device(target, source);
    }
  } else if (target.dtype() == DType::f32 && target.is_contiguous()) {
    const Tensor from = source.contiguous();
    float* t = data_of<float>(target);
    const float* s = data_of<float>(from);
    const std::int64_t n = target.size();
    parallel_for(chunk_count(n, kChunk), [&](std::int64_t c) {
      add_run(s + c * kChunk, t + c * kChunk, std::min(n - c * kChunk, kChunk));
    });
  } else if (target.dtype() == DType::f32) {
    add_on_cpu<float>(target, source);
  } else {
    add_on_cpu<bf16>(target, source);
  }
  target.bump_version();
}

}  // namespace tessera
