// From a host batch to the tensors that models take, on the device where the model lies.
#pragma once

#include <map>
#include <span>

#include "nn/models/backbone.h"
#include "train/batcher.h"

namespace tessera {

/// The tables of a batch that models read on their device.
enum class Table : std::uint8_t { core, pid, context, particles };

/// Tables of a batch that were sent to a device before they are needed.
struct DeviceTables {
  Device device;
  Segments segments;  // with their offsets there
  std::map<Table, Tensor> tables;
};

/// Uploads tables in the order of the current stream. For that device the functions below then give
/// these tensors, to work that must be queued behind them.
void send_tables(Batch& batch, std::span<const Table> tables, Device device);

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
