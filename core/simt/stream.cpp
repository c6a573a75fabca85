#include "core/simt/stream.h"

#include <algorithm>
#include <cassert>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "core/simt/executor.h"
#include "core/simt/memory.h"

namespace tessera::simt {
namespace {

struct Event {
  int asked = 0;  // records queued
  int done = 0;   // records that ran
};

struct Task {
  std::function<void()> work;
  std::shared_ptr<const Event> awaited;  // runs once `turn` records are done
  int turn = 0;
};

struct Queue {
  std::deque<Task> tasks;
};

// Streams belong to the thread that made them, as its schedule does.
thread_local std::vector<Queue*> t_queues;
thread_local std::mt19937_64 t_random{0};

bool runnable(const Queue& q) {
  return !q.tasks.empty() && (q.tasks.front().awaited == nullptr ||
                              q.tasks.front().awaited->done >= q.tasks.front().turn);
}

bool pending(const Queue* target) {
  return target != nullptr
             ? !target->tasks.empty()
             : std::ranges::any_of(t_queues, [](const Queue* q) { return !q->tasks.empty(); });
}

// The queue whose head runs next while `target` is awaited. There is one: an event is awaited only
// after its record was queued, so the oldest task of all can always run.
Queue* choose(Queue* target) {
  std::vector<Queue*> ready;
  std::ranges::copy_if(t_queues, std::back_inserter(ready),
                       [](const Queue* q) { return runnable(*q); });
  assert(!ready.empty());
  const bool waits = target == nullptr || !runnable(*target);
  switch (schedule().order) {
    case Order::forward:
      return waits ? ready.front() : target;
    case Order::reverse: {
      const auto other =
          std::find_if(ready.rbegin(), ready.rend(), [&](const Queue* q) { return q != target; });
      return other == ready.rend() ? target : *other;
    }
    case Order::random:
      break;
  }
  return ready[t_random() % ready.size()];
}

}  // namespace

void* create_stream() {
  t_queues.push_back(new Queue);  // owned by the handle
  return t_queues.back();
}

void destroy_stream(void* stream) {
  synchronize(stream);
  std::erase(t_queues, static_cast<Queue*>(stream));
  delete static_cast<Queue*>(stream);
}

void enqueue(void* stream, std::function<void()> work) {
  if (stream == nullptr) {
    work();
  } else {
    static_cast<Queue*>(stream)->tasks.push_back({std::move(work), nullptr, 0});
  }
}

void copy_queued(void* stream, void* target, const void* source, std::size_t bytes) {
  enqueue(stream, [=] { simt_copy(target, source, bytes); });
}

void synchronize(void* stream) {
  auto* target = static_cast<Queue*>(stream);
  t_random.seed(schedule().seed);
  while (pending(target)) {
    Queue* q = choose(target);
    const Task task = std::move(q->tasks.front());
    q->tasks.pop_front();
    if (task.work) {
      task.work();
    }
  }
}

void* create_event() { return new std::shared_ptr<Event>(std::make_shared<Event>()); }
void destroy_event(void* event) { delete static_cast<std::shared_ptr<Event>*>(event); }

void record_event(void* event, void* stream) {
  const auto e = *static_cast<std::shared_ptr<Event>*>(event);
  ++e->asked;
  enqueue(stream, [e] { ++e->done; });
}

// As in CUDA, an event that was never recorded is awaited by nobody.
void wait_event(void* event, void* stream) {
  const auto& e = *static_cast<std::shared_ptr<Event>*>(event);
  if (stream != nullptr && e->asked > 0) {
    static_cast<Queue*>(stream)->tasks.push_back({nullptr, e, e->asked});
  } else if (stream == nullptr && e->done < e->asked) {
    synchronize(nullptr);
  }
}

}  // namespace tessera::simt
