// A warp per row of f32 or bf16. Backward: one owner for each row of dx, so no atomics on its
// values and one order. The sort by key: a histogram for each chunk of 512 keys, a scan over chunks
// and one over keys, and a warp for each chunk that gives its keys their places in order. Equal to
// the host's, whatever the schedule: the only atomics count.
#include "core/gpu/quad.cuh"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/gather/gather_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;

template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const T, 2> x, View<const std::int32_t, 1> index, View<T, 2> y) {
  const std::int64_t i = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (i >= y.shape[0]) {
    return;
  }
  const std::int32_t from = ldg(index.data + i);
  const bool aligned = quads_are_aligned(x) && quads_are_aligned(y);
  for (std::int64_t j = 4 * lane(); j < y.shape[1]; j += 128) {
    const std::int64_t left = y.shape[1] - j;
    store_quad(y.row(i) + j, load_quad(x.row(from) + j, left, aligned), left, aligned);
  }
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    integers_kernel(View<const std::int32_t, 1> values, View<const std::int32_t, 1> index,
                    std::int32_t shift, View<std::int32_t, 1> y) {
  const std::int64_t i = global_thread();
  if (i >= y.shape[0]) {
    return;
  }
  const std::int32_t from = ldg(index.data + i);
  stg(y.data + i, from < 0 ? -1 - from : ldg(values.data + from) + shift);
}

// Sums are f32, rounded once.
template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(View<const T, 2> dy, View<const std::int32_t, 1> starts,
                    View<const std::int32_t, 1> order, View<T, 2> dx) {
  const std::int64_t n = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (n >= dx.shape[0]) {
    return;
  }
  const std::int32_t begin = ldg(starts.data + n);
  const std::int32_t end = ldg(starts.data + n + 1);
  const bool aligned = quads_are_aligned(dy) && quads_are_aligned(dx);
  for (std::int64_t j = 4 * lane(); j < dx.shape[1]; j += 128) {
    const std::int64_t left = dx.shape[1] - j;
    Quad sum{};
    for (std::int32_t i = begin; i < end; ++i) {
      const Quad row = load_quad(dy.row(ldg(order.data + i)) + j, left, aligned);
      TESSERA_UNROLL
      for (int e = 0; e < 4; ++e) {
        sum.x[e] += row.x[e];
      }
    }
    store_quad(dx.row(n) + j, sum, left, aligned);
  }
}

// counts (chunk, n): how often key n is in the chunk. A block has a row of it to itself.
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    count_kernel(View<const std::int32_t, 1> keys, View<std::int32_t, 2> counts) {
  const std::int64_t chunk = block_idx().x;
  const std::int64_t begin = chunk * kSortChunk;
  for (std::int64_t n = linear_thread(); n < counts.shape[1]; n += 32 * kWarps) {
    stg(&counts(chunk, n), 0);
  }
  sync_block();
  for (std::int64_t i = begin + linear_thread(); i < begin + kSortChunk; i += 32 * kWarps) {
    if (i < keys.shape[0]) {
      atomic_add(&counts(chunk, ldg(keys.data + i)), 1);
    }
  }
}

// counts (chunk, n) := how often key n is in earlier chunks; starts[n + 1] := how often in all.
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    chunk_scan_kernel(View<std::int32_t, 2> counts, View<std::int32_t, 1> starts) {
  const std::int64_t n = global_thread();
  if (n >= counts.shape[1]) {
    return;
  }
  std::int32_t total = 0;
  for (std::int64_t chunk = 0; chunk < counts.shape[0]; ++chunk) {
    const std::int32_t here = ldg(&counts(chunk, n));
    stg(&counts(chunk, n), total);
    total += here;
  }
  stg(starts.data + n + 1, total);
}

struct ScanSmem {
  std::int32_t total[32];
};

// The sum of v over the lanes up to this one.
TESSERA_DEVICE std::int32_t sum_so_far(std::int32_t v) {
  for (int step = 1; step < 32; step *= 2) {
    const std::int32_t before = shfl_up(v, static_cast<unsigned>(step));
    v += lane() >= step ? before : 0;
  }
  return v;
}

// One block turns the counts starts[1 ..] into sums, 1,024 keys at a time.
TESSERA_GLOBAL void __launch_bounds__(1024) key_scan_kernel(View<std::int32_t, 1> starts) {
  TESSERA_SMEM(ScanSmem, s);
  if (linear_thread() == 0) {
    stg(starts.data, 0);
  }
  std::int32_t carry = 0;
  for (std::int64_t begin = 1; begin < starts.shape[0]; begin += 1024) {
    const std::int64_t at = begin + linear_thread();
    const std::int32_t sum = sum_so_far(at < starts.shape[0] ? ldg(starts.data + at) : 0);
    if (lane() == 31) {
      s.total[warp()] = sum;
    }
    sync_block();
    const std::int32_t all = sum_so_far(s.total[lane()]);
    const std::int32_t before = shfl_idx(all, warp()) - s.total[warp()];
    if (at < starts.shape[0]) {
      stg(starts.data + at, carry + before + sum);
    }
    carry += shfl_idx(all, 31);
    sync_block();  // the totals may be overwritten
  }
}

/// How many earlier lanes have this lane's key, and whether a later one has.
struct Rank {
  std::int32_t earlier;
  bool later;
};
TESSERA_DEVICE Rank rank_in_warp(std::int32_t key) {
  Rank r{0, false};
  for (int other = 0; other < 32; ++other) {
    const bool same = shfl_idx(key, other) == key;
    r.earlier += same && other < lane() ? 1 : 0;
    r.later = r.later || (same && other > lane());
  }
  return r;
}

// A warp walks a chunk's keys in order; counts (chunk, key) is the next free place of the key.
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    place_kernel(View<const std::int32_t, 1> keys, View<std::int32_t, 2> counts,
                 View<const std::int32_t, 1> starts, View<std::int32_t, 1> order) {
  const std::int64_t chunk = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (chunk >= counts.shape[0]) {
    return;  // a whole warp, and no barrier follows
  }
  const std::int64_t end = (chunk + 1) * kSortChunk;
  for (std::int64_t i = chunk * kSortChunk + lane(); i < end; i += 32) {
    const bool there = i < keys.shape[0];
    const std::int32_t key = there ? ldg(keys.data + i) : -1;
    const Rank rank = rank_in_warp(key);
    const std::int32_t place = there ? ldg(&counts(chunk, key)) + rank.earlier : 0;
    sync_warp();
    if (there) {
      stg(order.data + ldg(starts.data + key) + place, static_cast<std::int32_t>(i));
      if (!rank.later) {
        stg(&counts(chunk, key), place + 1);
      }
    }
    sync_warp();
  }
}

template <class T>
void copy_rows(View<const T, 2> x, View<const std::int32_t, 1> index, View<T, 2> y, Stream stream) {
  if (y.shape[0] > 0) {
    launch(forward_kernel<T>,
           {"gather_forward", {blocks_for(y.shape[0], kWarps)}, {32 * kWarps}, 0, stream}, x, index,
           y);
  }
}

template <class T>
void add_rows(View<const T, 2> dy, View<const std::int32_t, 1> starts,
              View<const std::int32_t, 1> order, View<T, 2> dx, Stream stream) {
  if (dx.shape[0] > 0) {
    launch(backward_kernel<T>,
           {"gather_backward", {blocks_for(dx.shape[0], kWarps)}, {32 * kWarps}, 0, stream}, dy,
           starts, order, dx);
  }
}

}  // namespace

void gather_integers(View<const std::int32_t, 1> values, View<const std::int32_t, 1> index,
                     std::int32_t shift, View<std::int32_t, 1> y, Stream stream) {
  if (y.shape[0] > 0) {
    launch(integers_kernel,
           {"gather_integers", {blocks_for(y.shape[0], 32 * kWarps)}, {32 * kWarps}, 0, stream},
           values, index, shift, y);
  }
}

void gather_forward(View<const float, 2> x, View<const std::int32_t, 1> index, View<float, 2> y,
                    Stream stream) {
  copy_rows(x, index, y, stream);
}
void gather_forward_bf16(View<const bf16, 2> x, View<const std::int32_t, 1> index, View<bf16, 2> y,
                         Stream stream) {
  copy_rows(x, index, y, stream);
}

void gather_backward(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                     View<const std::int32_t, 1> order, View<float, 2> dx, Stream stream) {
  add_rows(dy, starts, order, dx, stream);
}
void gather_backward_bf16(View<const bf16, 2> dy, View<const std::int32_t, 1> starts,
                          View<const std::int32_t, 1> order, View<bf16, 2> dx, Stream stream) {
  add_rows(dy, starts, order, dx, stream);
}

void gather_sort(View<const std::int32_t, 1> keys, View<std::int32_t, 2> counts,
                 View<std::int32_t, 1> starts, View<std::int32_t, 1> order, Stream stream) {
  const auto chunks = static_cast<unsigned>(counts.shape[0]);
  if (chunks > 0) {
    launch(count_kernel, {"gather_sort_count", {chunks}, {32 * kWarps}, 0, stream}, keys, counts);
  }
  if (counts.shape[1] > 0) {
    launch(chunk_scan_kernel,
           {"gather_sort_chunks",
            {blocks_for(counts.shape[1], 32 * kWarps)},
            {32 * kWarps},
            0,
            stream},
           counts, starts);
  }
  launch(key_scan_kernel, {"gather_sort_keys", {1}, {1024}, sizeof(ScanSmem), stream}, starts);
  if (chunks > 0) {
    launch(place_kernel,
           {"gather_sort_place", {blocks_for(chunks, kWarps)}, {32 * kWarps}, 0, stream}, keys,
           counts, starts, order);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
