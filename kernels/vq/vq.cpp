#include "kernels/vq/vq.h"

#include <algorithm>

#include "core/autograd.h"
#include "core/indices.h"
#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

constexpr auto kNearest = TESSERA_KERNEL(vq_nearest);
constexpr auto kPrepare = TESSERA_KERNEL(vq_prepare);
constexpr auto kEffective = TESSERA_KERNEL(vq_effective);
constexpr auto kQuantize = TESSERA_KERNEL(vq_quantize);
constexpr auto kBackward = TESSERA_KERNEL(vq_backward);
constexpr auto kCodebookBackward = TESSERA_KERNEL(vq_codebook_backward);

PlacedView<const float, 2> matrix(const Tensor& t) { return t.view<const float, 2>(); }
PlacedView<const float, 1> vector(const Tensor& t) { return t.view<const float, 1>(); }

Tensor empty_like(const Tensor& t) { return Tensor::empty(t.shape(), DType::f32, t.device()); }

// A gradient as the kernels read it: no elements where nobody asked for it.
Tensor given(const Tensor& gradient, const Shape& shape, const Shape& none, Device device) {
  return gradient.defined() ? gradient.contiguous().reshape(shape)
                            : Tensor::empty(none, DType::f32, device);
}

struct VqBackward {
  Saved z, quantized, codes, codebook, scale;
  VqOptions options;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    const Tensor &x = z.get(), &q = quantized.get();
    const std::int64_t t = x.shape(0), d = x.shape(1);
    const VqSlopes slopes{options.nu, options.beta,
                          2.0F / static_cast<float>(std::max<std::int64_t>(1, t * d))};
    const Tensor dq = given(g[0], {t, d}, {0, d}, x.device());
    const Tensor dloss = given(g[1], {1}, {0}, x.device());
    const Tensor dz = empty_like(x), dcode = empty_like(x);
    kBackward(x.device(), matrix(dq), vector(dloss), matrix(x), matrix(q), slopes,
              dz.view<float, 2>(), dcode.view<float, 2>(), Stream{});
    const Tensor sums =
        sum_by_key(dcode, rows_by_key(codes.get(), codebook.get().shape(0)));  // G (K, D)
    return with_codebook_gradients(dz, sums);
  }

 private:
  std::vector<Tensor> with_codebook_gradients(const Tensor& dz, const Tensor& sums) const {
    const Tensor de = empty_like(sums), ds = empty_like(scale.get()), db = empty_like(scale.get());
    kCodebookBackward(sums.device(), matrix(sums), matrix(codebook.get()), vector(scale.get()),
                      options.affine_lr, de.view<float, 2>(), ds.view<float, 1>(),
                      db.view<float, 1>(), Stream{});
    return {dz, de, ds, db};
  }
};

Tensor nearest(const Tensor& z, const Tensor& codebook) {
  const std::int64_t k = codebook.shape(0), d = codebook.shape(1);
  const Device device = z.device();
  const Tensor codes_t = Tensor::empty({d, k}, DType::f32, device);
  const Tensor half_norm = Tensor::empty({k}, DType::f32, device);
  kPrepare(device, matrix(codebook), codes_t.view<float, 2>(), half_norm.view<float, 1>(),
           Stream{});
  Tensor codes = Tensor::empty({z.shape(0)}, DType::i32, device);
  const std::int64_t words = device == kCpu ? 0 : VqScratch(z.shape(0), k, d).size;
  const Tensor scratch = Tensor::empty({words}, DType::i32, device);
  kNearest(device, matrix(z), matrix(codes_t), vector(half_norm), codes.view<std::int32_t, 1>(),
           scratch.view<std::int32_t, 1>(), Stream{});
  return codes;
}

Tensor nearest_half(const Tensor& z, const Tensor& codebook) {
  Tensor codes = Tensor::empty({z.shape(0)}, DType::i32);
  cpu::vq_nearest_half(matrix(z), matrix(codebook), codes.view<std::int32_t, 1>());
  return codes;
}

}  // namespace

Tensor vq_effective_codebook(const Tensor& codebook0, const Tensor& scale, const Tensor& bias,
                             float affine_lr) {
  const std::int64_t d = codebook0.shape(1);
  TESSERA_CHECK(scale.shape() == Shape{d} && bias.shape() == Shape{d},
                "vq: affine scale and bias must be ({}), got {} and {}", d, scale.shape(),
                bias.shape());
  check_same_device("vq", {&codebook0, &scale, &bias});
  const Tensor codebook = codebook0.detach().contiguous();
  Tensor e = empty_like(codebook);
  kEffective(e.device(), matrix(codebook), vector(scale.detach().contiguous()),
             vector(bias.detach().contiguous()), affine_lr, e.view<float, 2>(), Stream{});
  return e;
}

Tensor vq_assign(const Tensor& z, const Tensor& codebook, VqDistance distance) {
  TESSERA_CHECK(z.rank() == 2 && codebook.rank() == 2 && z.shape(1) == codebook.shape(1) &&
                    codebook.shape(0) > 0,
                "vq: z must be (T, D) and the codebook (K, D), got {} and {}", z.shape(),
                codebook.shape());
  check_same_device("vq", {&z, &codebook});
  check_vq_distance(distance, z.device());
  const NoGrad off;
  const auto search = distance == VqDistance::f16 ? nearest_half : nearest;
  Tensor codes = search(z.contiguous(), codebook.contiguous());
  mark_indices(codes, 0, static_cast<std::int32_t>(codebook.shape(0) - 1));
  return codes;
}

Tensor vq_lookup(const Tensor& codes, const Tensor& codebook) {
  const NoGrad off;
  return gather_rows(codebook, codes);
}

VqResult vector_quantize(const Tensor& z0, const Tensor& codebook0, const Tensor& scale0,
                         const Tensor& bias0, const VqOptions& options) {
  const Tensor z = z0.detach().contiguous(), codebook = codebook0.detach().contiguous();
  const Tensor scale = scale0.detach().contiguous();
  const Tensor effective = vq_effective_codebook(codebook, scale, bias0, options.affine_lr);
  const Tensor codes = vq_assign(z, effective, options.distance), quantized = empty_like(z);
  const Tensor partials = Tensor::empty({chunk_count(z.size(), kVqBlock)}, DType::f32, z.device());
  kQuantize(z.device(), matrix(z), codes.view<const std::int32_t, 1>(), matrix(effective),
            quantized.view<float, 2>(), partials.view<float, 1>(), Stream{});
  const auto elements = static_cast<float>(std::max<std::int64_t>(1, z.size()));
  const Tensor loss = tessera::scale(sum(partials), 1.0F / elements);
  const VqBackward backward{Saved(z),        Saved(quantized), Saved(codes),
                            Saved(codebook), Saved(scale),     options};
  const std::vector<Tensor> outputs = differentiable(std::vector<Tensor>{quantized, loss},
                                                     {z0, codebook0, scale0, bias0}, backward);
  return {outputs[0], codes, outputs[1]};
}

}  // namespace tessera
