#include "train/inputs.h"

namespace tessera {
namespace {

Tensor rows(const std::vector<float>& values, std::int64_t columns, Device device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size()) / columns, columns},
                      device);
}

Tensor ids(const std::vector<std::int32_t>& values, Device device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
}

Tensor made(const FeatureRows& batch, Table table, Device device) {
  switch (table) {
    case Table::core:
      return rows(batch.core, kCoreFeatures, device);
    case Table::pid:
      return ids(batch.pid, device);
    case Table::context:
      return rows(batch.context, kContextFeatures, device);
    case Table::particles:
      return rows(batch.particles, kParticleFeatures, device);
  }
  return {};
}

// As it was sent, or made now.
Tensor table_of(const Batch& batch, Table table, Device device) {
  if (batch.sent && batch.sent->device == device) {
    const auto found = batch.sent->tables.find(table);
    if (found != batch.sent->tables.end()) {
      return found->second;
    }
  }
  return made(batch.rows, table, device);
}

}  // namespace

void send_tables(Batch& batch, std::span<const Table> tables, Device device) {
  auto sent = std::make_shared<DeviceTables>(
      DeviceTables{.device = device, .segments = Segments(batch.rows.cu_seqlens), .tables = {}});
  (void)sent->segments.on(device);  // kept there with the handle
  for (const Table table : tables) {
    sent->tables[table] = made(batch.rows, table, device);
  }
  batch.sent = std::move(sent);
}

Segments segments_of(const Batch& batch) {
  return batch.sent ? batch.sent->segments : Segments(batch.rows.cu_seqlens);
}

Tensor core_features(const Batch& batch, Device device) {
  return table_of(batch, Table::core, device);
}

Tensor particle_table(const Batch& batch, Device device) {
  return table_of(batch, Table::particles, device);
}

Tensor four_momenta(const Batch& batch, Device device) {
  return rows(batch.rows.four_momenta, 4, device);
}

ParticleFeatures particle_features(const Batch& batch, bool with_context, Device device) {
  ParticleFeatures f{.segments = segments_of(batch),
                     .core = core_features(batch, device),
                     .pid = {},
                     .context = {},
                     .pid_on_host = ids(batch.rows.pid, kCpu)};
  f.pid = device == kCpu ? f.pid_on_host : table_of(batch, Table::pid, device);
  if (with_context) {
    f.context = table_of(batch, Table::context, device);
  }
  return f;
}

}  // namespace tessera
