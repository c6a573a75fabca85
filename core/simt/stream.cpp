#include "core/simt/stream.h"

#include <algorithm>
#include <cassert>
#include <deque>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "core/check.h"
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
  bool always = false;  // runs behind a fault too: frees, marks
};

struct Node {
  NodeKind kind;
  std::function<void()> work;
};
/// Work that was recorded.
using Recording = std::vector<Node>;

Recording& recording_at(void* handle) { return *static_cast<Recording*>(handle); }

struct Queue {
  std::deque<Task> tasks;
  std::unique_ptr<Recording> recording{};  // of the graph that is being captured
};

bool records(const void* stream) {
  return stream != nullptr && static_cast<const Queue*>(stream)->recording != nullptr;
}

void refuse_event(const void* stream) {
  TESSERA_CHECK_KIND(ErrorKind::internal, !records(stream),
                     "simt: expected no event while a graph is recorded, got one");
}

// Streams belong to the thread that made them, as its schedule does. The list is never destroyed:
// tensors of static duration free into the default stream after the thread's own objects are gone.
std::vector<Queue*>& queues() {
  thread_local auto* list = new std::vector<Queue*>;
  return *list;
}
thread_local std::mt19937_64 t_random{0};
thread_local bool t_default_at_once = false;

// The default stream, Stream{}. As on cuda, where the others are non-blocking, it is one of many:
// it waits for no other stream and none waits for it. It lives as long as the list.
Queue& default_queue() {
  thread_local Queue* queue = [] {
    queues().push_back(new Queue);
    return queues().back();
  }();
  return *queue;
}

Queue& queue_of(void* stream) {
  return stream == nullptr ? default_queue() : *static_cast<Queue*>(stream);
}

bool runnable(const Queue& q) {
  return !q.tasks.empty() && (q.tasks.front().awaited == nullptr ||
                              q.tasks.front().awaited->done >= q.tasks.front().turn);
}

bool pending(const Queue* target) {
  return target != nullptr
             ? !target->tasks.empty()
             : std::ranges::any_of(queues(), [](const Queue* q) { return !q->tasks.empty(); });
}

// The queue whose head runs next while `target` is awaited. There is one: an event is awaited only
// after its record was queued, so the oldest task of all can always run.
Queue* choose(Queue* target) {
  std::vector<Queue*> ready;
  std::ranges::copy_if(queues(), std::back_inserter(ready),
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

void run_default_at_once(bool on) { t_default_at_once = on; }

void* create_stream() {
  queues().push_back(new Queue);  // owned by the handle
  return queues().back();
}

void destroy_stream(void* stream) noexcept {
  // An error ends a run wherever it shows; here, where all is being taken down, it has shown.
  for (bool again = true; again;) {
    try {
      synchronize(stream);
      again = false;
    } catch (const std::exception&) {
    }
  }
  std::erase(queues(), static_cast<Queue*>(stream));
  delete static_cast<Queue*>(stream);
}

namespace {
void run_to_the_end(Queue& queue);

// Whether the default stream works off what it holds as soon as something is queued there: always
// in forward order, never in reverse, now and then at random.
bool default_runs_now() {
  constexpr std::uint64_t kSeldom = 8;
  const Order order = schedule().order;
  return t_default_at_once || order == Order::forward ||
         (order == Order::random && t_random() % kSeldom == 0);
}

// Waits, marks and frees come from destructors too: they run nothing else, which may throw.
void push(void* stream, Task task) {
  Queue& queue = queue_of(stream);
  const bool harmless = task.always && queue.tasks.empty();
  const bool runs = stream == nullptr && task.work && (harmless || !task.always);
  queue.tasks.push_back(std::move(task));
  if (runs && default_runs_now()) {
    run_to_the_end(queue);
  }
}

void enqueue_always(void* stream, std::function<void()> work) {
  if (Queue& queue = queue_of(stream); queue.recording) {
    queue.recording->push_back({NodeKind::mark, std::move(work)});
  } else {
    push(stream, {std::move(work), nullptr, 0, true});
  }
}
}  // namespace

void enqueue(void* stream, std::function<void()> work, NodeKind kind) {
  if (Queue& queue = queue_of(stream); queue.recording) {
    queue.recording->push_back({kind, std::move(work)});
  } else {
    push(stream, {std::move(work), nullptr, 0, false});
  }
}

void copy_queued(void* stream, void* target, const void* source, std::size_t bytes) {
  enqueue(
      stream, [=] { simt_copy(target, source, bytes); }, NodeKind::copy);
}

void* allocate_queued(std::size_t bytes, void* stream) {
  TESSERA_CHECK_KIND(ErrorKind::internal, !records(stream),
                     "simt: expected no allocation in the order of a stream that is recorded");
  void* data = simt_allocate(bytes);
  if (stream != nullptr || schedule().order != Order::forward) {
    poison_queued(stream, data, bytes);
  }
  return data;
}

void free_queued(void* data, void* stream) {
  if (records(stream)) {
    remember_memory_fault("free in the recording of a graph");
  }
  enqueue_always(stream, [data] { simt_free(data); });
}

void poison_queued(void* stream, void* data, std::size_t bytes) {
  enqueue(
      stream, [data, bytes] { poison_memory(data, bytes); }, NodeKind::mark);
}

namespace {
// Behind a fault nothing else may run: it would read what was not made, or write to host memory
// that its owner has given up on meeting the error.
void drop_work() {
  for (Queue* q : queues()) {
    std::erase_if(q->tasks, [](const Task& t) { return t.work && !t.always; });
  }
}

void run_one(Queue* q) {
  const Task task = std::move(q->tasks.front());
  q->tasks.pop_front();
  try {
    if (task.work) {
      task.work();
    }
  } catch (...) {
    drop_work();
    throw;
  }
}
}  // namespace

namespace {
void run_to_the_end(Queue& queue) {
  while (pending(&queue)) {
    run_one(choose(&queue));
  }
}
}  // namespace

void synchronize(void* stream) {
  auto* target = static_cast<Queue*>(stream);
  t_random.seed(schedule().seed);
  while (pending(target)) {
    run_one(choose(target));
  }
}

void* create_event() { return new std::shared_ptr<Event>(std::make_shared<Event>()); }
void destroy_event(void* event) { delete static_cast<std::shared_ptr<Event>*>(event); }

void record_event(void* event, void* stream) {
  refuse_event(stream);
  const auto e = *static_cast<std::shared_ptr<Event>*>(event);
  ++e->asked;
  enqueue_always(stream, [e] { ++e->done; });
}

// As in CUDA, an event that was never recorded is awaited by nobody.
void wait_event(void* event, void* stream) {
  refuse_event(stream);
  const auto& e = *static_cast<std::shared_ptr<Event>*>(event);
  if (e->done < e->asked) {
    push(stream, {nullptr, e, e->asked, false});
  }
}

bool event_reached(void* event) {
  const auto& e = *static_cast<std::shared_ptr<Event>*>(event);
  return e->done == e->asked;
}

void synchronize_event(void* event) {
  t_random.seed(schedule().seed);
  while (!event_reached(event)) {
    run_one(choose(nullptr));
  }
}

void begin_capture(void* stream) {
  static_cast<Queue*>(stream)->recording = std::make_unique<Recording>();
}

void* end_capture(void* stream) { return static_cast<Queue*>(stream)->recording.release(); }
void abandon_capture(void* stream) { static_cast<Queue*>(stream)->recording.reset(); }

namespace {
// Poison is no node on a GPU.
std::vector<NodeKind> kinds_of(const Recording& recording) {
  std::vector<NodeKind> kinds;
  for (const Node& node : recording) {
    if (node.kind != NodeKind::mark) {
      kinds.push_back(node.kind);
    }
  }
  return kinds;
}
}  // namespace

std::size_t graph_nodes(void* recorded) { return kinds_of(recording_at(recorded)).size(); }

void destroy_recorded(void* recorded) { delete &recording_at(recorded); }

void* make_graph(void* recorded) { return new Recording(recording_at(recorded)); }

bool update_graph(void* graph, void* recorded) {
  if (kinds_of(recording_at(graph)) != kinds_of(recording_at(recorded))) {
    return false;
  }
  recording_at(graph) = recording_at(recorded);
  return true;
}

void launch_graph(void* graph, void* stream) {
  for (const Node& node : recording_at(graph)) {
    enqueue(stream, node.work, node.kind);
  }
}

void destroy_graph(void* graph) { destroy_recorded(graph); }

}  // namespace tessera::simt
