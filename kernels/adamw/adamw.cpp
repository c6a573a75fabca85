#include "kernels/adamw/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace tessera {
namespace {
constexpr Kernel<squared_norm_signature> kNorm{"squared_norm", &cpu::squared_norm, nullptr,
                                               nullptr};
constexpr auto kUpdate = TESSERA_KERNEL(adamw_update);
// The cpu adds squares in double.
constexpr Kernel<squared_norm_blocks_signature> kNormBlocks{"squared_norm_blocks", nullptr,
                                                            TESSERA_CUDA_SLOT(squared_norm_blocks),
                                                            TESSERA_SIMT_SLOT(squared_norm_blocks)};

double squared_norm_of(const Tensor& x) {
  double square = 0;
  if (x.device() == kCpu) {
    kNorm(kCpu, x.view<const float, 1>(), &square, Stream{});
    return square;
  }
  const std::int64_t blocks = chunk_count(x.size(), kSquaredNormBlock);
  const Tensor parts = Tensor::empty({2, blocks}, DType::f32, x.device());
  kNormBlocks(x.device(), x.view<const float, 1>(), parts.view<float, 2>(), Stream{});
  const std::vector<float> part = parts.to_vector<float>();
  for (std::size_t b = 0; b < part.size() / 2; ++b) {
    const auto power = static_cast<double>(part[part.size() / 2 + b]);
    square += static_cast<double>(part[b]) / (power * power);
  }
  return square;
}
}  // namespace

double adamw_step(const Tensor& parameters, const Tensor& gradients, const Tensor& m,
                  const Tensor& v, std::span<const AdamWSpan> spans, const AdamWOptions& o) {
  const Device device = parameters.device();
  const double norm = std::sqrt(squared_norm_of(gradients));
  TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(norm),
                     "adamw: the gradient norm is {} at step {}", norm, o.step);
  const double clip =
      o.clip_norm > 0 ? std::min(1.0, static_cast<double>(o.clip_norm) / (norm + 1e-6)) : 1.0;
  const double correct1 = 1 - std::pow(static_cast<double>(o.beta1), static_cast<double>(o.step));
  const double correct2 = 1 - std::pow(static_cast<double>(o.beta2), static_cast<double>(o.step));
  for (const AdamWSpan& s : spans) {
    const float lr = o.lr * s.lr_scale;
    const AdamWUpdate update{.clip = static_cast<float>(clip),
                             .decay = 1.0F - lr * o.weight_decay * s.weight_decay_scale,
                             .beta1 = o.beta1,
                             .beta2 = o.beta2,
                             .step_size = static_cast<float>(static_cast<double>(lr) / correct1),
                             .root_correction = static_cast<float>(1 / std::sqrt(correct2)),
                             .eps = o.eps};
    const auto piece = [&](const Tensor& t) { return t.detach().slice(0, s.begin, s.end); };
    kUpdate(device, piece(parameters).view<float, 1>(), piece(gradients).view<const float, 1>(),
            piece(m).view<float, 1>(), piece(v).view<float, 1>(), update, Stream{});
  }
  for (const Tensor* t : {&parameters, &m, &v}) {
    t->bump_version();
  }
  return norm;
}

}  // namespace tessera
