#include "train/inputs.h"

namespace tessera {
namespace {

Tensor table(const std::vector<float>& values, std::int64_t columns) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size()) / columns, columns});
}

}  // namespace

Segments segments_of(const Batch& batch) { return Segments(batch.rows.cu_seqlens); }

Tensor core_features(const Batch& batch) { return table(batch.rows.core, kCoreFeatures); }

Tensor particle_table(const Batch& batch) { return table(batch.rows.particles, kParticleFeatures); }

Tensor four_momenta(const Batch& batch) { return table(batch.rows.four_momenta, 4); }

ParticleFeatures particle_features(const Batch& batch, bool with_context) {
  ParticleFeatures f{
      .segments = segments_of(batch), .core = core_features(batch), .pid = {}, .context = {}};
  f.pid = Tensor::from(batch.rows.pid, {static_cast<std::int64_t>(batch.rows.pid.size())});
  if (with_context) {
    f.context = table(batch.rows.context, kContextFeatures);
  }
  return f;
}

}  // namespace tessera
