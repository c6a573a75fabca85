// Ragged attention on tensor cores: no score reaches memory, no atomics, every gradient has one
// owner, who adds in a fixed order. bf16 enters mma as it is; f32 is multiplied as f32, in three
// products of tf32 (core/gpu/tile.cuh), which take six times as long as one of bf16: predicted for
// an H100, 1000 jets of 50, 8 heads of 32: forward 65 us, still the time of its bytes, backward 147
// us of which the bytes take 126. A segment of up to 128 rows lies whole in the shared memory of
// one block (forward.cuh, backward.cuh), a longer one passes through in windows (long.cuh). Blocks
// take as many heads as fill their eight warps and whole sectors. Traffic of an element of 2 bytes:
// forward 8 T H D + 4 T H bytes, backward 16 T H D + 4 T H.
#include "core/kernel.h"
#include "kernels/attention/attention_types.h"
#include "kernels/attention/long.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

// Calls body with the width of a head rounded up, as a constant.
template <class Body>
void with_width(std::int64_t width, Body body) {
  if (width <= 8) {
    body(std::integral_constant<int, 8>{});
  } else if (width <= 16) {
    body(std::integral_constant<int, 16>{});
  } else if (width <= 32) {
    body(std::integral_constant<int, 32>{});
  } else if (width <= 64) {
    body(std::integral_constant<int, 64>{});
  } else {
    tessera::detail::throw_no_kernel("attention with heads wider than 64", kDevice);
  }
}

// Calls body(rows as a constant, items) for the classes of segments that a batch has.
template <class Body>
void for_each_class(const AttentionKept& kept, Body body) {
  const AttentionItem* items = kept.items;
  const auto one = [&](auto which) {
    constexpr int kWhich = decltype(which)::value;
    if (kept.item_counts[kWhich] > 0) {
      body(std::integral_constant<int, kAttentionRows[kWhich]>{}, items, kept.item_counts[kWhich]);
    }
    items += kept.item_counts[kWhich];
  };
  one(std::integral_constant<int, 0>{});
  one(std::integral_constant<int, 1>{});
  one(std::integral_constant<int, 2>{});
}

// A block for each item and group of heads.
template <class Smem>
LaunchConfig config_of(const char* name, std::int64_t items, std::int64_t heads, int group,
                       Stream stream) {
  return {name,
          {static_cast<unsigned>(items * blocks_for(heads, group))},
          {kThreads},
          sizeof(Smem),
          stream};
}

template <class T>
void forward(const Inputs<T>& in, const AttentionLayout& l, T* out, Stream stream) {
  with_width(l.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    for_each_class(l.kept, [&](auto rows, const AttentionItem* items, int count) {
      constexpr int kRows = decltype(rows)::value;
      using Smem = ForwardSmem<T, kWidth, kRows>;
      launch(forward_kernel<T, kWidth, kRows>,
             config_of<Smem>("attention_forward", count, l.heads, Smem::kHeads, stream), in, l,
             items, out);
    });
    if (l.kept.q_block_count > 0) {
      launch(long_forward_kernel<T, kWidth>,
             config_of<LongForwardSmem<T, kWidth>>("attention_long_forward", l.kept.q_block_count,
                                                   l.heads, 1, stream),
             in, l, l.kept.q_blocks, out);
    }
  });
}

template <class T>
void backward(const Inputs<T>& in, const T* dout, const AttentionLayout& l, const Gradients<T>& g,
              Stream stream) {
  with_width(l.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    for_each_class(l.kept, [&](auto rows, const AttentionItem* items, int count) {
      constexpr int kRows = decltype(rows)::value;
      using Smem = BackwardSmem<T, kWidth, kRows>;
      launch(backward_kernel<T, kWidth, kRows>,
             config_of<Smem>("attention_backward", count, l.heads, Smem::kHeads, stream), in, dout,
             l, items, g);
    });
    if (l.kept.q_block_count > 0) {
      launch(long_query_kernel<T, kWidth>,
             config_of<LongQuerySmem<T, kWidth>>("attention_backward_queries", l.kept.q_block_count,
                                                 l.heads, 1, stream),
             in, dout, l, l.kept.q_blocks, g);
    }
    if (l.kept.k_block_count > 0) {
      launch(long_key_kernel<T, kWidth>,
             config_of<LongKeySmem<T, kWidth>>("attention_backward_keys", l.kept.k_block_count,
                                               l.heads, 1, stream),
             in, dout, l, l.kept.k_blocks, g);
    }
  });
}

}  // namespace

void attention_forward(const float* q, const float* k, const float* v, AttentionLayout l,
                       float* out, Stream stream) {
  if (l.heads > 0) {
    forward<float>({q, k, v}, l, out, stream);
  }
}

void attention_forward_bf16(const bf16* q, const bf16* k, const bf16* v, AttentionLayout l,
                            bf16* out, Stream stream) {
  if (l.heads > 0) {
    forward<bf16>({q, k, v}, l, out, stream);
  }
}

void attention_backward(const float* q, const float* k, const float* v, const float* dout,
                        AttentionLayout l, float* dq, float* dk, float* dv, float* dbias,
                        Stream stream) {
  if (l.heads > 0) {
    backward<float>({q, k, v}, dout, l, {dq, dk, dv, dbias}, stream);
  }
}

void attention_backward_bf16(const bf16* q, const bf16* k, const bf16* v, const bf16* dout,
                             AttentionLayout l, bf16* dq, bf16* dk, bf16* dv, float* dbias,
                             Stream stream) {
  if (l.heads > 0) {
    backward<bf16>({q, k, v}, dout, l, {dq, dk, dv, dbias}, stream);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
