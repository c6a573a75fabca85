#include "train/inputs.h"

namespace tessera {
namespace {

Tensor table(const std::vector<float>& values, std::int64_t columns, Device device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size()) / columns, columns},
                      device);
}

}  // namespace

Segments segments_of(const Batch& batch) { return Segments(batch.rows.cu_seqlens); }

Tensor core_features(const Batch& batch, Device device) {
  return table(batch.rows.core, kCoreFeatures, device);
}

Tensor particle_table(const Batch& batch, Device device) {
  return table(batch.rows.particles, kParticleFeatures, device);
}

Tensor four_momenta(const Batch& batch, Device device) {
  return table(batch.rows.four_momenta, 4, device);
}

ParticleFeatures particle_features(const Batch& batch, bool with_context, Device device) {
  ParticleFeatures f{.segments = segments_of(batch),
                     .core = core_features(batch, device),
                     .pid = {},
                     .context = {}};
  f.pid_on_host = Tensor::from(batch.rows.pid, {static_cast<std::int64_t>(batch.rows.pid.size())});
  f.pid = f.pid_on_host.to(device);
  if (with_context) {
    f.context = table(batch.rows.context, kContextFeatures, device);
  }
  return f;
}

}  // namespace tessera
