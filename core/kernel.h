// The typed table of a kernel: one function pointer for each device, filled at compile time.
#pragma once

#include <optional>
#include <type_traits>

#include "core/device.h"
#include "core/view.h"

namespace tessera {

namespace detail {
/// Throws Error(usage): "<name>: this build has no kernel for device <device>". Out of line, so
/// that no fmt gets here.
[[noreturn]] void throw_no_kernel(const char* kernel, Device device);
/// Throws Error(usage): "<name>: argument 2 lies on cpu, the kernel runs on simt".
[[noreturn]] void throw_elsewhere(const char* kernel, int argument, Device lies, Device runs);
}  // namespace detail

template <class Signature>
struct Kernel;

namespace detail {
/// What the table takes for a view: any view of these elements, with its device where it came from
/// a tensor.
template <class T, int R>
struct GivenView {
  View<T, R> view;
  std::optional<Device> device{};

  template <class U>
  requires(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>)
      GivenView(const View<U, R>& v)  // NOLINT: stands for it
      : view(v) {}
  template <class U>
  requires(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>)
      GivenView(const PlacedView<U, R>& v)  // NOLINT: stands for it
      : view(v), device(v.device) {}
};

template <class T>
struct Parameter {
  using type = T;
};
template <class T, int R>
struct Parameter<View<T, R>> {
  using type = GivenView<T, R>;
};

template <class T>
void check_place(const char* /*kernel*/, int /*argument*/, Device /*runs*/, const T& /*value*/) {}
/// A view without elements may lie anywhere: nothing reads it.
template <class T, int R>
void check_place(const char* kernel, int argument, Device runs, const GivenView<T, R>& value) {
  if (value.device && *value.device != runs && value.view.size() > 0) {
    throw_elsewhere(kernel, argument, *value.device, runs);
  }
}

template <class T>
const T& in_stream(Device /*device*/, const T& value) {
  return value;
}
template <class T, int R>
const View<T, R>& in_stream(Device /*device*/, const GivenView<T, R>& value) {
  return value.view;
}
inline Stream in_stream(Device device, Stream stream) {
  return stream.handle != nullptr ? stream : current_stream(device);
}
}  // namespace detail

/// kernel(device, args...) calls the slot of the device; Stream{} becomes the current stream of the
/// thread. Throws Error(usage) where the build has no such slot, and where a tensor's view lies on
/// another device. Pointers inside other arguments are not checked: the op that fills them calls
/// check_same_device().
template <class... Args>
struct Kernel<void(Args...)> {
  const char* name;
  void (*cpu)(Args...);
  void (*cuda)(Args...);
  void (*simt)(Args...);

  void operator()(Device device, typename detail::Parameter<Args>::type... args) const {
    auto* slot = device.type == DeviceType::cpu    ? cpu
                 : device.type == DeviceType::cuda ? cuda
                                                   : simt;
    if (slot == nullptr) {
      detail::throw_no_kernel(name, device);
    }
    int argument = 0;
    (detail::check_place(name, ++argument, device, args), ...);
    slot(detail::in_stream(device, args)...);
  }
};

}  // namespace tessera

/// In x.h: declares `name` in the namespaces cpu, cu and simt. The CUDA namespace is `cu`, since
/// tessera::cuda would hide CCCL's ::cuda.
#define TESSERA_DECLARE_KERNEL(name, ...)        \
  namespace cpu {                                \
  ::tessera::detail::Identity<__VA_ARGS__> name; \
  }                                              \
  TESSERA_DECLARE_DEVICE_KERNEL(name, __VA_ARGS__)

/// The same for a kernel that devices alone have; the cpu does that work by other means.
#define TESSERA_DECLARE_DEVICE_KERNEL(name, ...) \
  namespace cu {                                 \
  ::tessera::detail::Identity<__VA_ARGS__> name; \
  }                                              \
  namespace simt {                               \
  ::tessera::detail::Identity<__VA_ARGS__> name; \
  }                                              \
  using name##_signature = ::tessera::detail::Identity<__VA_ARGS__>

namespace tessera::detail {
template <class T>
using Identity = T;
}  // namespace tessera::detail

#ifdef TESSERA_HAS_CUDA_SLOT
#define TESSERA_CUDA_SLOT(name) &cu::name
#else
#define TESSERA_CUDA_SLOT(name) nullptr
#endif
#ifdef TESSERA_HAS_SIMT_SLOT
#define TESSERA_SIMT_SLOT(name) &simt::name
#else
#define TESSERA_SIMT_SLOT(name) nullptr
#endif

/// In x.cpp: the table of `name`. A slot is null where its device is not built, and that of the cpu
/// in the second form.
#define TESSERA_KERNEL(name)                                            \
  ::tessera::Kernel<name##_signature> {                                 \
#name, &cpu::name, TESSERA_CUDA_SLOT(name), TESSERA_SIMT_SLOT(name) \
  }
#define TESSERA_DEVICE_KERNEL(name)                                  \
  ::tessera::Kernel<name##_signature> {                              \
#name, nullptr, TESSERA_CUDA_SLOT(name), TESSERA_SIMT_SLOT(name) \
  }
