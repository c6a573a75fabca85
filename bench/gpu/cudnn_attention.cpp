#include "bench/gpu/cudnn_attention.h"

#include <array>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/dtype.h"

namespace tessera::bench {
namespace {

constexpr Device kCuda{DeviceType::cuda, 0};

/// Names of the tensors in a call.
enum Id : std::int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kScale,
  kQLengths,
  kKvLengths,
  kQkvOffsets,
  kOutOffsets
};

void check(cudnnStatus_t status, const char* call) {
  TESSERA_CHECK_KIND(ErrorKind::internal, status == CUDNN_STATUS_SUCCESS,
                     "{}: expected success, got {}", call, cudnnGetErrorString(status));
}

CudnnNode make(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t made = nullptr;
  check(cudnnBackendCreateDescriptor(type, &made), "cudnnBackendCreateDescriptor");
  return {made, cudnnBackendDestroyDescriptor};
}

void finalize(const CudnnNode& node) {
  check(cudnnBackendFinalize(node.get()), "cudnnBackendFinalize");
}

// One or more values of the type that the attribute has.
template <class T>
void set(const CudnnNode& node, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
         const std::vector<T>& values) {
  check(cudnnBackendSetAttribute(node.get(), name, type, static_cast<std::int64_t>(values.size()),
                                 values.data()),
        "cudnnBackendSetAttribute");
}
void set(const CudnnNode& node, cudnnBackendAttributeName_t name, const CudnnNode& value) {
  set(node, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::vector<void*>{value.get()});
}
void set(const CudnnNode& node, cudnnBackendAttributeName_t name,
         std::vector<std::int64_t> values) {
  set(node, name, CUDNN_TYPE_INT64, values);
}

CudnnNode device_of(const char* json) {
  CudnnNode device = make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  check(
      cudnnBackendSetAttribute(device.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                               CUDNN_TYPE_CHAR, static_cast<std::int64_t>(std::strlen(json)), json),
      "cudnnBackendSetAttribute");
  finalize(device);
  return device;
}

Tensor on_cuda(const std::vector<std::int32_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(kCuda);
}

// Offsets of the segments in elements, `row` of them to a token.
Tensor offsets(const Segments& segments, std::int64_t row) {
  std::vector<std::int32_t> at;
  for (const std::int32_t token : segments.cu_seqlens()) {
    at.push_back(static_cast<std::int32_t>(token * row));
  }
  return on_cuda(at);
}

Tensor lengths(const Segments& segments) {
  std::vector<std::int32_t> all;
  for (int i = 0; i < segments.count(); ++i) {
    all.push_back(segments.length(i));
  }
  return on_cuda(all);
}

}  // namespace

CudnnNode CudnnAttentionGraph::tensor(std::int64_t id, cudnnDataType_t type,
                                      std::vector<std::int64_t> shape,
                                      std::vector<std::int64_t> stride, const CudnnNode* offsets) {
  CudnnNode t = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  set(t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{type});
  set(t, CUDNN_ATTR_TENSOR_DIMENSIONS, std::move(shape));
  set(t, CUDNN_ATTR_TENSOR_STRIDES, std::move(stride));
  set(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, {id});
  set(t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {16});
  if (id == kScale) {  // a number of the call, not of device memory
    const bool by_value = true;
    check(cudnnBackendSetAttribute(t.get(), CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1,
                                   &by_value),
          "cudnnBackendSetAttribute");
  }
  if (offsets != nullptr) {
    set(t, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, *offsets);
  }
  finalize(t);
  return t;
}

CudnnAttentionGraph::CudnnAttentionGraph(const Segments& segments, std::int64_t heads,
                                         std::int64_t width, cudnnHandle_t handle)
    : graph_(make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)) {
  const std::int64_t b = segments.count(), longest = segments.max_length(), row = heads * width;
  const std::vector<std::int64_t> shape{b, heads, longest, width}, ones{1, 1, 1, 1};
  const std::vector<std::int64_t> in{longest * 3 * row, width, 3 * row, 1};
  const std::vector<std::int64_t> out{longest * row, width, row, 1};
  const auto add = [&](CudnnNode node) -> const CudnnNode& {
    return nodes_.emplace_back(std::move(node));
  };
  nodes_.reserve(16);  // the references stay
  const auto& in_at = add(tensor(kQkvOffsets, CUDNN_DATA_INT32, {b + 1, 1, 1, 1}, ones));
  const auto& out_at = add(tensor(kOutOffsets, CUDNN_DATA_INT32, {b + 1, 1, 1, 1}, ones));
  const auto& operation = add(make(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,
      add(tensor(kQ, CUDNN_DATA_BFLOAT16, shape, in, &in_at)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
      add(tensor(kK, CUDNN_DATA_BFLOAT16, shape, in, &in_at)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,
      add(tensor(kV, CUDNN_DATA_BFLOAT16, shape, in, &in_at)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
      add(tensor(kOut, CUDNN_DATA_BFLOAT16, shape, out, &out_at)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC,
      add(tensor(kScale, CUDNN_DATA_FLOAT, ones, ones)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_QDESC,
      add(tensor(kQLengths, CUDNN_DATA_INT32, {b, 1, 1, 1}, ones)));
  set(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_KVDESC,
      add(tensor(kKvLengths, CUDNN_DATA_INT32, {b, 1, 1, 1}, ones)));
  finalize(operation);
  set(graph_, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  if (handle != nullptr) {
    set(graph_, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, std::vector{handle});
  }
  finalize(graph_);
}

CudnnNode CudnnAttentionGraph::heuristic(const CudnnNode* device) const {
  CudnnNode asked = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  set(asked, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph_);
  set(asked, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, std::vector{CUDNN_HEUR_MODE_A});
  if (device != nullptr) {
    set(asked, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
  }
  finalize(asked);
  return asked;
}

std::int64_t CudnnAttentionGraph::proposals(const char* device_json) const {
  const CudnnNode device = device_json != nullptr
                               ? device_of(device_json)
                               : CudnnNode(nullptr, cudnnBackendDestroyDescriptor);
  const CudnnNode asked = heuristic(device_json != nullptr ? &device : nullptr);
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(asked.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
        "cudnnBackendGetAttribute");
  return count;
}

CudnnNode CudnnAttentionGraph::plan(cudnnHandle_t handle) const {
  const CudnnNode asked = heuristic(nullptr);
  std::vector<CudnnNode> configs;
  std::vector<void*> raw;
  for (std::int64_t i = 0; i < proposals(nullptr); ++i) {
    configs.push_back(make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    raw.push_back(configs.back().get());
  }
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(asked.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 static_cast<std::int64_t>(raw.size()), &count, raw.data()),
        "cudnnBackendGetAttribute");
  for (std::int64_t i = 0; i < count; ++i) {
    CudnnNode built = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(built, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, std::vector{handle});
    set(built, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[static_cast<std::size_t>(i)]);
    if (cudnnBackendFinalize(built.get()) == CUDNN_STATUS_SUCCESS) {
      return built;
    }
  }
  TESSERA_FAIL(ErrorKind::resource, "cuDNN attention: expected a plan for this GPU, got none of {}",
               count);
}

CudnnAttention::CudnnAttention(const Segments& segments, std::int64_t heads, std::int64_t width)
    : heads_(heads),
      width_(width),
      plan_(nullptr, cudnnBackendDestroyDescriptor),
      lengths_(lengths(segments)),
      qkv_offsets_(offsets(segments, 3 * heads * width)),
      out_offsets_(offsets(segments, heads * width)) {
  check(cudnnCreate(&handle_), "cudnnCreate");
  graph_ = std::make_unique<CudnnAttentionGraph>(segments, heads, width, handle_);
  plan_ = graph_->plan(handle_);
  std::int64_t bytes = 0, count = 0;
  check(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                 CUDNN_TYPE_INT64, 1, &count, &bytes),
        "cudnnBackendGetAttribute");
  workspace_ = Tensor::empty({(bytes + 3) / 4}, DType::f32, kCuda);
}

CudnnAttention::~CudnnAttention() {
  plan_.reset();
  graph_.reset();
  static_cast<void>(cudnnDestroy(handle_));
}

void CudnnAttention::operator()(const Tensor& qkv, const Tensor& out) const {
  const bf16* in = qkv.view<const bf16, 4>().data;
  const auto device = [](const void* p) { return const_cast<void*>(p); };
  float scale = 1 / std::sqrt(static_cast<float>(width_));
  const auto i32 = [&](const Tensor& t) { return device(t.view<const std::int32_t, 1>().data); };
  const std::vector<std::int64_t> ids{kQ,        kK,         kV,          kOut,       kScale,
                                      kQLengths, kKvLengths, kQkvOffsets, kOutOffsets};
  const std::vector<void*> data{device(in),
                                device(in + heads_ * width_),
                                device(in + 2 * heads_ * width_),
                                out.view<bf16, 3>().data,
                                &scale,
                                i32(lengths_),
                                i32(lengths_),
                                i32(qkv_offsets_),
                                i32(out_offsets_)};
  CudnnNode pack = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
  set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data);
  set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
      std::vector<void*>{workspace_.size() > 0 ? workspace_.view<float, 1>().data : nullptr});
  finalize(pack);
  check(cudnnSetStream(handle_, static_cast<cudaStream_t>(current_stream(kCuda).handle)),
        "cudnnSetStream");
  check(cudnnBackendExecute(handle_, plan_.get(), pack.get()), "cudnnBackendExecute");
}

}  // namespace tessera::bench
