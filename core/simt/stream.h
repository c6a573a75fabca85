// Streams of the simt device: queues whose work runs only when somebody waits, and then as late or
// as interleaved as the schedule likes. A missing wait, a staging buffer reused early and a free
// before the last use show as wrong results or as reads of unwritten memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace tessera::simt {

/// A handle for Stream::handle. Destroying runs what is left; an error of it is lost then.
void* create_stream();
void destroy_stream(void* stream) noexcept;
/// What a piece of work is as a node of a graph.
enum class NodeKind : std::uint8_t { kernel, copy, mark };
/// Queues work. That of the default stream, null, is queued too: in forward order it runs at once,
/// in reverse order when somebody waits, at random here and there in between.
void enqueue(void* stream, std::function<void()> work, NodeKind kind = NodeKind::kernel);
/// Of this thread: the default stream runs its work at once in any order, for tests of single
/// kernels, whose faults are then thrown by the launch.
void run_default_at_once(bool on);
/// Copies when its turn comes: both memories must stay as they are until then.
void copy_queued(void* stream, void* target, const void* source, std::size_t bytes);
/// Memory that is there once its turn comes: what others wrote to it before is lost then, as the
/// one before who had it on cuda may still be at work. Throws Error(internal) while the stream is
/// recorded, where on cuda it would become a node of the graph.
void* allocate_queued(std::size_t bytes, void* stream);
/// Takes memory back when its turn comes; a fault while the stream is recorded, as graphs do not
/// own what others allocated.
void free_queued(void* data, void* stream);
/// Makes memory look never written when its turn comes.
void poison_queued(void* stream, void* data, std::size_t bytes);
/// Runs the stream's work to its end; null: that of all streams. In forward order nothing else
/// runs, in reverse order everything else first, at random other streams in between. Throws what
/// the work throws.
void synchronize(void* stream);

/// An event: work queued behind wait_event() in one stream runs after what stood before
/// record_event() in another.
void* create_event();
void destroy_event(void* event);
void record_event(void* event, void* stream);
void wait_event(void* event, void* stream);
/// Whether the last record_event() has run.
bool event_reached(void* event);
/// Runs work of any stream until it has.
void synchronize_event(void* event);

/// From here on work of the stream is kept for a graph instead of queued; events are refused.
void begin_capture(void* stream);
void* end_capture(void* stream);
/// Ends a recording and forgets it.
void abandon_capture(void* stream);
std::size_t graph_nodes(void* recorded);
void destroy_recorded(void* recorded);
/// What launch_graph() takes.
void* make_graph(void* recorded);
/// The graph becomes one of the recorded work, which must have as many nodes of the same kinds in
/// the same order; false if not. What was launched before stays as it was.
bool update_graph(void* graph, void* recorded);
/// Queues all work of the graph, with the arguments and addresses that it was recorded with.
void launch_graph(void* graph, void* stream);
void destroy_graph(void* graph);

}  // namespace tessera::simt
