// The typed table of a kernel: one function pointer for each device, filled at compile time.
#pragma once

#include "core/device.h"
#include "core/view.h"

namespace tessera {

namespace detail {
/// Throws Error(usage): "<name>: this build has no kernel for device <device>". Out of line, so
/// that no fmt gets here.
[[noreturn]] void throw_no_kernel(const char* kernel, Device device);
}  // namespace detail

template <class Signature>
struct Kernel;

namespace detail {
template <class T>
const T& in_stream(Device /*device*/, const T& value) {
  return value;
}
inline Stream in_stream(Device device, Stream stream) {
  return stream.handle != nullptr ? stream : current_stream(device);
}
}  // namespace detail

/// kernel(device, args...) calls the slot of the device or throws; Stream{} becomes the current
/// stream of the thread.
template <class... Args>
struct Kernel<void(Args...)> {
  const char* name;
  void (*cpu)(Args...);
  void (*cuda)(Args...);
  void (*simt)(Args...);

  void operator()(Device device, Args... args) const {
    auto* slot = device.type == DeviceType::cpu    ? cpu
                 : device.type == DeviceType::cuda ? cuda
                                                   : simt;
    if (slot == nullptr) {
      detail::throw_no_kernel(name, device);
    }
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
