#include "train/jobs.h"

#include <chrono>
#include <cmath>

#include "core/autograd.h"
#include "nn/codebook.h"
#include "train/inputs.h"

namespace tessera {
namespace {

/// Takes turns between datasets in proportion to their sizes, by a seeded draw for each step.
class MixedBatches {
 public:
  MixedBatches(const UnlabelledData& data, std::int64_t batch, std::uint64_t seed)
      : rng_(Rng(seed).fork("mixture")) {
    BatchConfig config;
    config.jets = static_cast<std::uint32_t>(batch);
    for (std::size_t i = 0; i < data.train.size(); ++i) {
      const auto& set = data.train[i];
      batchers_.emplace_back(set, data.features, config, seed + i, without_empty(*set, {}));
      total_ += batchers_.back().jets();
    }
  }
  Batch next() {
    std::uint64_t draw = rng_.below(total_);
    std::size_t i = 0;
    while (draw >= batchers_[i].jets()) {
      draw -= batchers_[i++].jets();
    }
    return batchers_[i].next();
  }

 private:
  std::vector<Batcher> batchers_;
  std::uint64_t total_ = 0;
  Rng rng_;
};

/// Mean values since the last report, and the rate.
class Meter {
 public:
  Meter(std::string job, std::int64_t steps, const Observer& observe)
      : job_(std::move(job)), steps_(steps), observe_(observe) {}
  void add(std::int64_t step, std::uint64_t jets, const std::vector<Metric>& values) {
    if (sums_.empty()) {
      sums_ = values;
    } else {
      for (std::size_t i = 0; i < values.size(); ++i) {
        sums_[i].value += values[i].value;
      }
    }
    ++count_;
    jets_ += jets;
    if (step % every() == 0 || step == steps_) {
      report(step);
    }
  }

 private:
  std::int64_t every() const { return std::max<std::int64_t>(1, steps_ / 40); }
  void report(std::int64_t step) {
    for (Metric& m : sums_) {
      m.value /= static_cast<double>(count_);
    }
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - since_).count();
    if (observe_) {
      observe_({job_, step, steps_, static_cast<double>(jets_) / std::max(seconds, 1e-9), sums_});
    }
    sums_.clear();
    count_ = 0;
    jets_ = 0;
    since_ = now;
  }

  std::string job_;
  std::int64_t steps_;
  Observer observe_;
  std::vector<Metric> sums_;
  std::int64_t count_ = 0;
  std::uint64_t jets_ = 0;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

/// Visits all jets of a selection once, in order.
void for_each_batch(const std::shared_ptr<const Dataset>& data, const FeatureConfig& features,
                    std::vector<std::uint64_t> jets, std::int64_t size,
                    const std::function<void(const Batch&)>& visit) {
  BatchConfig config;
  config.jets = static_cast<std::uint32_t>(size);
  config.shuffle = false;
  Batcher batches(data, features, config, 0, std::move(jets));
  const std::uint64_t n = batches.batches_in_epoch(0);
  for (std::uint64_t i = 0; i < n; ++i) {
    visit(batches.next());
  }
}

void measure_tokens(TokenizerResult& result, const UnlabelledData& data) {
  result.counts.assign(static_cast<std::size_t>(result.tokenizer->config.codes), 0);
  double squares = 0, entries = 0;
  const NoGrad off;
  StepArena arena;
  for (const auto& set : data.train) {
    for_each_batch(set, data.features, without_empty(*set, {}), 256, [&](const Batch& batch) {
      {
        const ArenaScope scope(arena);
        const Segments s = segments_of(batch);
        const Tensor codes = result.tokenizer->encode(core_features(batch), s);
        const Tensor reco = result.tokenizer->decode(codes, s);
        for (const std::int32_t c : codes.span<const std::int32_t>()) {
          ++result.counts[static_cast<std::size_t>(c)];
        }
        const auto y = reco.span<const float>();
        for (std::size_t i = 0; i < y.size(); ++i) {
          const double d = static_cast<double>(y[i]) - static_cast<double>(batch.rows.core[i]);
          squares += d * d;
        }
        entries += static_cast<double>(y.size());
      }
      arena.reset();
    });
  }
  result.reconstruction_mse = squares / entries;
}

void measure_usage(TokenizerResult& r) {
  double total = 0, used = 0;
  for (const std::int64_t n : r.counts) {
    total += static_cast<double>(n);
    used += n > 0;
  }
  for (const std::int64_t n : r.counts) {
    const double p = static_cast<double>(n) / total;
    r.token_entropy -= n > 0 ? p * std::log(p) : 0.0;
  }
  r.usage = used / static_cast<double>(r.counts.size());
  r.perplexity = std::exp(r.token_entropy);
}

/// The quantiser's tensors with the state of k-means start and replacement of unused codes.
Codebook codebook_of(const Tokenizer& model, const CodebookOptions& options) {
  const std::vector<std::int32_t> lru(static_cast<std::size_t>(model.config.codes),
                                      static_cast<std::int32_t>(options.timeout)),
      none{0};
  return Codebook{model.vq.codebook, model.vq.scale, model.vq.bias,
                  Tensor::from(lru, {model.config.codes}), Tensor::from(none, {1})};
}

}  // namespace

TokenizerResult train_tokenizer(const TokenizerJob& job, const UnlabelledData& data,
                                const Observer& observe) {
  Rng init = Rng(job.seed).fork("tokenizer");
  TokenizerResult result;
  result.tokenizer = std::make_unique<Tokenizer>(job.model, init);
  Tokenizer& model = *result.tokenizer;
  MixedBatches batches(data, job.batch, job.seed);
  Trainer trainer({{model.named_parameters()}}, job.trainer);
  Meter meter("tokenizer", job.trainer.steps, observe);
  const CodebookOptions options{.timeout = job.dead_code_timeout, .affine_lr = job.model.affine_lr};
  Codebook codebook = codebook_of(model, options);
  Rng draws = Rng(job.seed).fork("codebook");
  for (std::int64_t step = 1; step <= job.trainer.steps; ++step) {
    const Batch batch = batches.next();
    double reco = 0, quantiser = 0;
    std::vector<float> latent;
    std::vector<std::int32_t> codes;
    trainer.step([&] {
      const TokenizerOutput out = model(core_features(batch), segments_of(batch));
      reco = static_cast<double>(out.reconstruction_loss);
      quantiser = static_cast<double>(out.quantizer_loss);
      latent = out.latent.to_vector<float>();
      codes = out.codes.to_vector<std::int32_t>();
      return out.loss;
    });
    const auto rows = static_cast<std::int64_t>(codes.size());
    codebook.observe(Tensor::from(latent, {rows, job.model.latent}), Tensor::from(codes, {rows}),
                     options, draws);
    meter.add(step, batch.size(), {{"reconstruction", reco}, {"quantiser", quantiser}});
  }
  model.freeze();
  measure_tokens(result, data);
  measure_usage(result);
  return result;
}

PretrainResult pretrain(const PretrainJob& job, const Tokenizer& tokenizer,
                        const UnlabelledData& data, const Observer& observe) {
  Rng init = Rng(job.seed).fork("pretrain");
  PretrainResult result;
  result.backbone = std::make_unique<Backbone>(job.backbone, init);
  PretrainHead head(job.backbone.width, job.backbone.heads, job.objective, init);
  std::vector<NamedTensor> parameters = result.backbone->named_parameters("backbone");
  for (NamedTensor& p : head.named_parameters("head.pretrain")) {
    parameters.push_back(std::move(p));
  }
  MixedBatches batches(data, job.batch, job.seed);
  Trainer trainer({{parameters}}, job.trainer);
  Meter meter("pretrain", job.trainer.steps, observe);
  const std::int64_t tail = std::max<std::int64_t>(1, job.trainer.steps / 10);
  const Rng masks = Rng(job.seed).fork("masks");
  for (std::int64_t step = 1; step <= job.trainer.steps; ++step) {
    const Batch batch = batches.next();
    double ntp = 0, mpm = 0;
    const float loss = trainer.step([&] {
      const ParticleFeatures raw = particle_features(batch, true);
      ParticleFeatures tokens = particle_features(batch, false);
      const Tensor codes = tokenizer.encode(raw.core, raw.segments);
      tokens.core = tokenizer.decode(codes, raw.segments);
      const auto hidden = choose_masks(raw.segments, job.objective.mask_fraction,
                                       masks.fork(static_cast<std::uint64_t>(step)));
      const PretrainOutput out = head(*result.backbone, tokens, raw, codes, hidden);
      ntp = static_cast<double>(out.ntp_code);
      mpm = static_cast<double>(out.mpm_code);
      return out.loss;
    });
    if (step > job.trainer.steps - tail) {
      result.ntp += ntp / static_cast<double>(tail);
      result.mpm += mpm / static_cast<double>(tail);
    }
    meter.add(step, batch.size(),
              {{"loss", static_cast<double>(loss)}, {"ntp", ntp}, {"mpm", mpm}});
  }
  return result;
}

const char* name(Strategy strategy) {
  switch (strategy) {
    case Strategy::individual:
      return "individual";
    case Strategy::scratch:
      return "scratch";
    case Strategy::random_frozen:
      return "random-frozen";
    case Strategy::frozen:
      return "frozen";
    case Strategy::full:
      return "full";
  }
  return "?";
}

namespace {

/// A backbone with a class-attention head, or DeepSets.
struct TaskModel {
  std::unique_ptr<Backbone> backbone;
  std::unique_ptr<ClassAttentionHead> head;
  std::unique_ptr<DeepSets> deep_sets;

  TaskModel(const FinetuneJob& job, std::int64_t outputs,
            const std::vector<NamedTensor>& pretrained) {
    Rng init = Rng(job.seed).fork("finetune");
    if (job.strategy == Strategy::individual) {
      deep_sets = std::make_unique<DeepSets>(kParticleFeatures, 128, outputs, init);
      if (job.task == Task::tau_pt) {
        start_at_zero(*deep_sets->rho.back());
      }
      return;
    }
    Rng backbone_init = init.fork("backbone");
    backbone = std::make_unique<Backbone>(job.backbone, backbone_init);
    head =
        std::make_unique<ClassAttentionHead>(ClassAttentionHead::Config{.width = job.backbone.width,
                                                                        .heads = job.backbone.heads,
                                                                        .outputs = outputs,
                                                                        .blocks = job.head_blocks},
                                             init);
    if (job.task == Task::tau_pt) {
      start_at_zero(head->fc);
    }
    if (pretrained_backbone(job.strategy)) {
      load(*backbone, pretrained);  // the last write before training
    }
    if (job.strategy == Strategy::frozen || job.strategy == Strategy::random_frozen) {
      backbone->freeze();
    }
  }

  // The momentum is learned as a correction of the reconstructed jet: the untrained answer is the
  // jet itself.
  static void start_at_zero(const Linear& last) {
    fill(last.weight, 0.0F);
    fill(last.bias, 0.0F);
  }

  static bool pretrained_backbone(Strategy s) {
    return s == Strategy::frozen || s == Strategy::full;
  }

  [[nodiscard]] std::vector<ParameterGroup> groups(const FinetuneJob& job) const {
    if (deep_sets) {
      return {{deep_sets->named_parameters("deepsets")}};
    }
    std::vector<ParameterGroup> g{{head->named_parameters("head.tau")}};
    if (!backbone->frozen()) {
      g.push_back({backbone->named_parameters("backbone"),
                   job.strategy == Strategy::full ? job.backbone_lr : 1.0F});
    }
    return g;
  }

  [[nodiscard]] Tensor operator()(const Batch& batch) const {
    if (deep_sets) {
      return (*deep_sets)(particle_table(batch), segments_of(batch));
    }
    const ParticleFeatures f = particle_features(batch, true);
    return (*head)((*backbone)(f), f.segments);
  }
};

Predictions predict(const TaskModel& model, Task task, const std::shared_ptr<const Dataset>& data,
                    const std::vector<std::uint64_t>& jets, const FeatureConfig& features) {
  Predictions p;
  const NoGrad off;
  StepArena arena;
  for_each_batch(data, features, jets, 256, [&](const Batch& batch) {
    {
      const ArenaScope scope(arena);
      const Tensor y = model(batch);
      p.columns = y.shape(1);
      p.append(task, batch, y.span<const float>());
      p.loss +=
          static_cast<double>(task_loss(task, y, batch).item()) * static_cast<double>(batch.size());
    }
    arena.reset();
  });
  p.loss /= static_cast<double>(p.size());
  return p;
}

std::vector<std::uint64_t> subset_ids(const Dataset& data, std::span<const std::uint64_t> jets) {
  const auto all = data.ids();
  std::vector<std::uint64_t> ids;
  for (const std::uint64_t j : jets) {
    ids.push_back(all[j]);
  }
  return ids;
}

}  // namespace

FinetuneResult finetune(const FinetuneJob& job, const std::shared_ptr<const Dataset>& train,
                        const std::shared_ptr<const Dataset>& validation,
                        const std::shared_ptr<const Dataset>& test,
                        const FeatureConfig& base_features,
                        const std::vector<NamedTensor>& pretrained, const Observer& observe) {
  FeatureConfig features = base_features;
  features.particles = job.strategy == Strategy::individual;
  const TaskModel model(job, outputs_of(job.task, *train), pretrained);
  const auto pool = select_jets(job.task, *train);
  const auto jets = nested_subset(
      pool, subset_ids(*train, pool), stratify_labels(job.task, *train, pool),
      std::min<std::uint64_t>(pool.size(), static_cast<std::uint64_t>(job.train_jets)), job.seed);
  const auto held_out = select_jets(job.task, *validation);
  BatchConfig batching;
  batching.jets = static_cast<std::uint32_t>(job.batch);
  Batcher batches(train, features, batching, job.seed, jets);
  Trainer trainer(model.groups(job), job.trainer);
  Meter meter(fmt::format("{} {}", name(job.task), name(job.strategy)), job.trainer.steps, observe);

  std::vector<float> best = trainer.weights();
  double best_loss = INFINITY;
  const std::int64_t every = std::max<std::int64_t>(1, job.trainer.steps / 8);
  for (std::int64_t step = 1; step <= job.trainer.steps; ++step) {
    const Batch batch = batches.next();
    const float loss = trainer.step([&] { return task_loss(job.task, model(batch), batch); });
    meter.add(step, batch.size(), {{"loss", static_cast<double>(loss)}});
    if (step % every == 0 || step == job.trainer.steps) {
      const double now = predict(model, job.task, validation, held_out, features).loss;
      if (now < best_loss) {
        best_loss = now;
        best = trainer.weights();
      }
    }
  }
  trainer.restore(best);
  FinetuneResult result;
  result.test = predict(model, job.task, test, select_jets(job.task, *test), features);
  result.metrics = evaluate(job.task, result.test);
  result.train_jets = static_cast<std::int64_t>(jets.size());
  for (const ParameterGroup& g : model.groups(job)) {
    for (const NamedTensor& p : g.parameters) {
      result.parameters += p.tensor.size();
    }
  }
  return result;
}

}  // namespace tessera
