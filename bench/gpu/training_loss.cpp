#include "bench/gpu/training_loss.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <utility>

#include "core/autograd.h"
#include "core/rng.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace tessera::bench {
namespace {

constexpr Device kSimt{DeviceType::simt, 0};
constexpr std::int64_t kWidth = 256, kRows = 128, kClasses = 256;  // of the smallest run

Tensor normal(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(shape.size()));
  for (float& x : v) {
    x = static_cast<float>(0.1 * rng.normal());
  }
  return Tensor::from(v, shape, kSimt);
}

using Log = std::vector<simt::Launched>;

template <class Work>
Log log_of(const Work& work) {
  const simt::BankCounting banks;
  const simt::LaunchLog log;
  work();
  return log.launches();
}

Tensor targets(std::int64_t t, std::int64_t v) {
  std::vector<std::int32_t> y(static_cast<std::size_t>(t));
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = static_cast<std::int32_t>(7919 * static_cast<std::int64_t>(i) % v);
  }
  return Tensor::from(y, {t}, kSimt);
}

Log run(std::int64_t t, std::int64_t v, const LossShape& shape) {
  const bool grad = shape.gradients;
  const Tensor h = normal({t, kWidth}, 1).set_requires_grad(grad);
  const Tensor w = normal({v, kWidth}, 2).set_requires_grad(grad);
  const Tensor b = normal({v}, 3).set_requires_grad(grad), y = targets(t, v);
  const PrecisionScope scope(shape.precision);
  return log_of([&] { (void)linear_cross_entropy(h, w, b, y); });
}

/// One and two tiles of rows by one and two of classes.
struct Corners {
  Log small, tall, wide, large;

  explicit Corners(const LossShape& shape)
      : small(run(kRows, kClasses, shape)),
        tall(run(2 * kRows, kClasses, shape)),
        wide(run(kRows, 2 * kClasses, shape)),
        large(run(2 * kRows, 2 * kClasses, shape)) {}

  // Counters of launch i at t rows and v classes, `times` of them.
  [[nodiscard]] simt::LaunchStats at(std::size_t i, double t, double v, double times) const {
    const double x = t / kRows - 1, y = v / kClasses - 1;
    simt::LaunchStats all;
    for (const auto counter : simt::kCounters) {
      const auto of = [&](const Log& log) { return static_cast<double>(log[i].stats.*counter); };
      const double s = of(small), dx = of(tall) - s, dy = of(wide) - s;
      const double each = s + x * dx + y * dy + x * y * (of(large) - s - dx - dy);
      all.*counter = static_cast<std::uint64_t>(times * std::max(0.0, each));
    }
    return all;
  }
};

// The sum of the parts of dw and db: no small run has one.
LossLaunch sum_of_parts(double parts, double v) {
  LossLaunch sum{"cross_entropy_add_parts", 1, {}};
  const double sectors = v * (kWidth + 1) / 8;
  sum.stats.sectors_read = sum.stats.unique_sectors_read =
      static_cast<std::uint64_t>(parts * sectors);
  sum.stats.sectors_written = sum.stats.unique_sectors_written =
      static_cast<std::uint64_t>(sectors);
  return sum;
}

// Runs once for each kind of call.
const Corners& corners_of(const LossShape& shape) {
  static std::map<std::pair<bool, Precision>, Corners> known;
  return known.try_emplace({shape.gradients, shape.precision}, shape).first->second;
}

std::vector<LossLaunch> whole_launches(const LossShape& shape) {
  const Corners& corners = corners_of(shape);
  const double parts =
      static_cast<double>(GradientScratch(static_cast<std::int64_t>(shape.t),
                                          static_cast<std::int64_t>(shape.v), kWidth)
                              .parts);
  std::vector<LossLaunch> all;
  for (std::size_t i = 0; i < corners.small.size(); ++i) {
    const std::string& kernel = corners.small[i].kernel;
    const double cut = kernel == "cross_entropy_classes" ? parts : 1;
    all.push_back({kernel, 1, corners.at(i, shape.t / cut, shape.v, cut)});
    if (cut > 1) {
      all.push_back(sum_of_parts(parts, shape.v));
    }
  }
  return all;
}

// Rows as wide as those of the shape: wide ones are read twice.
simt::LaunchStats softmax_of(double rows, double v) {
  constexpr std::int64_t kFew = 4;
  const Tensor z = normal({kFew, static_cast<std::int64_t>(v)}, 1).set_requires_grad(true);
  const Tensor y = targets(kFew, static_cast<std::int64_t>(v));
  simt::LaunchStats s = log_of([&] { (void)cross_entropy(z, y); }).at(0).stats;
  for (const auto counter : simt::kCounters) {
    s.*counter = static_cast<std::uint64_t>(static_cast<double>(s.*counter) * rows / kFew);
  }
  return s;
}

std::vector<LossLaunch> chunk_launches(const LossShape& shape) {
  const Corners& corners = corners_of(shape);
  const double widening = std::max(1.0, std::ceil(shape.v / kWidth));
  const double rows = std::max(256.0, static_cast<double>(std::bit_ceil(static_cast<std::uint64_t>(
                                          std::ceil(shape.t / widening)))));
  const double chunks = std::ceil(shape.t / rows);
  std::vector<LossLaunch> all;
  for (std::size_t i = 0; i < corners.small.size(); ++i) {
    const std::string& kernel = corners.small[i].kernel;
    const bool of_chunk =
        kernel.starts_with("gemm") || kernel == "column_sums" || kernel == "softmax_cross_entropy";
    LossLaunch one{kernel, of_chunk ? chunks : 1, {}};
    one.stats = kernel == "softmax_cross_entropy"
                    ? softmax_of(shape.t, shape.v)
                    : corners.at(i, of_chunk ? rows : shape.t, shape.v, one.launches);
    all.push_back(one);
  }
  return all;
}

double unit(const LossShape& shape, const Hardware& card) {
  return 2 * shape.t * shape.v * kWidth / card.tensor;
}

}  // namespace

std::vector<LossLaunch> loss_launches(const LossShape& shape) {
  const bool chunks = shape.gradients && shape.precision == Precision::f32;
  return chunks ? chunk_launches(shape) : whole_launches(shape);
}

double predicted_loss_time(const std::vector<LossLaunch>& launches, const Hardware& card) {
  double seconds = 0;
  for (const LossLaunch& one : launches) {
    seconds += predicted_time(one.stats, card).busy + one.launches * card.launch_overhead;
  }
  return seconds;
}

double loss_floor(const LossShape& shape, const Hardware& card) {
  const bool f32 = shape.precision == Precision::f32;
  const double products = shape.gradients ? (f32 ? 3 : 4) : 1;
  return products * (f32 ? 6 : 1) * unit(shape, card);
}

}  // namespace tessera::bench
