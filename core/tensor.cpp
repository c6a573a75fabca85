#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/autograd.h"
#include "core/indices.h"
#include "core/memory.h"

namespace tessera {
namespace {

const Shape kNoShape;

Tensor make(const Shape& shape, DType dtype, std::shared_ptr<Storage> storage, std::int64_t offset,
            const Shape& strides) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = std::move(storage);
  impl->offset = offset;
  impl->shape = shape;
  impl->strides = strides;
  impl->dtype = dtype;
  return Tensor(std::move(impl));
}

// A view of the same storage, without history.
Tensor alias(const Tensor& t, const Shape& shape, const Shape& strides, std::int64_t extra_offset) {
  return make(shape, t.dtype(), t.impl()->storage, t.impl()->offset + extra_offset, strides);
}

// Whether a view belongs on the tape. Most do not, and a closure that nobody runs would be most of
// their cost.
bool tracked(const Tensor& t) { return grad_enabled() && t.requires_grad(); }

template <class T>
Tensor from_host(std::span<const T> values, const Shape& shape, Device device, const Where& where) {
  TESSERA_CHECK(static_cast<std::int64_t>(values.size()) == shape.size(),
                "Tensor::from: {} values do not fill shape {}", values.size(), shape);
  Tensor t = Tensor::empty(shape, dtype_of<T>, device, where);
  copy_bytes(t.impl()->storage->data(), device, values.data(), kCpu, values.size_bytes());
  return t;
}

int checked_axis(const Tensor& t, int axis, const char* op) {
  const int a = axis < 0 ? axis + t.rank() : axis;
  TESSERA_CHECK(a >= 0 && a < t.rank(), "{}: axis {} is outside shape {}", op, axis, t.shape());
  return a;
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device, const Where& where) {
  std::ptrdiff_t bytes = 0;
  TESSERA_CHECK(!__builtin_mul_overflow(shape.size(), size_of(dtype), &bytes),
                "Tensor: shape {} of {} is beyond any memory", shape, name(dtype));
  return make(shape, dtype,
              std::make_shared<Storage>(static_cast<std::size_t>(bytes), device, where), 0,
              contiguous_strides(shape));
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device, const Where& where) {
  return full(shape, 0.0F, dtype, device, where);
}

Tensor Tensor::full(const Shape& shape, float value, DType dtype, Device device,
                    const Where& where) {
  Tensor t = empty(shape, dtype, device, where);
  fill(t, value);
  return t;
}

Tensor Tensor::from(std::span<const float> values, const Shape& shape, Device device,
                    const Where& where) {
  return from_host(values, shape, device, where);
}
Tensor Tensor::from(std::span<const std::int32_t> values, const Shape& shape, Device device,
                    const Where& where) {
  const Tensor t = from_host(values, shape, device, where);
  if (device != kCpu && !values.empty()) {
    const auto [least, most] = std::ranges::minmax(values);
    mark_indices(t, least, most);
  }
  return t;
}
Tensor Tensor::scalar(float value, Device device, const Where& where) {
  return full(Shape(), value, DType::f32, device, where);
}

const Shape& Tensor::shape() const { return impl_ ? impl_->shape : kNoShape; }
const Shape& Tensor::strides() const { return impl_ ? impl_->strides : kNoShape; }
DType Tensor::dtype() const { return impl_ ? impl_->dtype : DType::f32; }
Device Tensor::device() const { return impl_ ? impl_->storage->device() : kCpu; }
bool Tensor::is_contiguous() const {
  const Shape expected = contiguous_strides(shape());
  for (int i = 0; i < rank(); ++i) {
    if (shape()[i] != 1 && strides()[i] != expected[i]) {
      return false;
    }
  }
  return true;
}
std::uint64_t Tensor::version() const { return impl_->storage->version(); }
void Tensor::bump_version() const { impl_->storage->bump_version(); }

void* Tensor::raw() const {
  return impl_->storage->data() + static_cast<std::size_t>(impl_->offset) * size_of(impl_->dtype);
}

void Tensor::check_view(DType dtype, int rank) const {
  TESSERA_CHECK(defined(), "view: the tensor is undefined");
  TESSERA_CHECK(impl_->dtype == dtype && impl_->shape.rank() == rank,
                "view: expected {} of rank {}, got {} {}", name(dtype), rank, name(impl_->dtype),
                impl_->shape);
  const bool unit = rank == 0 || strides()[-1] == 1 || shape()[-1] <= 1 || size() == 0;
  TESSERA_CHECK(unit, "view: the innermost stride must be 1, got {} of shape {}", strides()[-1],
                shape());
}

void Tensor::check_span(DType dtype) const {
  TESSERA_CHECK(defined() && impl_->dtype == dtype, "span: expected {}, got {}", name(dtype),
                name(this->dtype()));
  TESSERA_CHECK(device() == kCpu, "span: the host cannot read memory of {}; copy it by to()",
                name(device()));
  TESSERA_CHECK(is_contiguous(), "span: the tensor must be contiguous, got strides {} of shape {}",
                strides(), shape());
}

void check_same_device(const char* op, std::initializer_list<const Tensor*> inputs) {
  const Tensor* first = nullptr;
  for (const Tensor* t : inputs) {
    if (!t->defined()) {
      continue;
    }
    first = first == nullptr ? t : first;
    TESSERA_CHECK(t->device() == first->device(),
                  "{}: expected all inputs on one device, got {} and {}", op, name(first->device()),
                  name(t->device()));
  }
}

Tensor Tensor::detach() const { return alias(*this, shape(), strides(), 0); }

Tensor Tensor::reshape(const Shape& to_shape) const {
  TESSERA_CHECK(to_shape.size() == size(), "reshape: {} does not fit {}", to_shape, shape());
  if (!is_contiguous()) {
    return contiguous().reshape(to_shape);
  }
  Tensor view = alias(*this, to_shape, contiguous_strides(to_shape), 0);
  if (!tracked(*this)) {
    return view;
  }
  return differentiable(std::move(view), {*this},
                        [from_shape = shape()](std::span<const Tensor> g) {
                          return std::vector<Tensor>{g[0].reshape(from_shape)};
                        });
}

Tensor Tensor::transpose(int a, int b) const {
  a = checked_axis(*this, a, "transpose");
  b = checked_axis(*this, b, "transpose");
  Shape s = shape();
  Shape st = strides();
  std::swap(s[a], s[b]);
  std::swap(st[a], st[b]);
  Tensor view = alias(*this, s, st, 0);
  if (!tracked(*this)) {
    return view;
  }
  return differentiable(std::move(view), {*this}, [a, b](std::span<const Tensor> g) {
    return std::vector<Tensor>{g[0].transpose(a, b).contiguous()};
  });
}

Tensor Tensor::slice(int axis, std::int64_t begin, std::int64_t end) const {
  axis = checked_axis(*this, axis, "slice");
  TESSERA_CHECK(0 <= begin && begin <= end && end <= shape()[axis],
                "slice: [{}, {}) is outside axis {} of {}", begin, end, axis, shape());
  Shape s = shape();
  s[axis] = end - begin;
  Tensor view = alias(*this, s, strides(), begin * strides()[axis]);
  if (!tracked(*this)) {
    return view;
  }
  const auto backward = [axis, begin, end, whole = shape()](std::span<const Tensor> g) {
    Tensor dx = Tensor::zeros(whole, g[0].dtype(), g[0].device());
    copy_into(dx.slice(axis, begin, end), g[0]);
    return std::vector<Tensor>{dx};
  };
  return differentiable(std::move(view), {*this}, backward);
}

Tensor Tensor::clone(const Where& where) const {
  Tensor t = empty(shape(), dtype(), device(), where);
  copy_into(t, detach());
  if (device() != kCpu && dtype() == DType::i32) {
    copy_marks(t, *this);
  }
  return t;
}

Tensor Tensor::contiguous(const Where& where) const {
  if (is_contiguous()) {
    return *this;
  }
  return differentiable(clone(where), {*this},
                        [](std::span<const Tensor> g) { return std::vector<Tensor>{g[0]}; });
}

Tensor Tensor::to(Device target, const Where& where) const {
  if (device() == target) {
    return *this;
  }
  const Tensor source = contiguous(where);
  Tensor t = empty(shape(), dtype(), target, where);
  copy_bytes(t.raw(), target, source.raw(), device(),
             static_cast<std::size_t>(size()) * size_of(dtype()));
  if (dtype() == DType::i32 && target != kCpu) {
    copy_marks(t, source);
  }
  const Device back = device();
  return differentiable(
      t, {*this}, [back](std::span<const Tensor> g) { return std::vector<Tensor>{g[0].to(back)}; });
}

Tensor Tensor::to(DType target, const Where& where) const {
  if (dtype() == target) {
    return *this;
  }
  Tensor t = empty(shape(), target, device(), where);
  copy_into(t, detach());
  const DType back = dtype();
  return differentiable(
      t, {*this}, [back](std::span<const Tensor> g) { return std::vector<Tensor>{g[0].to(back)}; });
}

float Tensor::item() const {
  TESSERA_CHECK(defined() && size() == 1, "item: expected one element, got {}", shape());
  return to_vector<float>()[0];
}

bool Tensor::requires_grad() const { return impl_ && impl_->requires_grad; }
Tensor& Tensor::set_requires_grad(bool on) {
  TESSERA_CHECK(defined() && !impl_->node, "set_requires_grad: only a leaf can be marked");
  impl_->requires_grad = on;
  return *this;
}
const Tensor& Tensor::grad() const { return impl_->grad; }
void Tensor::set_grad(Tensor grad) const { impl_->grad = std::move(grad); }

}  // namespace tessera
