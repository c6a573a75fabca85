// Tensor: a cheap handle on a strided array, with its place on the autograd tape.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "core/storage.h"
#include "core/view.h"

namespace tessera {

struct TensorImpl;

/// A handle: copying aliases, clone() copies, a default-constructed one is undefined.
/// Ops are free functions and never write to their inputs.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised memory; cpu tensors come from the step arena inside an ArenaScope.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = kCpu,
                      const Where& where = Where::current());
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = kCpu,
                      const Where& where = Where::current());
  static Tensor full(const Shape& shape, float value, DType dtype = DType::f32,
                     Device device = kCpu, const Where& where = Where::current());
  /// Copies host values. Throws Error(usage) if the count differs from the shape's size.
  static Tensor from(std::span<const float> values, const Shape& shape, Device device = kCpu,
                     const Where& where = Where::current());
  static Tensor from(std::span<const std::int32_t> values, const Shape& shape, Device device = kCpu,
                     const Where& where = Where::current());
  /// One f32 number of rank 0.
  static Tensor scalar(float value, Device device = kCpu, const Where& where = Where::current());

  [[nodiscard]] bool defined() const { return impl_ != nullptr; }
  [[nodiscard]] const Shape& shape() const;
  [[nodiscard]] std::int64_t shape(int axis) const { return shape()[axis]; }
  [[nodiscard]] const Shape& strides() const;
  [[nodiscard]] int rank() const { return shape().rank(); }
  [[nodiscard]] std::int64_t size() const { return shape().size(); }
  [[nodiscard]] DType dtype() const;
  [[nodiscard]] Device device() const;
  [[nodiscard]] bool is_contiguous() const;
  [[nodiscard]] std::uint64_t version() const;
  void bump_version() const;

  // Free views; differentiable (see core/autograd.h).
  [[nodiscard]] Tensor reshape(
      const Shape& shape) const;  ///< one extent may be -1 only via the caller; sizes must agree
  [[nodiscard]] Tensor transpose(int a, int b) const;
  [[nodiscard]] Tensor slice(int axis, std::int64_t begin, std::int64_t end) const;
  // Copies; differentiable.
  [[nodiscard]] Tensor contiguous(const Where& where = Where::current()) const;
  [[nodiscard]] Tensor to(Device device, const Where& where = Where::current()) const;
  [[nodiscard]] Tensor to(DType dtype, const Where& where = Where::current()) const;
  /// A copy without history.
  [[nodiscard]] Tensor clone(const Where& where = Where::current()) const;
  /// The same storage without history.
  [[nodiscard]] Tensor detach() const;

  /// The door to kernels: checks dtype, rank and innermost stride 1. T may be const. What it points
  /// to is the host's to read on cpu alone.
  template <class T, int R>
  [[nodiscard]] PlacedView<T, R> view() const {
    check_view(dtype_of<T>, R);
    PlacedView<T, R> v{};
    v.device = device();
    v.data = static_cast<T*>(raw());
    for (int i = 0; i < R; ++i) {
      v.shape[i] = shape()[i];
      v.stride[i] = strides()[i];
    }
    return v;
  }
  /// Elements of a contiguous cpu tensor.
  template <class T>
  [[nodiscard]] std::span<T> span() const {
    check_span(dtype_of<T>);
    return {static_cast<T*>(raw()), static_cast<std::size_t>(size())};
  }
  /// Host copy of all elements in row-major order, as T.
  template <class T>
  [[nodiscard]] std::vector<T> to_vector() const {
    const Tensor host = detach().to(kCpu).contiguous();
    const auto s = host.span<const T>();
    return {s.begin(), s.end()};
  }
  /// The value of a one-element f32 tensor; waits for the device.
  [[nodiscard]] float item() const;

  // Autograd.
  [[nodiscard]] bool requires_grad() const;
  /// Marks a leaf. Returns *this.
  Tensor& set_requires_grad(bool on);
  /// The gradient of a leaf after backward(); undefined before.
  [[nodiscard]] const Tensor& grad() const;
  void set_grad(Tensor grad) const;

  [[nodiscard]] const std::shared_ptr<TensorImpl>& impl() const { return impl_; }
  explicit Tensor(std::shared_ptr<TensorImpl> impl) : impl_(std::move(impl)) {}

 private:
  [[nodiscard]] void* raw() const;
  void check_view(DType dtype, int rank) const;
  void check_span(DType dtype) const;

  std::shared_ptr<TensorImpl> impl_;
};

struct Node;

/// What a handle points to.
struct TensorImpl {
  std::shared_ptr<Storage> storage;
  std::int64_t offset = 0;  // elements
  Shape shape, strides;
  DType dtype = DType::f32;
  bool requires_grad = false;
  std::shared_ptr<Node> node;  // producer on the tape; null for leaves
  int output = 0;              // which output of the producer
  Tensor grad;
};

/// Throws Error(usage) "<op>: expected all inputs on one device, got cpu and simt" unless those of
/// the inputs that are defined lie on the same one.
void check_same_device(const char* op, std::initializer_list<const Tensor*> inputs);

/// bf16 where no kernel reads it: ops work on such a tensor in f32 and round what they give.
inline bool is_host_bf16(const Tensor& t) { return t.dtype() == DType::bf16 && t.device() == kCpu; }
/// Overwrites `target` with `source` (same shape; dtypes and strides may differ); bumps target's
/// version.
void copy_into(const Tensor& target, const Tensor& source);
/// target += source, elementwise, same shape and dtype, f32 or bf16; bumps target's version.
void accumulate(const Tensor& target, const Tensor& source);
/// Sets every element; bumps the version.
void fill(const Tensor& target, float value);
/// Sets every element to the one of `value`, of the same dtype and device, without reading it.
void fill(const Tensor& target, const Tensor& value);

}  // namespace tessera
