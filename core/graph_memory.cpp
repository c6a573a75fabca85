#include "core/graph_memory.h"

#include <algorithm>
#include <array>
#include <bit>

#include "core/check.h"
#include "core/device_calls.h"

namespace tessera {
namespace {

constexpr std::size_t kUnit = 256;
constexpr std::size_t kSlabBytes = std::size_t{1} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Eight sizes an octave, so that the tensors of a batch fit where those of another one lay.
std::size_t block_size(std::size_t bytes) {
  const std::size_t octave = std::bit_floor(std::max(bytes, kUnit));
  return round_up(bytes, std::max(kUnit, octave / 8));
}

thread_local std::array<std::shared_ptr<GraphMemory>, 3> recording;  // by device type

std::shared_ptr<GraphMemory>& recording_on(Device device) {
  return recording[static_cast<std::size_t>(device.type)];
}

}  // namespace

const std::shared_ptr<GraphMemory>& graph_memory(Device device) { return recording_on(device); }

void refuse_in_capture(Device device, const char* what) {
  TESSERA_CHECK_KIND(ErrorKind::internal, recording_on(device) == nullptr,
                     "graph: expected work that needs no host while it is recorded on {}, got {}",
                     name(device.type), what);
}

RecordingScope::RecordingScope(Device device, std::shared_ptr<GraphMemory> memory)
    : device_(device) {
  TESSERA_CHECK_KIND(ErrorKind::internal, recording_on(device) == nullptr,
                     "graph: expected no other recording on {}", name(device.type));
  recording_on(device) = std::move(memory);
}
RecordingScope::~RecordingScope() { recording_on(device_).reset(); }

// A stream that is gone has done its work.
void* GraphMemory::stream_to_free_in() const { return alive(stream_) ? stream_.handle : nullptr; }

GraphMemory::~GraphMemory() {
  const DeviceCalls& calls = device_calls(device_);
  const auto& recording = recording_on(device_);  // of another memory: it may hold the last tensor
  for (const auto& [data, block] : blocks_) {
    if (recording) {
      recording->adopt(data, stream_);
    } else {
      calls.free(data, stream_to_free_in());
    }
  }
  for (const auto& uploads : uploads_) {
    try {
      uploads->read.synchronize();
    } catch (const Error&) {  // of work that somebody else waits for
    }
    for (const Uploads::Slab& slab : uploads->slabs) {
      calls.free_pinned(slab.data);
    }
  }
}

void GraphMemory::begin_run() {
  ++runs_;
  grown_ = false;
  free_idle();
  if (!uploads_.empty() && uploads_.front()->read.reached()) {
    uploads_.push_back(std::move(uploads_.front()));
    uploads_.pop_front();
  } else {
    uploads_.push_back(std::make_unique<Uploads>(device_));
  }
  uploads_.back()->slab = uploads_.back()->used = 0;
}

void GraphMemory::end_run(bool queued) {
  if (queued) {
    mark_uploads_read();
  } else {
    lost_ = true;
  }
  for (const Adopted& a : adopted_) {
    const Stream home = alive(a.home) ? a.home : stream_;
    queue_behind(device_, home, stream_);
    device_calls(device_).free(a.data, home.handle);
  }
  adopted_.clear();
}

// New blocks came in the order of the default stream.
void GraphMemory::make_ready() const {
  if (grown_) {
    queue_behind(device_, stream_, Stream{});
  }
}

void GraphMemory::free_idle() {
  for (auto it = free_.begin(); it != free_.end();) {
    const Block& block = blocks_.at(it->second);
    if (runs_ - block.last_run <= kIdleRuns) {
      ++it;
      continue;
    }
    device_calls(device_).free(it->second, stream_to_free_in());
    blocks_.erase(it->second);
    it = free_.erase(it);
  }
}

std::byte* GraphMemory::allocate(std::size_t bytes) {
  const std::size_t wanted = block_size(bytes);
  const DeviceCalls& calls = device_calls(device_);
  const auto found = free_.lower_bound(wanted);
  if (found != free_.end() && found->first <= 2 * wanted) {
    std::byte* data = found->second;
    free_.erase(found);
    Block& block = blocks_.at(data);
    block.last_run = runs_;
    calls.poison(stream_.handle, data, block.bytes);
    return data;
  }
  // In the order of the default stream: an allocation is no work of the graph.
  auto* data = static_cast<std::byte*>(calls.allocate(wanted, nullptr));
  blocks_.emplace(data, Block{wanted, runs_});
  grown_ = true;
  return data;
}

void GraphMemory::release(std::byte* data) { free_.emplace(blocks_.at(data).bytes, data); }

std::byte* GraphMemory::pinned(std::size_t bytes) {
  Uploads& u = *uploads_.back();
  const std::size_t wanted = round_up(bytes, kUnit);
  while (u.slab < u.slabs.size() && u.used + wanted > u.slabs[u.slab].bytes) {
    ++u.slab;
    u.used = 0;
  }
  if (u.slab == u.slabs.size()) {
    const std::size_t size = std::max(wanted, kSlabBytes);
    u.slabs.push_back({static_cast<std::byte*>(device_calls(device_).allocate_pinned(size)), size});
  }
  std::byte* data = u.slabs[u.slab].data + u.used;
  u.used += wanted;
  return data;
}

}  // namespace tessera
