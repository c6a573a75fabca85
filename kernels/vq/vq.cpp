#include "kernels/vq/vq.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "kernels/gather/gather.h"

namespace tessera {
namespace {

constexpr auto kNearest = TESSERA_KERNEL(vq_nearest);

std::span<float> values(const Tensor& t) { return t.span<float>(); }

double mean_squared_distance(const Tensor& a, const Tensor& b) {
  double total = 0;
  for (std::size_t i = 0; i < values(a).size(); ++i) {
    const double r = static_cast<double>(values(a)[i]) - static_cast<double>(values(b)[i]);
    total += r * r;
  }
  return total / static_cast<double>(std::max<std::size_t>(1, values(a).size()));
}

struct VqBackward {
  Saved z, quantized, codes, codebook, scale;
  VqOptions options;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    const std::int64_t t = z.get().shape(0), d = z.get().shape(1), k = codebook.get().shape(0);
    const Tensor dz = g[0].defined() ? g[0].clone() : Tensor::zeros({t, d});
    const float dloss = g[1].defined() ? g[1].item() : 0.0F;
    const float unit = 2.0F * dloss / static_cast<float>(std::max<std::int64_t>(1, t * d));
    const Tensor sums = Tensor::zeros({k, d});  // G
    const auto code = codes.get().span<const std::int32_t>();
    for (std::int64_t i = 0; i < t; ++i) {
      for (std::int64_t c = 0; c < d; ++c) {
        const auto at = static_cast<std::size_t>(i * d + c);
        const float r = values(z.get())[at] - values(quantized.get())[at];
        float& up = values(dz)[at];
        values(sums)[static_cast<std::size_t>(code[static_cast<std::size_t>(i)] * d + c)] +=
            options.nu * up - options.beta * unit * r;
        up += (1 - options.beta) * unit * r;
      }
    }
    return with_codebook_gradients(dz, sums, k, d);
  }

 private:
  std::vector<Tensor> with_codebook_gradients(const Tensor& dz, const Tensor& sums, std::int64_t k,
                                              std::int64_t d) const {
    const float a = options.affine_lr;
    const Tensor de = Tensor::empty({k, d}), ds = Tensor::zeros({d}), db = Tensor::zeros({d});
    for (std::int64_t row = 0; row < k; ++row) {
      for (std::int64_t c = 0; c < d; ++c) {
        const auto at = static_cast<std::size_t>(row * d + c), column = static_cast<std::size_t>(c);
        const float s = values(sums)[at];
        values(de)[at] = (1 + a * values(scale.get())[column]) * s;
        values(ds)[column] += a * s * values(codebook.get())[at];
        values(db)[column] += a * s;
      }
    }
    return {dz, de, ds, db};
  }
};

}  // namespace

Tensor vq_effective_codebook(const Tensor& codebook, const Tensor& scale, const Tensor& bias,
                             float affine_lr) {
  const std::int64_t k = codebook.shape(0), d = codebook.shape(1);
  TESSERA_CHECK(scale.shape() == Shape{d} && bias.shape() == Shape{d},
                "vq: affine scale and bias must be ({}), got {} and {}", d, scale.shape(),
                bias.shape());
  Tensor e = Tensor::empty({k, d});
  for (std::int64_t row = 0; row < k; ++row) {
    for (std::int64_t c = 0; c < d; ++c) {
      const auto at = static_cast<std::size_t>(row * d + c), column = static_cast<std::size_t>(c);
      values(e)[at] = (1 + affine_lr * values(scale)[column]) * values(codebook)[at] +
                      affine_lr * values(bias)[column];
    }
  }
  return e;
}

Tensor vq_assign(const Tensor& z0, const Tensor& codebook) {
  TESSERA_CHECK(z0.rank() == 2 && codebook.rank() == 2 && z0.shape(1) == codebook.shape(1) &&
                    codebook.shape(0) > 0,
                "vq: z must be (T, D) and the codebook (K, D), got {} and {}", z0.shape(),
                codebook.shape());
  const NoGrad off;
  const Tensor z = z0.contiguous();
  const std::int64_t k = codebook.shape(0), d = codebook.shape(1);
  const Tensor half_norm = Tensor::empty({k});
  for (std::int64_t row = 0; row < k; ++row) {
    float sum = 0;
    for (std::int64_t c = 0; c < d; ++c) {
      const float e = values(codebook)[static_cast<std::size_t>(row * d + c)];
      sum = std::fma(e, e, sum);
    }
    values(half_norm)[static_cast<std::size_t>(row)] = 0.5F * sum;
  }
  Tensor codes = Tensor::empty({z.shape(0)}, DType::i32, z.device());
  kNearest(z.device(), z.view<const float, 2>(),
           codebook.transpose(0, 1).contiguous().view<const float, 2>(),
           half_norm.view<const float, 1>(), codes.view<std::int32_t, 1>(), Stream{});
  return codes;
}

Tensor vq_lookup(const Tensor& codes, const Tensor& codebook) {
  const NoGrad off;
  return gather_rows(codebook, codes);
}

VqResult vector_quantize(const Tensor& z0, const Tensor& codebook, const Tensor& scale,
                         const Tensor& bias, const VqOptions& options) {
  const Tensor z = z0.detach().contiguous();
  const Tensor effective =
      vq_effective_codebook(codebook.detach(), scale.detach(), bias.detach(), options.affine_lr);
  const Tensor codes = vq_assign(z, effective);
  const Tensor quantized = vq_lookup(codes, effective);
  const Tensor loss = Tensor::scalar(static_cast<float>(mean_squared_distance(z, quantized)));
  const VqBackward backward{Saved(z),        Saved(quantized), Saved(codes),
                            Saved(codebook), Saved(scale),     options};
  const std::vector<Tensor> outputs =
      differentiable(std::vector<Tensor>{quantized, loss}, {z0, codebook, scale, bias}, backward);
  return {outputs[0], codes, outputs[1]};
}

}  // namespace tessera
