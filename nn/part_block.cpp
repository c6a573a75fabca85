#include "nn/part_block.h"

#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"

namespace tessera {
namespace {

Tensor index_tensor(const std::vector<std::int32_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

// (H) -> (H D): one scale for each channel of its head.
Tensor per_channel(const Tensor& per_head, std::int64_t width) {
  const std::int64_t heads = per_head.shape(0);
  std::vector<std::int32_t> head(static_cast<std::size_t>(width));
  for (std::int64_t c = 0; c < width; ++c) {
    head[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(c / (width / heads));
  }
  return gather_rows(per_head.reshape({heads, 1}), index_tensor(head)).reshape({width});
}

}  // namespace

WithClass::WithClass(const Segments& s) {
  std::vector<std::int32_t> rows, one_each{0}, offsets{0};
  for (int j = 0; j < s.count(); ++j) {
    rows.push_back(j);
    const std::int32_t first = s.count() + s.cu_seqlens()[static_cast<std::size_t>(j)];
    for (std::int32_t i = 0; i < s.length(j); ++i) {
      rows.push_back(first + i);
    }
    offsets.push_back(static_cast<std::int32_t>(rows.size()));
    one_each.push_back(j + 1);
  }
  index = index_tensor(rows);
  queries = Segments(one_each);
  all = Segments(offsets);
}

Tensor WithClass::repeat(const Tensor& cls) const {
  const std::vector<std::int32_t> zeros(static_cast<std::size_t>(queries.count()), 0);
  return gather_rows(cls, index_tensor(zeros));
}

Tensor WithClass::table(const Tensor& cls, const Tensor& x) const {
  const Tensor parts[] = {cls, x};
  return gather_rows(concat_rows(parts), index);
}

PartBlock::PartBlock(const Config& c, Rng& rng)
    : norm1(c.width),
      attn({.width = c.width, .heads = c.heads, .dropout = c.dropout}, rng),
      post_norm(c.width),
      norm2(c.width),
      fc1({.in = c.width, .out = 4 * c.width}, rng),
      fc_norm(4 * c.width),
      fc2({.in = 4 * c.width, .out = c.width}, rng),
      drop(c.dropout) {
  child("norm1", norm1);
  child("attn", attn);
  c_attn = parameter("c_attn", Tensor::full({c.heads}, 1.0F));
  child("post_norm", post_norm);
  child("norm2", norm2);
  child("fc1", fc1);
  child("fc_norm", fc_norm);
  child("fc2", fc2);
  child("drop", drop);
  w_resid = parameter("w_resid", Tensor::full({c.width}, 1.0F));
}

Tensor PartBlock::operator()(const Tensor& x, const Segments& segments, const Tensor& bias,
                             const DropoutStream& dropout) const {
  return finish(x, attn(norm1(x), segments, {}, bias, fork(dropout, "attention")), dropout);
}

Tensor PartBlock::attend(const Tensor& cls, const Tensor& x, const WithClass& rows,
                         const DropoutStream& dropout) const {
  const Tensor all = norm1(rows.table(cls, x));  // (B + T, d)
  return finish(cls, attn.cross(cls, all, rows.queries, rows.all, {}, fork(dropout, "attention")),
                dropout);
}

Tensor PartBlock::finish(const Tensor& x, const Tensor& mixed, const DropoutStream& dropout) const {
  const Tensor a = post_norm(mul_rows(mixed, per_channel(c_attn, x.shape(1))));
  const auto [r, normed] = norm2.of_sum(x, drop(a, fork(dropout, "mixed")));
  const Tensor hidden = drop(fc1(normed, Activation::gelu), fork(dropout, "hidden"));  // (T, 4 d)
  const Tensor f = drop(fc2(fc_norm(hidden)), fork(dropout, "output"));
  return add(f, mul_rows(r, w_resid));
}

}  // namespace tessera
