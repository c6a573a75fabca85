#include "nn/models/pretraining.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/reduce/reduce.h"
#include "nn/models/packing.h"
#include "nn/models/token_sequence.h"

namespace tessera {
namespace {

constexpr std::int32_t kUnknownPid = 8;

/// The four pieces of the packed table: registers | start | causal rows | bidirectional rows.
struct Packing {
  RowPacker rows;
  std::vector<std::uint8_t> causal;
  // Over start and particles; targets as gather_tokens() takes them.
  std::vector<std::int32_t> ntp_offsets{0}, ntp_targets, ntp_pid;
};

// Causal segments: [registers][start][particles]; targets: the codes, then stop.
void pack_causal(Packing& p, const Segments& s, std::int32_t registers,
                 std::span<const std::int32_t> pid, std::int32_t stop) {
  for (int j = 0; j < s.count(); ++j) {
    const std::int32_t first = s.cu_seqlens()[static_cast<std::size_t>(j)], n = s.length(j);
    p.rows.begin_segment();
    p.causal.push_back(1);
    p.rows.append(registers);  // the start row
    p.rows.append_range(registers + 1 + first, n);
    for (std::int32_t i = first; i < first + n; ++i) {
      p.ntp_targets.push_back(i);
      p.ntp_pid.push_back(pid[static_cast<std::size_t>(i)]);
    }
    p.ntp_targets.push_back(literal_token(stop));
    p.ntp_pid.push_back(kUnknownPid);
    p.ntp_offsets.push_back(static_cast<std::int32_t>(p.ntp_targets.size()));
  }
}

// Bidirectional segments: [registers][survivors].
void pack_survivors(Packing& p, const Segments& s, std::int32_t first_row,
                    const std::vector<std::uint8_t>& hidden) {
  for (int j = 0; j < s.count(); ++j) {
    p.rows.begin_segment();
    p.causal.push_back(0);
    for (std::int32_t i = s.cu_seqlens()[static_cast<std::size_t>(j)], n = s.length(j); n > 0;
         ++i, --n) {
      if (!hidden[static_cast<std::size_t>(i)]) {
        p.rows.append(first_row + i);
      }
    }
  }
}

/// Rows of the masked branch: survivors' states and a mask vector for each hidden particle.
struct MaskPacking {
  std::vector<std::int32_t> index, offsets{0};     // into [survivors | mask table]
  std::vector<std::int32_t> scored, targets, pid;  // rows of hidden particles; who they are
};

// The mask vector of a hidden particle is chosen by its pT rank among the hidden ones of its jet.
MaskPacking pack_masked(const Segments& s, const std::vector<std::uint8_t>& hidden,
                        std::span<const std::int32_t> pid, std::int32_t mask_rows) {
  MaskPacking p;
  const auto survivors = static_cast<std::int32_t>(std::ranges::count(hidden, 0));
  std::int32_t next_survivor = 0;
  for (int j = 0; j < s.count(); ++j) {
    const auto first = static_cast<std::size_t>(s.cu_seqlens()[static_cast<std::size_t>(j)]);
    std::int32_t rank = 0;
    for (std::size_t i = first; i < first + static_cast<std::size_t>(s.length(j)); ++i) {
      if (!hidden[i]) {
        p.index.push_back(next_survivor++);
        continue;
      }
      p.scored.push_back(static_cast<std::int32_t>(p.index.size()));
      p.index.push_back(survivors + std::min(rank++, mask_rows - 1));
      p.targets.push_back(static_cast<std::int32_t>(i));
      p.pid.push_back(pid[i]);
    }
    p.offsets.push_back(static_cast<std::int32_t>(p.index.size()));
  }
  return p;
}

}  // namespace

NextTokenHead::NextTokenHead(std::int64_t width, std::int64_t vocabulary, Rng& rng)
    : ntp({.in = width, .out = vocabulary}, rng) {
  child("ntp", ntp);
}

std::vector<std::uint8_t> choose_masks(const Segments& segments, float fraction, const Rng& rng) {
  std::vector<std::uint8_t> hidden(static_cast<std::size_t>(segments.total()), 0);
  for (int j = 0; j < segments.count(); ++j) {
    const std::int32_t n = segments.length(j);
    if (n < 2) {
      continue;
    }
    const auto wanted = static_cast<std::int32_t>(std::lround(fraction * static_cast<float>(n)));
    const std::int32_t masked = std::clamp(wanted, 1, n - 1);
    std::vector<std::int32_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), segments.cu_seqlens()[static_cast<std::size_t>(j)]);
    Rng draw = rng.fork(static_cast<std::uint64_t>(j));
    for (std::int32_t i = 0; i < masked; ++i) {  // partial Fisher-Yates
      const auto k = static_cast<std::size_t>(i) + draw.below(static_cast<std::uint64_t>(n - i));
      std::swap(order[static_cast<std::size_t>(i)], order[k]);
      hidden[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 1;
    }
  }
  return hidden;
}

PretrainHead::Branch::Branch(std::int64_t width, std::int64_t heads, Rng& rng)
    : block({.width = width, .heads = heads, .ff_factor = 2, .out_scale = std::sqrt(0.5F)}, rng),
      norm(width) {
  child("block", block);
  child("norm", norm);
}

Tensor PretrainHead::Branch::operator()(const Tensor& x, const Segments& segments,
                                        const std::vector<std::uint8_t>& causal) const {
  return norm(block(x.to(row_type(x.device())), segments, causal)).to(DType::f32);
}

PretrainHead::Unembed::Unembed(std::int64_t rows, std::int64_t width, Rng& rng) {
  weight = parameter("weight", normal_init({rows, width}, 0.02F, rng));
  bias = parameter("bias", Tensor::zeros({rows}));
}

PretrainHead::PretrainHead(std::int64_t width, std::int64_t heads, const PretrainConfig& c,
                           Rng& rng)
    : config(c),
      ntp_(width, heads, rng),
      mpm_(width, heads, rng),
      unembed_(c.codes + 2, width, rng),
      pid_norm_(width),
      pid_({.in = width, .out = 8}, rng) {
  child("ntp", ntp_);
  child("mpm", mpm_);
  child("unembed", unembed_);
  child("pid_norm", pid_norm_);
  child("pid", pid_);
  mask_ = parameter("mask", normal_init({c.max_particles, width}, 0.02F, rng));
}

Tensor PretrainHead::token_logits(const Tensor& h) const {
  return linear(h, unembed_.weight, unembed_.bias);
}

Tensor PretrainHead::pid_logits(const Tensor& h, const Tensor& tokens) const {
  const Tensor told = embedding(unembed_.weight.detach(), tokens);  // (N, d), no gradient
  return pid_(pid_norm_(add(h, told)));
}

// Mean CE of the code, plus mean CE of the particle id given the true code. Codes become tokens
// where they lie: `targets` tells which goes where.
PretrainHead::Score PretrainHead::score(const Tensor& h, const Tensor& codes,
                                        const std::vector<std::int32_t>& targets,
                                        const std::vector<std::int32_t>& pid) const {
  const Tensor ids = gather_tokens(codes, targets, kStartToken + 1);
  const Tensor code_loss = linear_cross_entropy(h, unembed_.weight, unembed_.bias, ids);
  std::vector<std::int32_t> rows, known;
  for (std::size_t i = 0; i < pid.size(); ++i) {
    if (pid[i] != kUnknownPid) {
      rows.push_back(static_cast<std::int32_t>(i));
      known.push_back(pid[i]);
    }
  }
  if (rows.empty()) {
    return {code_loss, code_loss.detach()};
  }
  const Tensor index = RowPacker::vector_tensor(rows);
  std::vector<std::int32_t> told;  // whose token each scored row is given
  for (const std::int32_t row : rows) {
    told.push_back(targets[static_cast<std::size_t>(row)]);
  }
  const Tensor logits =
      pid_logits(gather_rows(h, index), gather_tokens(codes, told, kStartToken + 1));
  return {add(code_loss, mean(cross_entropy(logits, RowPacker::vector_tensor(known)))),
          code_loss.detach()};
}

PretrainOutput PretrainHead::operator()(const Backbone& backbone,
                                        const ParticleFeatures& token_features,
                                        const ParticleFeatures& raw_features, const Tensor& codes,
                                        const std::vector<std::uint8_t>& hidden,
                                        const DropoutStream& dropout) const {
  const Segments& s = raw_features.segments;
  const Tensor& known_pid =
      raw_features.pid_on_host.defined() ? raw_features.pid_on_host : raw_features.pid;
  const auto pid = known_pid.to_vector<std::int32_t>();
  const auto registers = static_cast<std::int32_t>(backbone.config.registers);
  Packing p{.rows = RowPacker(registers), .causal = {}, .ntp_targets = {}, .ntp_pid = {}};
  pack_causal(p, s, registers, pid, stop_token(config.codes));
  pack_survivors(p, s, registers + 1 + s.total(), hidden);
  const Tensor parts[] = {backbone.registers, backbone.start, backbone.embed(token_features),
                          backbone.embed(raw_features)};
  const Tensor packed = gather_rows(concat_rows(parts), p.rows.index());
  const Tensor h =
      gather_rows(backbone.run(packed, p.rows.segments(), p.causal, dropout), p.rows.payload());

  // Every position of the causal stream is scored.
  const auto positions = static_cast<std::int64_t>(p.ntp_targets.size());
  const Segments causal(p.ntp_offsets);
  const Tensor h_ntp = ntp_(h.slice(0, 0, positions), causal, all_causal(causal));
  const Score ntp = score(h_ntp, codes, p.ntp_targets, p.ntp_pid);

  const MaskPacking m =
      pack_masked(s, hidden, pid, static_cast<std::int32_t>(config.max_particles));
  if (m.scored.empty()) {
    return {.loss = ntp.loss,
            .ntp_code = ntp.code,
            .mpm_code = Tensor::zeros(Shape(), DType::f32, h.device())};
  }
  const Tensor pieces[] = {h.slice(0, positions, h.shape(0)), mask_};
  const Tensor filled = gather_rows(concat_rows(pieces), RowPacker::vector_tensor(m.index));
  const Tensor h_mpm =
      gather_rows(mpm_(filled, Segments(m.offsets), {}), RowPacker::vector_tensor(m.scored));
  const Score mpm = score(h_mpm, codes, m.targets, m.pid);
  return {.loss = add(ntp.loss, mpm.loss), .ntp_code = ntp.code, .mpm_code = mpm.code};
}

}  // namespace tessera
