#include "core/parallel.h"

#include <hwy/cache_control.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "core/check.h"

namespace tessera {
namespace {

thread_local bool inside_parallel = false;

/// One parallel_for in flight.
struct Job {
  FunctionRef<void(std::int64_t)> body;
  std::int64_t chunks;
  std::atomic<std::int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;
  std::int64_t error_chunk = INT64_MAX;

  void work() {
    for (std::int64_t i = next.fetch_add(1); i < chunks; i = next.fetch_add(1)) {
      try {
        body(i);
      } catch (...) {
        keep_error(i);
      }
    }
  }
  void keep_error(std::int64_t chunk) {
    const std::lock_guard lock(error_mutex);
    if (chunk < error_chunk) {
      error_chunk = chunk;
      error = std::current_exception();
    }
  }
};

// Between two ops of a step lie a few microseconds, less than a sleeping thread takes to wake up.
constexpr std::chrono::microseconds kSpin{30};

// Waits for done() in the time limit, on the core.
template <class Done>
void spin_until(std::chrono::microseconds limit, Done done) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done() && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 8 && !done(); ++i) {
      hwy::Pause();
    }
  }
}

int cores() {
  cpu_set_t mask;
  return sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
}

/// Persistent workers. Between jobs they spin for kSpin and then sleep; with more threads than
/// cores they sleep at once, since spinning would take the core from the one who works.
class Pool {
 public:
  explicit Pool(int threads) : spin_(threads <= cores() ? kSpin : std::chrono::microseconds{0}) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this](const std::stop_token& stop) { loop(stop); });
    }
  }
  ~Pool() {
    for (std::jthread& w : workers_) {
      w.request_stop();
    }
    wake_.notify_all();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++epoch_;
    }
    wake_.notify_all();
    inside_parallel = true;
    job.work();
    inside_parallel = false;
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;  // late workers find nothing to do
    }
    const auto idle = [this] { return busy_ == 0; };
    spin_until(spin_, idle);
    std::unique_lock lock(mutex_);
    done_.wait(lock, idle);
  }

 private:
  void loop(const std::stop_token& stop) {
    inside_parallel = true;
    std::uint64_t seen = 0;
    const auto called = [&] { return epoch_ != seen; };
    while (true) {
      spin_until(spin_, [&] { return called() || stop.stop_requested(); });
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, called)) {
        return;
      }
      seen = epoch_;
      Job* job = job_;
      if (job == nullptr) {
        continue;
      }
      ++busy_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) {
        done_.notify_one();
      }
    }
  }

  std::chrono::microseconds spin_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::atomic<std::uint64_t> epoch_ = 0;  // of the last job; written under the mutex
  std::atomic<int> busy_ = 0;             // workers inside a job; the same
  std::vector<std::jthread> workers_;     // last: joined before the members above go
};

int default_threads() {
  if (const char* text = std::getenv("TESSERA_THREADS")) {
    const int n = std::atoi(text);
    if (n >= 1 && n <= 256) {
      return n;
    }
  }
  return cores();
}

// One user of the pool at a time: independent host threads (a loader, tests) queue up here.
std::mutex pool_mutex;

std::unique_ptr<Pool>& pool() {
  static std::unique_ptr<Pool> instance = std::make_unique<Pool>(default_threads());
  return instance;
}

void run_inline(Job& job) {
  const bool previous = inside_parallel;
  inside_parallel = true;
  job.work();
  inside_parallel = previous;
}

}  // namespace

void parallel_for(std::int64_t chunks, FunctionRef<void(std::int64_t)> body) {
  if (chunks <= 0) {
    return;
  }
  Job job{body, chunks, {}, {}, {}, INT64_MAX};
  if (inside_parallel || chunks == 1) {
    run_inline(job);
  } else {
    const std::lock_guard lock(pool_mutex);
    pool()->run(job);
  }
  if (job.error) {
    std::rethrow_exception(job.error);
  }
}

int num_threads() {
  const std::lock_guard lock(pool_mutex);
  return pool()->threads();
}

void set_num_threads(int n) {
  TESSERA_CHECK(n >= 1 && n <= 256, "threads: expected 1 to 256, got {}", n);
  const std::lock_guard lock(pool_mutex);
  pool() = std::make_unique<Pool>(n);
}

}  // namespace tessera
