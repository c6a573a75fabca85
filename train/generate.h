// Generation as a job: jets drawn from a pre-trained model, decoded, and written as a data file.
#pragma once

#include <filesystem>
#include <string>

#include "nn/models/generation.h"
#include "train/dataset.h"
#include "train/native_writer.h"

namespace tessera {

struct GenerateJob {
  std::int64_t jets = 10000;
  GenerateOptions draw{};  ///< max_particles: FeatureConfig::max_constituents of the training
};

struct GenerateResult {
  std::vector<GeneratedJet> jets;
  /// Their decoded particles: massless, in the jet frame (axis at eta = phi = 0), in the order
  /// drawn. Jet columns are of the constituent sum; an empty jet has zeros.
  JetBlock particles;
  std::int64_t tokens = 0;  ///< steps of the model: codes and stops
  std::int64_t empty = 0, truncated = 0;
  double mean_log_likelihood = 0;  ///< nats a jet, codes and stop
  double seconds = 0;              ///< of drawing, without the final decoding
};

/// Ids of generated jets: sample 1000 (16 bit), seed (low 16 bit), running number (32 bit). They
/// are the uids that key the random numbers.
std::uint64_t generated_id(std::uint64_t seed, std::uint64_t number);

/// Draws job.jets jets from OmniJet-alpha's GPT; any tokenizer of the same codes decodes them.
GenerateResult generate_jets(const GenerateJob& job, const GptBackbone& backbone,
                             const NextTokenHead& head, const Tokenizer& tokenizer,
                             const GenerateProgress& progress = {});
/// Draws job.jets jets from Tessera's causal stream. Throws Error(usage) unless the tokenizer's
/// decoder is causal: pre-training then sees the particles that generation sees. With a decoder
/// that sees the whole jet it would be trained on inputs that no prefix can give.
GenerateResult generate_jets(const GenerateJob& job, const Backbone& backbone,
                             const PretrainHead& head, const Tokenizer& tokenizer,
                             const GenerateProgress& progress = {});

/// Native file of kind "jets": frame "jet", simulated = 1, source "generated", seed and options;
/// beside the required columns jet/log_likelihood and jet/truncated. Throws Error(usage | io) as
/// write_native_jets, Error(numeric) on a particle that is not finite.
void write_generated(const std::filesystem::path& path, const GenerateResult& result,
                     const GenerateJob& job, const std::string& command = "",
                     const NativeOptions& options = {});

}  // namespace tessera
