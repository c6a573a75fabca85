#include "nn/models/pair_features.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/parallel.h"
#include "nn/models/rapidity.h"

namespace tessera {
namespace {

struct Particle {
  double px, py, pz, energy, pt, rapidity, phi;

  explicit Particle(std::span<const float> p4)
      : px(static_cast<double>(p4[0])),
        py(static_cast<double>(p4[1])),
        pz(static_cast<double>(p4[2])),
        energy(static_cast<double>(p4[3])),
        pt(std::hypot(px, py)),
        rapidity(guarded_rapidity(energy, pz)),
        phi(std::atan2(py, px)) {}
};

double wrapped(double phi) {
  using std::numbers::pi;
  return phi - 2 * pi * std::floor((phi + pi) / (2 * pi));
}

// NaN stays NaN.
float clamped_log(double x) { return static_cast<float>(std::log(x < 1e-8 ? 1e-8 : x)); }

void write_pair(const Particle& a, const Particle& b, std::span<float> out) {
  const double dr = std::hypot(a.rapidity - b.rapidity, wrapped(a.phi - b.phi));
  const double low = std::min(a.pt, b.pt), sum = a.pt + b.pt;
  const double px = a.px + b.px, py = a.py + b.py, pz = a.pz + b.pz, e = a.energy + b.energy;
  out[0] = clamped_log(low * dr);
  out[1] = clamped_log(sum > 0 ? low / sum : 0.5);
  out[2] = clamped_log(dr);
  out[3] = clamped_log(e * e - px * px - py * py - pz * pz);
}

std::size_t triangle(std::int32_t n) {
  return static_cast<std::size_t>(n) * (static_cast<std::size_t>(n) + 1) / 2;
}

/// Where each jet's pairs begin, and their number.
std::vector<std::size_t> triangle_offsets(const Segments& segments) {
  std::vector<std::size_t> offsets{0};
  for (int j = 0; j < segments.count(); ++j) {
    offsets.push_back(offsets.back() + triangle(segments.length(j)));
  }
  return offsets;
}

void write_jet(std::span<const float> p4, std::span<float> out) {
  std::vector<Particle> particles;
  for (std::size_t i = 0; i < p4.size(); i += 4) {
    particles.emplace_back(p4.subspan(i, 4));
  }
  std::size_t row = 0;
  for (std::size_t i = 0; i < particles.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      write_pair(particles[i], particles[j], out.subspan(kPairFeatures * row++, kPairFeatures));
    }
  }
}

}  // namespace

Tensor pair_features(const Tensor& four_momenta, const Segments& segments) {
  TESSERA_CHECK(four_momenta.shape() == (Shape{segments.total(), 4}),
                "pair_features: four-momenta must be ({}, 4), got {}", segments.total(),
                four_momenta.shape());
  const Tensor host = four_momenta.detach().to(kCpu).contiguous();
  const std::vector<std::size_t> offsets = triangle_offsets(segments);
  Tensor out = Tensor::empty({static_cast<std::int64_t>(offsets.back()), kPairFeatures});
  const auto p4 = host.span<const float>();
  const auto rows = out.span<float>();
  parallel_for(segments.count(), [&](std::int64_t jet) {
    const auto j = static_cast<std::size_t>(jet);
    const auto first = static_cast<std::size_t>(segments.cu_seqlens()[j]);
    const auto n = static_cast<std::size_t>(segments.length(static_cast<int>(jet)));
    write_jet(p4.subspan(4 * first, 4 * n),
              rows.subspan(kPairFeatures * offsets[j],
                           kPairFeatures * triangle(static_cast<std::int32_t>(n))));
  });
  return out.to(four_momenta.device());
}

Tensor pair_index(const Segments& segments) {
  std::vector<std::int32_t> index;
  std::int32_t first = 0;
  for (int jet = 0; jet < segments.count(); ++jet) {
    const std::int32_t n = segments.length(jet);
    for (std::int32_t i = 0; i < n; ++i) {
      for (std::int32_t j = 0; j < n; ++j) {
        const std::int32_t high = std::max(i, j), low = std::min(i, j);
        index.push_back(first + high * (high + 1) / 2 + low);
      }
    }
    first += n * (n + 1) / 2;
  }
  return Tensor::from(index, {static_cast<std::int64_t>(index.size())});
}

}  // namespace tessera
