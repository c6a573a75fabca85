#include "nn/models/heads.h"

#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/segment/segment.h"
#include "nn/models/packing.h"

namespace tessera {
namespace {

/// [cls_j; x_j] for each jet as rows of the table cls | x.
struct WithClass {
  std::vector<std::int32_t> index, kv_offsets{0}, q_offsets{0};
};

WithClass prepend_class(const Segments& s) {
  WithClass w;
  for (int j = 0; j < s.count(); ++j) {
    w.index.push_back(j);
    const std::int32_t first = s.count() + s.cu_seqlens()[static_cast<std::size_t>(j)];
    for (std::int32_t i = 0; i < s.length(j); ++i) {
      w.index.push_back(first + i);
    }
    w.kv_offsets.push_back(static_cast<std::int32_t>(w.index.size()));
    w.q_offsets.push_back(j + 1);
  }
  return w;
}

// (H) -> (H D): one scale for each channel of its head.
Tensor per_channel(const Tensor& per_head, std::int64_t width) {
  const std::int64_t heads = per_head.shape(0);
  std::vector<std::int32_t> head(static_cast<std::size_t>(width));
  for (std::int64_t c = 0; c < width; ++c) {
    head[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(c / (width / heads));
  }
  return gather_rows(per_head.reshape({heads, 1}), RowPacker::vector_tensor(head)).reshape({width});
}

}  // namespace

SumHead::SumHead(std::int64_t width, std::int64_t outputs, Rng& rng)
    : fc1({.in = width, .out = width}, rng), fc2({.in = width, .out = outputs}, rng) {
  child("fc1", fc1);
  child("fc2", fc2);
}

Tensor SumHead::operator()(const Tensor& h, const Segments& segments) const {
  return fc2(segment_pool(fc1(h, Activation::relu), segments, Pool::sum));
}

ClassBlock::ClassBlock(std::int64_t width, std::int64_t h, Rng& rng)
    : heads(h),
      norm1(width),
      attn({.width = width, .heads = h}, rng),
      post_norm(width),
      norm2(width),
      fc1({.in = width, .out = 4 * width}, rng),
      fc_norm(4 * width),
      fc2({.in = 4 * width, .out = width}, rng) {
  child("norm1", norm1);
  child("attn", attn);
  c_attn = parameter("c_attn", Tensor::full({heads}, 1.0F));
  child("post_norm", post_norm);
  child("norm2", norm2);
  child("fc1", fc1);
  child("fc_norm", fc_norm);
  child("fc2", fc2);
  w_resid = parameter("w_resid", Tensor::full({width}, 1.0F));
}

Tensor ClassBlock::operator()(const Tensor& cls, const Tensor& x, const Segments& segments) const {
  const std::int64_t d = cls.shape(1), b = cls.shape(0), width = d / heads;
  const WithClass w = prepend_class(segments);
  const Tensor parts[] = {cls, x};
  const Tensor u =
      norm1(gather_rows(concat_rows(parts), RowPacker::vector_tensor(w.index)));  // (T + B, d)
  const Tensor q =
      linear(cls, attn.qkv.weight.slice(0, 0, d), attn.qkv.bias.slice(0, 0, d));  // (B, d)
  const Tensor kv = linear(u, attn.qkv.weight.slice(0, d, 3 * d), attn.qkv.bias.slice(0, d, 3 * d));
  const Tensor mixed =
      cross_attention(q.reshape({b, heads, width}), kv.reshape({u.shape(0), 2, heads, width}),
                      Segments(w.q_offsets), Segments(w.kv_offsets));  // (B, H, D)
  const Tensor a = mul_rows(attn.out(mixed.reshape({b, d})), per_channel(c_attn, d));
  const Tensor r = add(cls, post_norm(a));
  const Tensor f = fc2(fc_norm(fc1(norm2(r), Activation::gelu)));
  return add(f, mul_rows(r, w_resid));
}

ClassAttentionHead::ClassAttentionHead(const Config& c, Rng& rng)
    : norm(c.width), fc({.in = c.width, .out = c.outputs}, rng) {
  cls = parameter("cls", normal_init({1, c.width}, 0.02F, rng));
  for (std::int64_t i = 0; i < c.blocks; ++i) {
    blocks.push_back(std::make_unique<ClassBlock>(c.width, c.heads, rng));
    child(fmt::format("cls_block.{}", i), *blocks.back());
  }
  child("norm", norm);
  child("fc", fc);
}

Tensor ClassAttentionHead::operator()(const Tensor& h, const Segments& segments) const {
  const std::vector<std::int32_t> zeros(static_cast<std::size_t>(segments.count()), 0);
  Tensor token = gather_rows(cls, RowPacker::vector_tensor(zeros));  // (B, d)
  for (const auto& block : blocks) {
    token = (*block)(token, h, segments);
  }
  return fc(norm(token));
}

DeepSets::DeepSets(std::int64_t features, std::int64_t width, std::int64_t outputs, Rng& rng) {
  for (int i = 0; i < 4; ++i) {
    phi.push_back(
        std::make_unique<Linear>(LinearConfig{.in = i == 0 ? features : width, .out = width}, rng));
    child(fmt::format("phi.{}", i), *phi.back());
  }
  for (int i = 0; i < 4; ++i) {
    rho.push_back(
        std::make_unique<Linear>(LinearConfig{.in = width, .out = i == 3 ? outputs : width}, rng));
    child(fmt::format("f.{}", i), *rho.back());
  }
}

Tensor DeepSets::operator()(const Tensor& x, const Segments& segments) const {
  Tensor h = x;
  for (const auto& layer : phi) {
    h = (*layer)(h, Activation::gelu);
  }
  Tensor y = gelu(segment_pool(h, segments, Pool::mean));  // (B, width)
  for (std::size_t i = 0; i < rho.size(); ++i) {
    y = (*rho[i])(y, i + 1 < rho.size() ? Activation::gelu : Activation::none);
  }
  return y;
}

}  // namespace tessera
