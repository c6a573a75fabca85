// Attention by cuDNN on packed batches with sequence lengths, bf16 forward: what ours is compared
// with, in time and in value. Compiled where cudnn.h and its library are.
#pragma once

#include <cudnn.h>

#include <memory>
#include <vector>

#include "core/segments.h"

namespace tessera::bench {

/// One node of cuDNN's graph interface, destroyed with it.
using CudnnNode = std::unique_ptr<void, cudnnStatus_t (*)(cudnnBackendDescriptor_t)>;

/// softmax(q k^T D^-1/2) v as cuDNN is asked for it: q, k, v of qkv (T, 3, H, D), out (T, H, D),
/// found by offsets of the segments, without padding. Needs no GPU. D is a multiple of 8.
class CudnnAttentionGraph {
 public:
  CudnnAttentionGraph(const Segments& segments, std::int64_t heads, std::int64_t width,
                      cudnnHandle_t handle);
  /// How many engines cuDNN proposes for a device with these properties (its JSON), or for that of
  /// the handle if null.
  [[nodiscard]] std::int64_t proposals(const char* device_json) const;
  /// The first that can be built for the device of the handle.
  [[nodiscard]] CudnnNode plan(cudnnHandle_t handle) const;

 private:
  CudnnNode tensor(std::int64_t id, cudnnDataType_t type, std::vector<std::int64_t> shape,
                   std::vector<std::int64_t> stride, const CudnnNode* offsets = nullptr);
  [[nodiscard]] CudnnNode heuristic(const CudnnNode* device) const;

  std::vector<CudnnNode> nodes_;
  CudnnNode graph_;
};

/// The same with a plan for the GPU at hand.
class CudnnAttention {
 public:
  CudnnAttention(const Segments& segments, std::int64_t heads, std::int64_t width);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  /// Queues out (T, H, D) of qkv (T, 3, H, D), both bf16 on cuda, in the current stream.
  void operator()(const Tensor& qkv, const Tensor& out) const;

 private:
  std::int64_t heads_, width_;
  cudnnHandle_t handle_ = nullptr;
  std::unique_ptr<CudnnAttentionGraph> graph_;
  CudnnNode plan_;
  Tensor lengths_, qkv_offsets_, out_offsets_, workspace_;
};

}  // namespace tessera::bench
