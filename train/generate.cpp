#include "train/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "train/features.h"
#include "train/jet_block.h"

namespace tessera {
namespace {

constexpr std::uint64_t kGeneratedSample = 1000;  // simulated ones have 1..99
constexpr std::size_t kBatch = 256;
constexpr std::int32_t kUnknown = kPidClasses - 1;

// Decodes jets into the block.
void decode_jets(std::span<const GeneratedJet> jets, const Tokenizer& tokenizer, JetBlock& block) {
  std::vector<std::int32_t> codes, lengths;
  for (const GeneratedJet& jet : jets) {
    codes.insert(codes.end(), jet.codes.begin(), jet.codes.end());
    lengths.push_back(static_cast<std::int32_t>(jet.codes.size()));
  }
  std::vector<float> core;
  if (!codes.empty()) {
    core = tokenizer
               .decode(Tensor::from(codes, {static_cast<std::int64_t>(codes.size())},
                                    tokenizer.device()),
                       Segments::from_lengths(lengths))
               .to_vector<float>();
  }
  std::size_t row = 0;
  for (const GeneratedJet& jet : jets) {
    for (std::size_t i = 0; i < jet.codes.size(); ++i) {
      push_particle(&core[kCoreFeatures * row++], jet.pids.empty() ? kUnknown : jet.pids[i], block);
    }
    close_jet(jet.uid, block);
  }
}

void count(GenerateResult& result) {
  for (const GeneratedJet& jet : result.jets) {
    result.tokens += static_cast<std::int64_t>(jet.codes.size()) + 1;
    result.empty += jet.codes.empty() ? 1 : 0;
    result.truncated += jet.truncated ? 1 : 0;
    result.mean_log_likelihood += jet.log_likelihood / static_cast<double>(result.jets.size());
  }
}

template <class Draw>
GenerateResult run_job(const GenerateJob& job, const Tokenizer& tokenizer, Draw draw) {
  TESSERA_CHECK(job.jets >= 0 && job.jets < (std::int64_t{1} << 32),
                "generate: expected 0 to 2^32 - 1 jets, got {}", job.jets);
  std::vector<std::uint64_t> uids;
  for (std::int64_t i = 0; i < job.jets; ++i) {
    uids.push_back(generated_id(job.draw.seed, static_cast<std::uint64_t>(i)));
  }
  GenerateResult result;
  const auto begin = std::chrono::steady_clock::now();
  result.jets = draw(uids);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  result.particles = empty_block();
  const std::span<const GeneratedJet> jets(result.jets);
  for (std::size_t i = 0; i < jets.size(); i += kBatch) {
    decode_jets(jets.subspan(i, std::min(kBatch, jets.size() - i)), tokenizer, result.particles);
  }
  count(result);
  return result;
}

}  // namespace

std::uint64_t generated_id(std::uint64_t seed, std::uint64_t number) {
  return kGeneratedSample << 48U | (seed & 0xFFFFU) << 32U | number;
}

GenerateResult generate_jets(const GenerateJob& job, const GptBackbone& backbone,
                             const NextTokenHead& head, const Tokenizer& tokenizer,
                             const GenerateProgress& progress) {
  TESSERA_CHECK(backbone.config.vocabulary == tokenizer.config.codes + 2,
                "generate: a vocabulary of {} tokens, expected {} codes, start and stop",
                backbone.config.vocabulary, tokenizer.config.codes);
  return run_job(job, tokenizer, [&](std::span<const std::uint64_t> uids) {
    return generate(backbone, head, uids, job.draw, progress);
  });
}

GenerateResult generate_jets(const GenerateJob& job, const Backbone& backbone,
                             const PretrainHead& head, const Tokenizer& tokenizer,
                             const GenerateProgress& progress) {
  return run_job(job, tokenizer, [&](std::span<const std::uint64_t> uids) {
    return generate(backbone, head, tokenizer, uids, job.draw, progress);
  });
}

namespace {

void check_finite(const JetBlock& b) {
  for (std::size_t i = 0; i < b.energy.size(); ++i) {
    // the energy is the largest component: finite where it is
    TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(b.energy[i]),
                       "generate: particle {} has energy {}", i, b.energy[i]);
  }
}

}  // namespace

void write_generated(const std::filesystem::path& path, const GenerateResult& result,
                     const GenerateJob& job, const std::string& command,
                     const NativeOptions& options) {
  const JetBlock& b = result.particles;
  check_finite(b);
  std::vector<float> log_likelihood;
  std::vector<std::uint8_t> truncated;
  for (const GeneratedJet& jet : result.jets) {
    log_likelihood.push_back(static_cast<float>(jet.log_likelihood));
    truncated.push_back(jet.truncated ? 1 : 0);
  }
  NativeJets file;
  file.offsets = b.offsets;
  file.columns = {{"pf/px", b.px},
                  {"pf/py", b.py},
                  {"pf/pz", b.pz},
                  {"pf/energy", b.energy},
                  {"pf/pid", b.pid},
                  {"pf/charge", b.charge},
                  {"id", b.id},
                  {"jet/pt", b.jet_pt},
                  {"jet/eta", b.jet_eta},
                  {"jet/phi", b.jet_phi},
                  {"jet/energy", b.jet_energy},
                  {"jet/log_likelihood", log_likelihood},
                  {"jet/truncated", truncated}};
  file.attributes = {
      {"frame", "jet"},
      {"order", "source"},
      {"simulated", std::int64_t{1}},
      {"source", "generated"},
      {"generator", "tessera"},
      {"settings",
       fmt::format("temperature = {}, top_k = {}, top_p = {}, max_particles = {}",
                   job.draw.temperature, job.draw.top_k, job.draw.top_p, job.draw.max_particles)},
      {"seed", static_cast<std::int64_t>(job.draw.seed)},
      {"command", command}};
  write_native_jets(path, std::move(file), options);
}

}  // namespace tessera
