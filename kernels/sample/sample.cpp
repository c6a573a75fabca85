#include "kernels/sample/sample.h"

#include <cmath>

namespace tessera {
namespace {

constexpr auto kSample = TESSERA_KERNEL(sample_rows);

void check_options(const SampleOptions& o) {
  TESSERA_CHECK(o.temperature >= 0 && std::isfinite(o.temperature),
                "sample: temperature must be finite and at least 0, got {}", o.temperature);
  TESSERA_CHECK(o.top_k >= 0, "sample: top_k must be at least 0, got {}", o.top_k);
  TESSERA_CHECK(o.top_p > 0 && o.top_p <= 1, "sample: top_p must be in (0, 1], got {}", o.top_p);
}

// (V) u8, on `device`.
Tensor exclusion_flags(const std::vector<int>& excluded, std::int64_t classes, Device device) {
  const Tensor host = Tensor::zeros({classes}, DType::u8);
  const std::span<std::uint8_t> flags = host.span<std::uint8_t>();
  for (const int id : excluded) {
    TESSERA_CHECK(id >= 0 && id < classes, "sample: excluded id {} is outside 0..{}", id,
                  classes - 1);
    flags[static_cast<std::size_t>(id)] = 1;
  }
  return host.to(device);
}

void check_drawn(std::span<const std::int32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    TESSERA_CHECK_KIND(ErrorKind::numeric, out[i] >= 0,
                       "sample: row {} has a NaN or infinite logit or no allowed class", i);
  }
}

}  // namespace

Tensor sample(const Tensor& logits, const SampleOptions& options, const Tensor& uniforms) {
  TESSERA_CHECK(logits.rank() == 2, "sample: logits must be (B, V), got {}", logits.shape());
  TESSERA_CHECK(uniforms.shape() == (Shape{logits.shape(0)}),
                "sample: uniforms must be ({}), got {}", logits.shape(0), uniforms.shape());
  check_same_device("sample", {&logits, &uniforms});
  check_options(options);
  const Tensor excluded = exclusion_flags(options.excluded, logits.shape(1), logits.device());
  const Tensor x = logits.detach().contiguous(), u = uniforms.detach().contiguous();
  const Tensor out = Tensor::empty({logits.shape(0)}, DType::i32, logits.device());
  kSample(logits.device(), x.view<const float, 2>(), u.view<const float, 1>(),
          {options.temperature, options.top_k, options.top_p,
           excluded.view<const std::uint8_t, 1>().data},
          out.view<std::int32_t, 1>(), Stream{});
  check_drawn(out.to_vector<std::int32_t>());
  return out;
}

Tensor sample(const Tensor& logits, const SampleOptions& options, std::span<const RngKey> keys) {
  std::vector<float> uniforms;
  for (const RngKey& key : keys) {
    uniforms.push_back(key.uniform(0));
  }
  const Shape shape{static_cast<std::int64_t>(uniforms.size())};
  return sample(logits, options, Tensor::from(uniforms, shape, logits.device()));
}

}  // namespace tessera
