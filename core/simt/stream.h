// Streams of the simt device: queues whose work runs only when somebody waits, and then as late or
// as interleaved as the schedule likes. A missing wait, a staging buffer reused early and a free
// before the last use show as wrong results or as reads of unwritten memory.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera::simt {

/// A handle for Stream::handle. Destroying runs what is left; an error of it is lost then.
void* create_stream();
void destroy_stream(void* stream) noexcept;
/// Queues work; with a null stream it runs at once.
void enqueue(void* stream, std::function<void()> work);
/// Copies when its turn comes: both memories must stay as they are until then.
void copy_queued(void* stream, void* target, const void* source, std::size_t bytes);
/// Takes memory back when its turn comes.
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
/// Queues all work of the graph again, with the arguments and addresses that it was recorded with.
void launch_graph(void* graph, void* stream);
void destroy_graph(void* graph);

}  // namespace tessera::simt
