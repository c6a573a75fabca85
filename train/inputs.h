// From a host batch to the tensors that models take, on the device where the model lies.
#pragma once

#include "nn/models/backbone.h"
#include "train/batcher.h"

namespace tessera {

/// Core, particle id and, if asked for, context of every constituent; what Backbone::embed reads.
ParticleFeatures particle_features(const Batch& batch, bool with_context, Device device = kCpu);

/// Transformed core features alone, (T, 3): the tokenizer's input.
Tensor core_features(const Batch& batch, Device device = kCpu);

/// The 13 features of the individual methods, (T, 13).
Tensor particle_table(const Batch& batch, Device device = kCpu);

/// px, py, pz, E of the same constituents in GeV, (T, 4).
Tensor four_momenta(const Batch& batch, Device device = kCpu);

/// Segments of the batch's jets.
Segments segments_of(const Batch& batch);

}  // namespace tessera
