#include "kernels/matmul/matmul_cublaslt.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <map>
#include <mutex>
#include <optional>

#include "core/check.h"

namespace tessera::cublaslt {
namespace {

#define TESSERA_TEXT_OF(x) #x
#define TESSERA_TEXT(x) TESSERA_TEXT_OF(x)
// The file of the major version whose header this was compiled with; then that of the build.
constexpr const char* kNames[] = {"libcublasLt.so." TESSERA_TEXT(CUBLAS_VER_MAJOR),
                                  TESSERA_CUBLASLT_FILE};

/// What we call, each with the type that the header declares.
struct Calls {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmulDescCreate) create_operation;
  decltype(&cublasLtMatmulDescDestroy) destroy_operation;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation;
  decltype(&cublasLtMatrixLayoutCreate) create_layout;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtMatmulAlgoGetHeuristic) propose;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) get_config;
  decltype(&cublasLtMatmul) multiply;
};

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

std::optional<Calls> find_calls() {
  void* library = nullptr;
  for (const char* name : kNames) {
    library = library != nullptr ? library : dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  Calls c{};
  const bool all = library != nullptr && find(library, "cublasLtCreate", c.create) &&
                   find(library, "cublasLtMatmulDescCreate", c.create_operation) &&
                   find(library, "cublasLtMatmulDescDestroy", c.destroy_operation) &&
                   find(library, "cublasLtMatmulDescSetAttribute", c.set_operation) &&
                   find(library, "cublasLtMatrixLayoutCreate", c.create_layout) &&
                   find(library, "cublasLtMatrixLayoutDestroy", c.destroy_layout) &&
                   find(library, "cublasLtMatmulPreferenceCreate", c.create_preference) &&
                   find(library, "cublasLtMatmulPreferenceDestroy", c.destroy_preference) &&
                   find(library, "cublasLtMatmulPreferenceSetAttribute", c.set_preference) &&
                   find(library, "cublasLtMatmulAlgoGetHeuristic", c.propose) &&
                   find(library, "cublasLtMatmulAlgoConfigGetAttribute", c.get_config) &&
                   find(library, "cublasLtMatmul", c.multiply);
  return all ? std::optional(c) : std::nullopt;
}

const std::optional<Calls>& calls() {
  static const std::optional<Calls> found = find_calls();  // stays open to the end
  return found;
}

void check(cublasStatus_t status, const char* call) {
  TESSERA_CHECK_KIND(ErrorKind::internal, status == CUBLAS_STATUS_SUCCESS,
                     "{}: expected success, got cuBLAS status {}", call, static_cast<int>(status));
}

template <class T>
void set(Description& to, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(calls()->set_operation(to.operation.get(), attribute, &value, sizeof(T)),
        "cublasLtMatmulDescSetAttribute");
}

Description::Owned<cublasLtMatmulDescOpaque_t> make_operation() {
  cublasLtMatmulDesc_t made = nullptr;
  // Not TF32: operands in f32 are multiplied as such.
  check(calls()->create_operation(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "cublasLtMatmulDescCreate");
  return {made, calls()->destroy_operation};
}

Description::Owned<cublasLtMatrixLayoutOpaque_t> make_layout(cudaDataType type, std::int64_t rows,
                                                             std::int64_t columns,
                                                             std::int64_t leading) {
  cublasLtMatrixLayout_t made = nullptr;
  check(calls()->create_layout(&made, type, static_cast<std::uint64_t>(rows),
                               static_cast<std::uint64_t>(columns), leading),
        "cublasLtMatrixLayoutCreate");
  return {made, calls()->destroy_layout};
}

cudaDataType type_of(const ProductRequest& request) {
  return request.operands == Precision::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

using Preference = Description::Owned<cublasLtMatmulPreferenceOpaque_t>;

template <class T>
void set(const Preference& to, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(calls()->set_preference(to.get(), attribute, &value, sizeof(T)),
        "cublasLtMatmulPreferenceSetAttribute");
}

// The addresses of a planned request are their alignments.
std::uint32_t alignment(const void* planned) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(planned));
}

Preference preference_of(const ProductRequest& planned) {
  cublasLtMatmulPreference_t made = nullptr;
  check(calls()->create_preference(&made), "cublasLtMatmulPreferenceCreate");
  Preference p(made, calls()->destroy_preference);
  set(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{planned.workspace_bytes});
  set(p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(planned.one_sequence ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                      : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(planned.a.data));
  set(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(planned.b.data));
  set(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(planned.d));
  set(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(planned.d));
  return p;
}

template <class T>
T config(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  check(calls()->get_config(&algorithm, attribute, &value, sizeof(T), &written),
        "cublasLtMatmulAlgoConfigGetAttribute");
  return value;
}

std::int32_t parts(const cublasLtMatmulAlgo_t& algorithm) {
  return config<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
}

// Asked again although the preference says so: it is what the bits rest on.
bool admitted(const cublasLtMatmulAlgo_t& algorithm, const ProductRequest& request) {
  const auto scheme = config<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  return parts(algorithm) <= 1 ||
         (!request.one_sequence && scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
}

using Algorithm = std::optional<cublasLtMatmulAlgo_t>;

Algorithm choose(cublasLtHandle_t handle, const ProductRequest& planned) {
  const Description told(planned);
  const Preference preference = preference_of(planned);
  std::array<cublasLtMatmulHeuristicResult_t, 8> proposed{};
  int count = 0;
  const cublasStatus_t status = calls()->propose(
      handle, told.operation.get(), told.a.get(), told.b.get(), told.d.get(), told.d.get(),
      preference.get(), static_cast<int>(proposed.size()), proposed.data(), &count);
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
    const auto& one = proposed[static_cast<std::size_t>(i)];
    if (one.state == CUBLAS_STATUS_SUCCESS && admitted(one.algo, planned)) {
      return one.algo;
    }
  }
  return std::nullopt;
}

/// The handle of the process and the algorithms that were chosen.
struct Library {
  std::mutex mutex;
  cublasLtHandle_t handle = nullptr;
  bool tried = false;
  std::map<ProductRequest, Algorithm> plans;

  // Null without a GPU.
  cublasLtHandle_t opened() {
    if (!tried) {
      tried = true;
      handle = calls()->create(&handle) == CUBLAS_STATUS_SUCCESS ? handle : nullptr;
    }
    return handle;
  }
};

Library& library() {
  static auto* one = new Library;  // never closed: streams of static duration may still use it
  return *one;
}

Algorithm algorithm_for(const ProductRequest& request, cublasLtHandle_t& handle) {
  Library& all = library();
  const std::lock_guard lock(all.mutex);
  handle = all.opened();
  if (handle == nullptr) {
    return std::nullopt;
  }
  const ProductRequest planned = planned_request(request);
  auto found = all.plans.find(planned);
  if (found == all.plans.end()) {
    found = all.plans.emplace(planned, choose(handle, planned)).first;
  }
  return found->second;
}

std::string line_of(const ProductRequest& r, const Algorithm& algorithm) {
  const std::string shape =
      fmt::format("{} ({}, {}) over {}{}{}", name(r.operands), r.columns, r.rows, r.depth,
                  r.bias == nullptr ? "" : " + bias", r.beta == 0 ? "" : " + c");
  if (!algorithm) {
    return shape + ": declined";
  }
  return fmt::format("{}: algorithm {}, tile {}, stages {}, parts {}", shape,
                     config<std::int32_t>(*algorithm, CUBLASLT_ALGO_CONFIG_ID),
                     config<std::uint32_t>(*algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
                     config<std::uint32_t>(*algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID),
                     parts(*algorithm));
}

}  // namespace

bool available() { return calls().has_value(); }

Description::Description(const ProductRequest& r)
    : operation(make_operation()),
      a(make_layout(type_of(r), r.a.rows, r.a.columns, r.a.leading)),
      b(make_layout(type_of(r), r.b.rows, r.b.columns, r.b.leading)),
      d(make_layout(CUDA_R_32F, r.rows, r.columns, r.leading)) {
  set(*this, CUBLASLT_MATMUL_DESC_TRANSA, r.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(*this, CUBLASLT_MATMUL_DESC_TRANSB, r.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (r.bias != nullptr) {
    set(*this, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(*this, CUBLASLT_MATMUL_DESC_BIAS_POINTER, r.bias);  // as long as d has rows, of its type
  }
}

bool multiply(const ProductRequest& r, Stream stream) {
  cublasLtHandle_t handle = nullptr;
  const Algorithm algorithm = algorithm_for(r, handle);
  if (!algorithm) {
    return false;
  }
  const Description told(r);
  const float one = 1;
  return calls()->multiply(handle, told.operation.get(), &one, r.a.data, told.a.get(), r.b.data,
                           told.b.get(), &r.beta, r.d, told.d.get(), r.d, told.d.get(), &*algorithm,
                           r.workspace, r.workspace_bytes,
                           static_cast<cudaStream_t>(stream.handle)) == CUBLAS_STATUS_SUCCESS;
}

std::vector<std::string> plans() {
  Library& all = library();
  const std::lock_guard lock(all.mutex);
  std::vector<std::string> lines;
  for (const auto& [planned, algorithm] : all.plans) {
    lines.push_back(line_of(planned, algorithm));
  }
  return lines;
}

}  // namespace tessera::cublaslt
