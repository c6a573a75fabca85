#include "kernels/adamw/adamw.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/parallel.h"

namespace tessera {
namespace {
constexpr Kernel<squared_norm_signature> kNorm{"squared_norm", &cpu::squared_norm, nullptr,
                                               nullptr};
constexpr Kernel<adamw_update_signature> kUpdate{"adamw_update", &cpu::adamw_update, nullptr,
                                                 nullptr};
// The cpu adds squares in double and takes the spans one by one.
constexpr Kernel<squared_norm_blocks_signature> kNormBlocks{"squared_norm_blocks", nullptr,
                                                            TESSERA_CUDA_SLOT(squared_norm_blocks),
                                                            TESSERA_SIMT_SLOT(squared_norm_blocks)};
constexpr Kernel<adamw_report_signature> kReport{
    "adamw_report", nullptr, TESSERA_CUDA_SLOT(adamw_report), TESSERA_SIMT_SLOT(adamw_report)};
constexpr Kernel<adamw_update_spans_signature> kUpdateSpans{"adamw_update_spans", nullptr,
                                                            TESSERA_CUDA_SLOT(adamw_update_spans),
                                                            TESSERA_SIMT_SLOT(adamw_update_spans)};

/// 1 - beta^step of both moments.
struct Corrections {
  double first, second;
  explicit Corrections(const AdamWOptions& o)
      : first(1 - std::pow(static_cast<double>(o.beta1), static_cast<double>(o.step))),
        second(1 - std::pow(static_cast<double>(o.beta2), static_cast<double>(o.step))) {}
};

void check_norm(double norm, const AdamWOptions& o) {
  TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(norm),
                     "adamw: the gradient norm is {} at step {}", norm, o.step);
}

View<float, 1> piece(const Tensor& t, const AdamWSpan& s) {
  TESSERA_CHECK(0 <= s.begin && s.begin <= s.end && s.end <= t.size(),
                "adamw: span [{}, {}) is outside {} elements", s.begin, s.end, t.size());
  return {t.view<float, 1>().data + s.begin, {s.end - s.begin}, {1}};
}

double step_on_cpu(const AdamWBuffers& b, std::span<const AdamWSpan> spans, const AdamWOptions& o) {
  double square = 0;
  kNorm(kCpu, b.gradients.view<const float, 1>(), &square, Stream{});
  const double norm = std::sqrt(square);
  check_norm(norm, o);
  const double clip =
      o.clip_norm > 0 ? std::min(1.0, static_cast<double>(o.clip_norm) / (norm + 1e-6)) : 1.0;
  const Corrections correct(o);
  for (const AdamWSpan& s : spans) {
    const float lr = o.lr * s.lr_scale;
    const AdamWUpdate update{
        .clip = static_cast<float>(clip),
        .decay = 1.0F - lr * o.weight_decay * s.weight_decay_scale,
        .beta1 = o.beta1,
        .beta2 = o.beta2,
        .step_size = static_cast<float>(static_cast<double>(lr) / correct.first),
        .root_correction = static_cast<float>(1 / std::sqrt(correct.second)),
        .eps = o.eps};
    kUpdate(kCpu, piece(b.parameters, s), piece(b.gradients, s), piece(b.m, s), piece(b.v, s),
            update, Stream{});
  }
  return norm;
}

double step_on_device(const AdamWBuffers& b, std::span<const AdamWSpan> spans,
                      const AdamWOptions& o) {
  const Device device = b.parameters.device();
  const AdamWOnDevice adamw(spans, device);
  const Tensor report = Tensor::from(AdamWOnDevice::clean_report(), {AdamWReport::count}, device);
  adamw.set_rates(o);
  adamw.step(b, o, Tensor::zeros({1}, DType::f32, device), report);
  const AdamWVerdict verdict = adamw_verdict(report.to_vector<float>());
  check_norm(verdict.good() ? verdict.norm : NAN, o);
  return verdict.norm;
}

/// The first span of each block of the update.
std::vector<std::int32_t> first_spans(std::span<const AdamWSpan> spans, std::int64_t size) {
  std::vector<std::int32_t> first;
  std::size_t s = 0;
  for (std::int64_t begin = 0; begin < size; begin += kAdamWBlock) {
    while (spans[s].end <= begin) {
      ++s;
    }
    first.push_back(static_cast<std::int32_t>(s));
  }
  return first;
}

}  // namespace

AdamWOnDevice::AdamWOnDevice(std::span<const AdamWSpan> spans, Device device)
    : size_(spans.empty() ? 0 : spans.back().end) {
  const auto count = static_cast<std::int64_t>(spans.size());
  const Tensor ends = Tensor::empty({count}, DType::i64);
  std::vector<float> scales;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    TESSERA_CHECK(spans[i].begin == last && spans[i].end >= last,
                  "adamw: spans must be the whole buffer in order, got [{}, {}) after {}",
                  spans[i].begin, spans[i].end, last);
    last = spans[i].end;
    ends.span<std::int64_t>()[i] = last;
    scales.insert(scales.end(), {spans[i].lr_scale, spans[i].weight_decay_scale});
  }
  ends_ = ends.to(device);
  scales_ = Tensor::from(scales, {count, 2}, device);
  const std::vector<std::int32_t> first = first_spans(spans, size_);
  first_ = Tensor::from(first, {static_cast<std::int64_t>(first.size())}, device);
  const std::int64_t blocks = chunk_count(size_, kSquaredNormBlock);
  rates_ = Tensor::zeros({AdamWRates::count}, DType::f32, device);
  partials_ = Tensor::empty({2, blocks}, DType::f32, device);
  bad_ = Tensor::empty({blocks}, DType::i32, device);
}

void AdamWOnDevice::set_rates(const AdamWOptions& o) const {
  const Corrections correct(o);
  const float values[] = {o.lr, static_cast<float>(1 / correct.first),
                          static_cast<float>(1 / std::sqrt(correct.second))};
  copy_into(rates_, Tensor::from(values, {AdamWRates::count}));
}

void AdamWOnDevice::step(const AdamWBuffers& b, const AdamWOptions& o, const Tensor& loss,
                         const Tensor& report) const {
  const Device device = rates_.device();
  TESSERA_CHECK(b.parameters.shape() == Shape{size_}, "adamw: spans of {} parameters, got {}",
                size_, b.parameters.shape());
  const PlacedView<const float, 1> gradients = b.gradients.view<const float, 1>();
  kNormBlocks(device, gradients, partials_.view<float, 2>(), bad_.view<std::int32_t, 1>(),
              Stream{});
  kReport(device, partials_.view<const float, 2>(), bad_.view<const std::int32_t, 1>(),
          loss.detach().reshape({1}).view<const float, 1>(), o.clip_norm, report.view<float, 1>(),
          Stream{});
  const AdamWTables tables{ends_.view<const std::int64_t, 1>(), scales_.view<const float, 2>(),
                           first_.view<const std::int32_t, 1>(), rates_.view<const float, 1>(),
                           report.view<const float, 1>()};
  kUpdateSpans(device, b.parameters.view<float, 1>(), gradients, b.m.view<float, 1>(),
               b.v.view<float, 1>(), tables, {o.beta1, o.beta2, o.eps, o.weight_decay, o.clip_norm},
               Stream{});
  for (const Tensor* t : {&b.parameters, &b.m, &b.v, &report}) {
    t->bump_version();
  }
}

std::vector<float> AdamWOnDevice::clean_report() {
  std::vector<float> report(AdamWReport::count, 0.0F);
  report[AdamWReport::power] = 1.0F;
  report[AdamWReport::bad_block] = std::bit_cast<float>(kAllFinite);
  return report;
}

AdamWVerdict adamw_verdict(std::span<const float> report) {
  const auto block = std::bit_cast<std::int32_t>(report[AdamWReport::bad_block]);
  const auto offset = std::bit_cast<std::int32_t>(report[AdamWReport::bad_offset]);
  AdamWVerdict v{.norm = static_cast<double>(report[AdamWReport::root]) /
                         static_cast<double>(report[AdamWReport::power]),
                 .loss_finite = block != kLossNotFinite};
  if (block >= 0) {
    v.first_bad = std::int64_t{block} * kSquaredNormBlock + offset;
  }
  return v;
}

double adamw_step(const Tensor& parameters, const Tensor& gradients, const Tensor& m,
                  const Tensor& v, std::span<const AdamWSpan> spans, const AdamWOptions& o) {
  check_same_device("adamw", {&parameters, &gradients, &m, &v});
  const AdamWBuffers buffers{parameters, gradients, m, v};
  if (parameters.device() != kCpu) {
    return step_on_device(buffers, spans, o);
  }
  const double norm = step_on_cpu(buffers, spans, o);
  for (const Tensor* t : {&parameters, &m, &v}) {
    t->bump_version();
  }
  return norm;
}

}  // namespace tessera
