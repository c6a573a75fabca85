// What core/gpu/runtime.cpp asks of the CUDA runtime, and what becomes of its errors, against a
// library that records the calls.
#include "core/gpu/runtime.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/check.h"
#include "tests/core/gpu/fake_cuda.h"

namespace tessera {
namespace {

using Calls = std::vector<std::string>;
using fake::cuda;

std::uintptr_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }

// What stays in the pool is used again: it gives nothing back by itself. Asked for once a program,
// so this test is the first.
TEST(RuntimePool, KeepsAllMemoryFromTheFirstAllocationOn) {
  cuda_free(cuda_allocate(8, nullptr), nullptr);
  EXPECT_EQ(cuda().take(),
            (Calls{"cudaGetDevice", "cudaDeviceGetDefaultMemPool 0",
                   fmt::format("cudaMemPoolSetAttribute {} {}",
                               static_cast<int>(cudaMemPoolAttrReleaseThreshold), UINT64_MAX),
                   "cudaMallocAsync 8 0", "cudaFreeAsync 0"}));
}

class Runtime : public ::testing::Test {
 protected:
  // The pool and the limits of a block are asked for once a program.
  Runtime() {
    cuda().attributes[cudaDevAttrMaxThreadsPerBlock] = 1024;
    cuda_free(cuda_allocate(8, nullptr), nullptr);
    cu::check_launch_shape({"first", {1, 1, 1}, {32, 1, 1}, 0});
    cuda().take();
  }
  ~Runtime() override { EXPECT_TRUE(cuda().errors.empty()) << "a planted error was not met"; }

  /// Kind and message of the error that `call` throws.
  static std::pair<ErrorKind, std::string> error_of(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return {e.kind(), e.message()};
    }
    return {ErrorKind::peer, "no error"};
  }
  /// That a call whose CUDA function fails says so by name.
  static void expect_failure(const char* function, cudaError_t error,
                             const std::function<void()>& call) {
    cuda().errors[function] = error;
    const auto [kind, message] = error_of(call);
    EXPECT_EQ(kind, ErrorKind::resource) << message;
    EXPECT_TRUE(message.starts_with(function)) << message;
    EXPECT_NE(message.find(cudaGetErrorString(error)), std::string::npos) << message;
    cuda().last = cudaSuccess;
    cuda().take();
  }
};

TEST_F(Runtime, StreamsWaitForNoOtherAndAreWorkedOffBeforeTheyGo) {
  void* stream = cuda_create_stream();
  cuda_synchronize(stream);
  cuda_synchronize(nullptr);
  cuda_destroy_stream(stream);
  const auto n = number(stream);
  EXPECT_EQ(
      cuda().take(),
      (Calls{fmt::format("cudaStreamCreateWithFlags {}", cudaStreamNonBlocking),
             fmt::format("cudaStreamSynchronize {}", n), "cudaDeviceSynchronize",
             fmt::format("cudaStreamSynchronize {}", n), fmt::format("cudaStreamDestroy {}", n)}));
  expect_failure("cudaStreamCreateWithFlags", cudaErrorMemoryAllocation,
                 [] { cuda_create_stream(); });
  expect_failure("cudaDeviceSynchronize", cudaErrorLaunchFailure,
                 [] { cuda_synchronize(nullptr); });
}

TEST_F(Runtime, MemoryComesAndGoesInTheOrderOfItsStream) {
  void* stream = cuda_create_stream();
  cuda().take();
  const auto n = number(stream);
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{400}}) {
    void* data = cuda_allocate(bytes, stream);
    EXPECT_NE(data, nullptr);
    cuda_free(data, stream);
    EXPECT_EQ(cuda().take(), (Calls{fmt::format("cudaMallocAsync {} {}", bytes == 0 ? 1 : bytes, n),
                                    fmt::format("cudaFreeAsync {}", n)}));
  }
  cuda_free(nullptr, stream);
  EXPECT_EQ(cuda().take(), Calls{});
  cuda_destroy_stream(stream);
  cuda().take();
}

TEST_F(Runtime, AFullDeviceSaysHowMuchWasAskedForAndIsLeft) {
  cuda().errors["cudaMallocAsync"] = cudaErrorMemoryAllocation;
  const auto [kind, message] = error_of([] { cuda_allocate(400, nullptr); });
  EXPECT_EQ(kind, ErrorKind::resource);
  EXPECT_EQ(message,
            "cuda_allocate: expected 400 bytes of device memory, got out of memory; 5 of 80 are "
            "left");
  EXPECT_EQ(cuda().last, cudaSuccess) << "the next call would find it";
  cuda().take();
}

TEST_F(Runtime, ReclaimGivesBackWhatThePoolKeepsOnceTheDeviceIsIdle) {
  cuda_reclaim();
  EXPECT_EQ(cuda().take(), (Calls{"cudaDeviceSynchronize", "cudaGetDevice",
                                  "cudaDeviceGetDefaultMemPool 0", "cudaMemPoolTrimTo 0"}));
}

TEST_F(Runtime, CopiesAreQueuedAndTheirKindIsLeftToCuda) {
  void* stream = cuda_create_stream();
  void* pinned = cuda_allocate_pinned(12);
  cuda().take();
  const float values[] = {1, 2, 3};
  cuda_copy_queued(stream, pinned, values, 12);
  EXPECT_EQ(cuda().take(), Calls{fmt::format("cudaMemcpyAsync 12 {} {}",
                                             static_cast<int>(cudaMemcpyDefault), number(stream))});
  EXPECT_EQ(static_cast<float*>(pinned)[2], 3.0F);
  cuda_free_pinned(pinned);
  cuda_destroy_stream(stream);
  cuda().take();
  expect_failure("cudaMemcpyAsync", cudaErrorLaunchFailure, [&] {
    float to[3];
    cuda_copy_queued(nullptr, to, values, 12);
  });
  expect_failure("cudaHostAlloc", cudaErrorMemoryAllocation, [] { cuda_allocate_pinned(1); });
}

TEST_F(Runtime, EventsHaveNoTimesAndAnUnreachedOneIsNoError) {
  void* stream = cuda_create_stream();
  cuda().take();
  void* event = cuda_create_event();
  const auto s = number(stream), e = number(event);
  cuda_record_event(event, stream);
  cuda_wait_event(event, nullptr);
  cuda().errors["cudaEventQuery"] = cudaErrorNotReady;
  EXPECT_FALSE(cuda_event_reached(event));
  EXPECT_TRUE(cuda_event_reached(event));
  cuda_synchronize_event(event);
  cuda_destroy_event(event);
  EXPECT_EQ(
      cuda().take(),
      (Calls{fmt::format("cudaEventCreateWithFlags {}", cudaEventDisableTiming),
             fmt::format("cudaEventRecord {} {}", e, s),
             fmt::format("cudaStreamWaitEvent 0 {} 0", e), fmt::format("cudaEventQuery {}", e),
             fmt::format("cudaEventQuery {}", e), fmt::format("cudaEventSynchronize {}", e),
             fmt::format("cudaEventDestroy {}", e)}));
  expect_failure("cudaEventQuery", cudaErrorLaunchFailure,
                 [&] { static_cast<void>(cuda_event_reached(event)); });
  cuda_destroy_stream(stream);
  cuda().take();
}

// Relaxed, since memory is allocated meanwhile in another stream.
TEST_F(Runtime, ARecordingBecomesAGraphThatIsLaunchedAndUpdated) {
  void* stream = cuda_create_stream();
  cuda().take();
  const auto s = number(stream);
  cuda_begin_capture(stream);
  void* recorded = cuda_end_capture(stream);
  EXPECT_EQ(cuda_graph_nodes(recorded), 7U);
  void* graph = cuda_make_graph(recorded);
  EXPECT_TRUE(cuda_update_graph(graph, recorded));
  cuda_launch_graph(graph, stream);
  cuda_destroy_recorded(recorded);
  cuda_destroy_recorded(nullptr);
  cuda_destroy_graph(graph);
  const auto r = number(recorded), g = number(graph);
  EXPECT_EQ(cuda().take(), (Calls{fmt::format("cudaStreamBeginCapture {} {}", s,
                                              static_cast<int>(cudaStreamCaptureModeRelaxed)),
                                  fmt::format("cudaStreamEndCapture {}", s),
                                  fmt::format("cudaGraphGetNodes {} count", r),
                                  fmt::format("cudaGraphInstantiate {} 0", r),
                                  fmt::format("cudaGraphExecUpdate {} {}", g, r),
                                  fmt::format("cudaGraphLaunch {} {}", g, s),
                                  fmt::format("cudaGraphDestroy {}", r),
                                  fmt::format("cudaGraphExecDestroy {}", g)}));
  cuda_destroy_stream(stream);
  cuda().take();
}

TEST_F(Runtime, AGraphOfOtherNodesIsNotUpdatedAndLeavesNoError) {
  cuda().errors["cudaGraphExecUpdate"] = cudaErrorGraphExecUpdateFailure;
  EXPECT_FALSE(cuda_update_graph(nullptr, nullptr));
  EXPECT_EQ(cuda().last, cudaSuccess);
  cuda().take();
  expect_failure("cudaGraphExecUpdate", cudaErrorLaunchFailure,
                 [] { static_cast<void>(cuda_update_graph(nullptr, nullptr)); });
  expect_failure("cudaGraphLaunch", cudaErrorLaunchFailure,
                 [] { cuda_launch_graph(nullptr, nullptr); });
}

TEST_F(Runtime, AnAbandonedRecordingIsEndedAndLeavesNoError) {
  cuda().errors["cudaStreamEndCapture"] = cudaErrorStreamCaptureInvalidated;
  cuda_abandon_capture(nullptr);
  EXPECT_EQ(cuda().take(), (Calls{"cudaStreamEndCapture 0", "cudaGetLastError"}));
  EXPECT_EQ(cuda().last, cudaSuccess);
  cuda_abandon_capture(nullptr);
  const Calls calls = cuda().take();
  ASSERT_EQ(calls.size(), 3U);
  EXPECT_TRUE(calls[1].starts_with("cudaGraphDestroy ")) << calls[1];
}

TEST_F(Runtime, WithoutADriverThereIsNoDevice) {
  EXPECT_EQ(cuda_device_count(), 1);
  cuda().errors["cudaGetDeviceCount"] = cudaErrorInsufficientDriver;
  EXPECT_EQ(cuda_device_count(), 0);
  cuda().last = cudaSuccess;
  cuda().take();
}

TEST_F(Runtime, ALaunchThatIsRefusedNamesKernelAndGrid) {
  const cu::LaunchShape shape{"softmax", {7, 2, 1}, {128, 1, 1}, 4096};
  EXPECT_NO_THROW(cu::check_launch_error(shape, cudaSuccess));
  const auto [kind, message] =
      error_of([&] { cu::check_launch_error(shape, cudaErrorLaunchFailure); });
  EXPECT_EQ(kind, ErrorKind::resource);
  EXPECT_EQ(
      message,
      "softmax: launch of grid (7, 2, 1), block (128, 1, 1) with 4096 bytes of shared memory: "
      "expected success, got unspecified launch failure");
}

TEST_F(Runtime, ABlockThatNoDeviceTakesIsRefusedBeforeItIsLaunched) {
  for (const unsigned threads : {0U, 16U, 33U, 1056U}) {
    const auto [kind, message] = error_of([&] {
      cu::check_launch_shape({"toy", {1, 1, 1}, {threads, 1, 1}, 0});
    });
    EXPECT_EQ(kind, ErrorKind::usage) << threads;
    EXPECT_EQ(message, fmt::format("toy: block must be a multiple of 32 up to 1024 threads, got "
                                   "({}, 1, 1)",
                                   threads));
  }
  const auto [kind, message] = error_of([] {
    cu::check_launch_shape({"toy", {1, 1, 1}, {32, 1, 1}, 227 * 1024 + 1});
  });
  EXPECT_EQ(message, "toy: shared memory must be at most 232448 bytes on this device, got 232449");
  EXPECT_NO_THROW(cu::check_launch_shape({"toy", {1, 1, 1}, {32, 32, 1}, 227 * 1024}));
}

}  // namespace

}  // namespace tessera
