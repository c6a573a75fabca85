#include "nn/models/generation.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/gather/gather.h"
#include "kernels/matmul/matmul.h"
#include "kernels/sample/sample.h"
#include "kernels/vq/vq.h"
#include "nn/models/packing.h"

namespace tessera {
namespace {

constexpr std::int32_t kStartToken = 0;

/// Slots and cache rows of one step.
struct StepRows {
  std::vector<std::int32_t> slots, positions;

  /// Rows `shift` further on than the inputs' positions.
  StepRows(std::span<const DecodeInput> inputs, std::int64_t shift) {
    for (const DecodeInput& in : inputs) {
      slots.push_back(in.slot);
      positions.push_back(in.position + static_cast<std::int32_t>(shift));
    }
  }
};

KeyValueCache cache_for(const SelfAttention& attn, std::int64_t slots, std::int64_t rows) {
  return KeyValueCache::create(slots, attn.config.heads, attn.config.width / attn.config.heads,
                               rows, attn.device());
}

template <class Blocks>
BlockCaches caches_for(const Blocks& blocks, std::int64_t slots, std::int64_t rows) {
  BlockCaches caches;
  for (const auto& block : blocks) {
    caches.push_back(cache_for(block->attn, slots, rows));
  }
  return caches;
}

template <class Block>
Tensor run_block(const Block& block, const Tensor& x, const KeyValueCache& cache,
                 const StepRows& rows) {
  return block(x, [&](const SelfAttention& attn, const Tensor& u) {
    return attn.step(u, cache, rows.slots, rows.positions);
  });
}

template <class Blocks>
Tensor run_blocks(const Blocks& blocks, Tensor h, const BlockCaches& caches, const StepRows& rows) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    h = run_block(*blocks[i], h, caches[i], rows);
  }
  return h;
}

std::vector<std::int32_t> tokens_of(std::span<const DecodeInput> inputs) {
  std::vector<std::int32_t> tokens;
  for (const DecodeInput& in : inputs) {
    tokens.push_back(in.position == 0 ? kStartToken : in.code + 1);
  }
  return tokens;
}

void check_options(const GenerateOptions& o) {
  TESSERA_CHECK(o.max_particles >= 1, "generate: max_particles must be at least 1, got {}",
                o.max_particles);
  TESSERA_CHECK(o.slots >= 1, "generate: slots must be at least 1, got {}", o.slots);
}

}  // namespace

GptDecoder::GptDecoder(const GptBackbone& backbone, const NextTokenHead& head,
                       const GenerateOptions& options)
    : backbone_(backbone), head_(head) {
  check_options(options);
  TESSERA_CHECK(head.ntp.weight.shape(0) == backbone.config.vocabulary,
                "generate: the head scores {} tokens, the backbone reads {}",
                head.ntp.weight.shape(0), backbone.config.vocabulary);
  caches_ = caches_for(backbone.blocks(), options.slots, options.max_particles + 1);
}

std::int64_t GptDecoder::codes() const { return backbone_.config.vocabulary - 2; }

Tensor GptDecoder::step(std::span<const DecodeInput> inputs) {
  const Tensor x = backbone_.embed(RowPacker::vector_tensor(tokens_of(inputs)));  // (B, d)
  return run_blocks(backbone_.blocks(), x, caches_, StepRows(inputs, 0));
}

Tensor GptDecoder::token_logits(const Tensor& h) const { return head_.ntp(h); }
Tensor GptDecoder::pid_logits(const Tensor&, const Tensor&) const { return {}; }

TesseraDecoder::TesseraDecoder(const Backbone& backbone, const PretrainHead& head,
                               const Tokenizer& tokenizer, const GenerateOptions& options)
    : backbone_(backbone), head_(head), tokenizer_(tokenizer) {
  check_options(options);
  TESSERA_CHECK(tokenizer.config.codes == head.config.codes,
                "generate: the tokenizer has {} codes, the model {}", tokenizer.config.codes,
                head.config.codes);
  TESSERA_CHECK(tokenizer.config.causal_decoder,
                "generate: the tokenizer's decoder sees the whole jet, so a particle depends on "
                "codes that are not drawn yet; train one with causal_decoder = true");
  const NoGrad off;
  const Quantizer& vq = tokenizer.vq;
  codebook_ = vq_effective_codebook(vq.codebook, vq.scale, vq.bias, tokenizer.config.affine_lr);
  const std::int64_t slots = options.slots, rows = options.max_particles + 1;
  stream_ = caches_for(backbone.blocks(), slots, backbone.config.registers + rows);
  branch_ = {cache_for(head.ntp_block().attn, slots, rows)};
  tokenizer_caches_ = caches_for(tokenizer.dec, slots, options.max_particles);
  fill_registers(slots);
}

std::int64_t TesseraDecoder::codes() const { return head_.config.codes; }

// The registers lie in front of the start in each slot and are never overwritten.
void TesseraDecoder::fill_registers(std::int64_t slots) {
  std::vector<DecodeInput> inputs(static_cast<std::size_t>(slots));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    inputs[i].slot = static_cast<std::int32_t>(i);
  }
  for (std::int32_t r = 0; r < backbone_.config.registers; ++r) {
    const std::vector<std::int32_t> row(inputs.size(), r);
    run_blocks(backbone_.blocks(), gather_rows(backbone_.registers, RowPacker::vector_tensor(row)),
               stream_, StepRows(inputs, r));
  }
}

Tensor TesseraDecoder::decode_particles(std::span<const DecodeInput> particles) {
  const PrecisionScope exact(Precision::f32);  // as Tokenizer::decode, which training has seen
  std::vector<std::int32_t> codes;
  for (const DecodeInput& in : particles) {
    codes.push_back(in.code);
  }
  const Tensor z = vq_lookup(RowPacker::vector_tensor(codes), codebook_);  // (B, D)
  const Tensor h = run_blocks(tokenizer_.dec, tokenizer_.from_latent(z), tokenizer_caches_,
                              StepRows(particles, -1));  // no start row in the decoder
  return tokenizer_.out(h);
}

Tensor TesseraDecoder::stream_rows(std::span<const DecodeInput> inputs) {
  std::vector<DecodeInput> particles;
  std::vector<std::int32_t> pids, index;  // index: rows of the table start | particles
  for (const DecodeInput& in : inputs) {
    if (in.position == 0) {
      index.push_back(0);
      continue;
    }
    particles.push_back(in);
    pids.push_back(in.pid);
    index.push_back(static_cast<std::int32_t>(particles.size()));
  }
  if (particles.empty()) {
    return gather_rows(backbone_.start, RowPacker::vector_tensor(index));
  }
  const Tensor parts[] = {backbone_.start, backbone_.embed({.segments = {},
                                                            .core = decode_particles(particles),
                                                            .pid = RowPacker::vector_tensor(pids),
                                                            .context = {}})};
  return gather_rows(concat_rows(parts), RowPacker::vector_tensor(index));
}

Tensor TesseraDecoder::step(std::span<const DecodeInput> inputs) {
  const StepRows stream(inputs, backbone_.config.registers);
  const Tensor h = run_blocks(backbone_.blocks(), stream_rows(inputs), stream_, stream);
  const Tensor branch = run_block(head_.ntp_block(), backbone_.norm()(h), branch_[0],
                                  StepRows(inputs, 0));  // the branch sees no registers
  return head_.ntp_norm()(branch);
}

Tensor TesseraDecoder::token_logits(const Tensor& h) const { return head_.token_logits(h); }
Tensor TesseraDecoder::pid_logits(const Tensor& h, const Tensor& tokens) const {
  return head_.pid_logits(h, tokens);
}

namespace {

/// What one step drew for each row, with its log-likelihoods.
struct Draws {
  std::vector<std::int32_t> tokens, pids;
  std::vector<float> nll, pid_nll;
};

/// Jets in flight. The random number of a jet's k-th draw is element k of a key of (seed, uid).
template <class Decoder>
class SlotEngine {
 public:
  SlotEngine(Decoder& decoder, std::span<const std::uint64_t> uids, const GenerateOptions& options)
      : decoder_(decoder),
        options_(options),
        stop_(static_cast<std::int32_t>(decoder.codes()) + 1),
        jets_(uids.size()) {
    for (std::size_t i = 0; i < uids.size(); ++i) {
      jets_[i].uid = uids[i];
    }
    for (std::int32_t slot = 0; slot < options.slots && next_ < jets_.size(); ++slot) {
      flights_.push_back(take_off(slot));
    }
  }

  std::vector<GeneratedJet> run(const GenerateProgress& progress) {
    const auto total = static_cast<std::int64_t>(jets_.size());
    std::int64_t reported = 0;
    while (!flights_.empty()) {
      advance();
      const auto done = static_cast<std::int64_t>(next_ - flights_.size());
      if (progress && done > reported) {
        progress(done, total);
      }
      reported = done;
    }
    return std::move(jets_);
  }

 private:
  struct Flight {
    std::size_t jet;
    RngKey code_key, pid_key;
    DecodeInput next;
  };

  Flight take_off(std::int32_t slot) {
    const std::size_t jet = next_++;
    const Rng rng = Rng(options_.seed).fork("generate").fork(jets_[jet].uid);
    return {jet, rng.fork("code").key(), rng.fork("pid").key(), {.slot = slot}};
  }

  Tensor uniforms(RngKey Flight::*key, Device device) const {
    std::vector<float> u;
    for (const Flight& f : flights_) {
      u.push_back((f.*key).uniform(static_cast<std::uint64_t>(f.next.position)));
    }
    return Tensor::from(u, {static_cast<std::int64_t>(u.size())}, device);
  }

  [[nodiscard]] Draws draw(const Tensor& h) const {
    SampleOptions rule{.temperature = options_.temperature,
                       .top_k = options_.top_k,
                       .top_p = options_.top_p,
                       .excluded = {kStartToken}};
    const Tensor logits = decoder_.token_logits(h);  // (B, V)
    const Tensor tokens = sample(logits, rule, uniforms(&Flight::code_key, logits.device()));
    Draws d{tokens.to_vector<std::int32_t>(), {}, {}, {}};
    d.nll = cross_entropy(logits, tokens).to_vector<float>();
    const Tensor pid_logits = decoder_.pid_logits(h, tokens);  // (B, 8) or undefined
    if (pid_logits.defined()) {
      rule.excluded.clear();
      const Tensor pids = sample(pid_logits, rule, uniforms(&Flight::pid_key, pid_logits.device()));
      d.pids = pids.to_vector<std::int32_t>();
      d.pid_nll = cross_entropy(pid_logits, pids).to_vector<float>();
    }
    return d;
  }

  Draws step() {
    std::vector<DecodeInput> inputs;
    for (const Flight& f : flights_) {
      inputs.push_back(f.next);
    }
    Draws d;
    {
      const ArenaScope scope(arena_);
      d = draw(decoder_.step(inputs));
    }
    arena_.reset();
    return d;
  }

  // Logits that are not finite give no draw, only a number that looks like one.
  static void check_likelihood(const GeneratedJet& jet, float nll) {
    TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(nll),
                       "generate: jet {}, constituent {}: expected a finite log-likelihood, got {}",
                       jet.uid, jet.codes.size(), -nll);
  }

  // Takes over row i's draw; true if its jet has ended. After the last particle one more token is
  // drawn, which tells a jet that stops there from one that was cut.
  bool take_over(Flight& f, const Draws& d, std::size_t i) {
    GeneratedJet& jet = jets_[f.jet];
    const bool stopped = d.tokens[i] == stop_;
    if (!stopped && std::ssize(jet.codes) == options_.max_particles) {
      jet.truncated = true;
      return true;
    }
    check_likelihood(jet, d.nll[i]);
    jet.log_likelihood -= static_cast<double>(d.nll[i]);
    if (stopped) {
      return true;
    }
    jet.codes.push_back(d.tokens[i] - 1);
    f.next.code = jet.codes.back();
    if (!d.pids.empty()) {
      jet.pids.push_back(d.pids[i]);
      check_likelihood(jet, d.pid_nll[i]);
      jet.pid_log_likelihood -= static_cast<double>(d.pid_nll[i]);
      f.next.pid = d.pids[i];
    }
    ++f.next.position;
    return false;
  }

  void advance() {
    const Draws d = step();
    std::vector<Flight> still;
    for (std::size_t i = 0; i < flights_.size(); ++i) {
      if (!take_over(flights_[i], d, i)) {
        still.push_back(flights_[i]);
      } else if (next_ < jets_.size()) {
        still.push_back(take_off(flights_[i].next.slot));
      }
    }
    flights_ = std::move(still);
  }

  Decoder& decoder_;
  const GenerateOptions& options_;
  std::int32_t stop_;
  std::vector<GeneratedJet> jets_;
  std::size_t next_ = 0;  // first jet that has not begun
  std::vector<Flight> flights_;
  StepArena arena_;
};

// No more slots than jets: a slot's cache can be a megabyte.
GenerateOptions fit_slots(GenerateOptions options, std::size_t jets) {
  check_options(options);
  options.slots = std::clamp<std::int64_t>(static_cast<std::int64_t>(jets), 1, options.slots);
  return options;
}

// All parameters of some modules: those that are weights of linear layers are packed once.
std::vector<Tensor> parameters_of(std::initializer_list<const Module*> modules) {
  std::vector<Tensor> all;
  for (const Module* m : modules) {
    for (const NamedTensor& p : m->named_parameters()) {
      all.push_back(p.tensor);
    }
  }
  return all;
}

}  // namespace

std::vector<GeneratedJet> generate(const GptBackbone& backbone, const NextTokenHead& head,
                                   std::span<const std::uint64_t> uids,
                                   const GenerateOptions& options,
                                   const GenerateProgress& progress) {
  const NoGrad off;
  const GenerateOptions fitted = fit_slots(options, uids.size());
  const PackedWeights packed(parameters_of({&backbone, &head}));
  GptDecoder decoder(backbone, head, fitted);
  return SlotEngine(decoder, uids, fitted).run(progress);
}

std::vector<GeneratedJet> generate(const Backbone& backbone, const PretrainHead& head,
                                   const Tokenizer& tokenizer, std::span<const std::uint64_t> uids,
                                   const GenerateOptions& options,
                                   const GenerateProgress& progress) {
  const NoGrad off;
  const GenerateOptions fitted = fit_slots(options, uids.size());
  const PackedWeights packed(parameters_of({&backbone, &head, &tokenizer}));
  TesseraDecoder decoder(backbone, head, tokenizer, fitted);
  return SlotEngine(decoder, uids, fitted).run(progress);
}

}  // namespace tessera
