// Streams of the simt device: queues whose work runs only when somebody waits, and then as late or
// as interleaved as the schedule likes. A missing wait, a staging buffer reused early and a free
// before the last use show as wrong results or as reads of unwritten memory.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera::simt {

/// A handle for Stream::handle. Destroying runs what is left.
void* create_stream();
void destroy_stream(void* stream);
/// Queues work; with a null stream it runs at once.
void enqueue(void* stream, std::function<void()> work);
/// Copies when its turn comes: both memories must stay as they are until then.
void copy_queued(void* stream, void* target, const void* source, std::size_t bytes);
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

}  // namespace tessera::simt
