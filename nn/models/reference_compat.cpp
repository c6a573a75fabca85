#include "nn/models/reference_compat.h"

#include <cmath>
#include <string_view>

#include "core/autograd.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/losses/losses.h"
#include "kernels/reduce/reduce.h"
#include "kernels/vq/vq.h"
#include "nn/models/packing.h"

namespace tessera {
namespace {

void check_slots(const Segments& segments, std::int64_t slots) {
  TESSERA_CHECK(segments.count() > 0 && segments.max_length() <= slots,
                "padded loss: needs jets of at most {} entries, got {} jets of up to {}", slots,
                segments.count(), segments.max_length());
}

/// Row k of the effective codebook, (1, D), with its gradient; k: (1) i32.
Tensor effective_code(const Quantizer& vq, float affine_lr, const Tensor& k) {
  const Tensor row = gather_rows(vq.codebook, k);
  const Tensor ones = Tensor::full(vq.scale.shape(), 1.0F, DType::f32, vq.scale.device());
  const Tensor factor = add(ones, scale(vq.scale, affine_lr));
  return add_rows(mul_rows(row, factor), scale(vq.bias, affine_lr));
}

/// (1) i32
Tensor code_of_zero(const Quantizer& vq, const TokenizerConfig& c) {
  const NoGrad off;
  const Tensor zero = Tensor::zeros({1, vq.codebook.shape(1)}, DType::f32, vq.codebook.device());
  const Tensor effective = vq_effective_codebook(vq.codebook, vq.scale, vq.bias, c.affine_lr);
  return vq_assign(zero, effective, c.distance);
}

/// The rows of a batch of token sequences, each with its probe behind it.
struct Probed {
  std::vector<std::int32_t> tokens;     // of every row, for gather_tokens(): a probe has the id 0
  std::vector<float> weights, real;     // of every row; `real` is 0 for probes
  std::vector<std::int32_t> real_rows;  // where the tokens landed
  std::vector<std::int32_t> offsets{0};

  Probed(const Segments& segments, std::int64_t slots) {
    for (int j = 0; j < segments.count(); ++j) {
      const std::int32_t first = segments.cu_seqlens()[static_cast<std::size_t>(j)];
      const std::int32_t m = segments.length(j);
      for (std::int32_t i = first; i < first + m; ++i) {
        real_rows.push_back(static_cast<std::int32_t>(tokens.size()));
        append(i, 1, 1);
      }
      append(literal_token(0), static_cast<float>(slots - m), 0);
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    }
  }

 private:
  void append(std::int32_t token, float weight, float is_real) {
    tokens.push_back(token);
    weights.push_back(weight);
    real.push_back(is_real);
  }
};

Tensor row_weights(const std::vector<float>& w, Device device) {
  return Tensor::from(w, {static_cast<std::int64_t>(w.size())}, device);
}

/// Hidden states of tokens and probes, (T + B, d). A probe stands behind the m tokens of its jet,
/// so the causal mask over those m keys lets it see all of them.
Tensor probed_states(const GptBackbone& backbone, const Tensor& ids, const Probed& p,
                     const Segments& segments, const DropoutStream& dropout) {
  const Segments rows(p.offsets);
  const Tensor real = RowPacker::vector_tensor(p.real_rows);
  const std::vector<std::uint8_t> causal = all_causal(segments);
  const auto mix = [&](const SelfAttention& attn, const Tensor& x) {
    return attn.cross(x, gather_rows(x, real), rows, segments, causal);
  };
  const Tensor embedded = backbone.embed(gather_tokens(ids, p.tokens, 0));
  Tensor h = embedded.to(row_type(embedded.device()));
  for (std::size_t i = 0; i < backbone.blocks().size(); ++i) {
    h = (*backbone.blocks()[i])(h, mix, fork(dropout, i));
  }
  return h.to(DType::f32);
}

bool ends_with(const std::string& name, std::string_view layer, std::string_view tensor) {
  return name.ends_with(fmt::format("{}.{}", layer, tensor));
}

/// Weight (out, in) and, behind it in the list, bias (out) of a Linear.
void start_linear(const NamedTensor& weight, const Tensor& bias, Rng& rng) {
  const Shape& shape = weight.tensor.shape();
  const auto in = static_cast<float>(shape[1]), out = static_cast<float>(shape[0]);
  const bool attention_in = ends_with(weight.name, "attn.qkv", "weight");
  if (attention_in || ends_with(weight.name, "attn.out", "weight")) {
    const float bound = attention_in ? std::sqrt(6.0F / (in + out)) : 1.0F / std::sqrt(in);
    copy_into(weight.tensor, uniform_init(shape, bound, rng));
    fill(bias, 0.0F);
    return;
  }
  const float b = 1.0F / std::sqrt(out);
  copy_into(weight.tensor, normal_init(shape, std::sqrt(2.0F / out), rng));
  copy_into(bias, add(Tensor::full(bias.shape(), -b), normal_init(bias.shape(), b, rng)));
}

}  // namespace

PaddedTokenizerLoss padded_tokenizer_loss(const Tokenizer& model, const TokenizerOutput& out,
                                          const Tensor& x, const Segments& segments,
                                          std::int64_t slots) {
  check_slots(segments, slots);
  const TokenizerConfig& c = model.config;
  const auto places = static_cast<float>(segments.count() * slots);
  PaddedTokenizerLoss result;
  result.pads = segments.count() * slots - segments.total();
  result.pad_code = code_of_zero(model.vq, c);

  const Tensor sse = sum(squared_error(out.reconstruction, x));
  const Tensor reco = scale(sse, 1.0F / (static_cast<float>(c.features) * places));
  const Tensor code = effective_code(model.vq, c.affine_lr, result.pad_code);  // (1, D)
  const Tensor norm = scale(sum(mul(code, code)), static_cast<float>(result.pads) /
                                                      (static_cast<float>(c.latent) * places));
  const Tensor pads = add(scale(norm, c.beta), scale(norm.detach(), 1.0F - c.beta));
  const Tensor packed = scale(out.vq_loss, static_cast<float>(segments.total()) / places);
  const Tensor quantizer = add(packed, pads);

  result.reconstruction_loss = reco.detach();
  result.quantizer_loss = quantizer.detach();
  result.loss = add(reco, scale(quantizer, c.alpha));
  return result;
}

PaddedLatents with_pads(const TokenizerOutput& out, const PaddedTokenizerLoss& loss) {
  const NoGrad off;
  const Tensor z = out.latent.detach();
  const Tensor parts[] = {z, Tensor::zeros({loss.pads, z.shape(1)}, z.dtype(), z.device())};
  const std::int64_t real = out.codes.shape(0);
  const Tensor codes = Tensor::empty({real + loss.pads}, DType::i32, z.device());
  copy_into(codes.slice(0, 0, real), out.codes);
  fill(codes.slice(0, real, real + loss.pads), loss.pad_code);
  return {concat_rows(parts), codes};
}

PaddedNextTokenLoss padded_next_token_loss(const GptBackbone& backbone, const NextTokenHead& head,
                                           const Tensor& ids, const Tensor& targets,
                                           const Segments& segments, std::int64_t slots,
                                           const DropoutStream& dropout) {
  check_slots(segments, slots);
  for (int j = 0; j < segments.count(); ++j) {
    TESSERA_CHECK(segments.length(j) > 0, "padded loss: jet {} has no token, not even a start", j);
  }
  const Probed p(segments, slots);
  const Tensor h = probed_states(backbone, ids, p, segments, dropout);  // (T + B, d)
  const Tensor next = gather_tokens(targets, p.tokens, 0);
  const auto loss = [&](const std::vector<float>& weights, std::int64_t places) {
    return linear_cross_entropy(h, head.ntp.weight, head.ntp.bias, next,
                                row_weights(weights, h.device()), static_cast<double>(places));
  };
  PaddedNextTokenLoss result{.loss = loss(p.weights, segments.count() * slots)};
  const NoGrad off;
  result.clean = loss(p.real, segments.total());
  return result;
}

void start_as_tau_reference(const Module& model, Rng& rng) {
  const NoGrad off;
  const std::vector<NamedTensor> all = model.named_parameters();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Tensor& t = all[i].tensor;
    if (all[i].name == "cls") {
      copy_into(t, normal_init(t.shape(), 0.02F, rng));
    } else if (t.rank() == 2) {
      TESSERA_CHECK(i + 1 < all.size() && all[i + 1].name.ends_with(".bias"),
                    "start_as_tau_reference: {} has no bias behind it", all[i].name);
      start_linear(all[i], all[i + 1].tensor, rng);
    }
  }
}

}  // namespace tessera
