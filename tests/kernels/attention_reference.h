// Attention in double, as a physicist reads it, and the op's two passes on a device.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"
#include "support/gradcheck.h"

namespace tessera::testing_support {

struct Sizes {
  Segments q, k;
  std::int64_t heads, width;
  std::vector<std::uint8_t> causal;
  float dropout = 0;
  RngKey key{};
};

// Element (token, part, head, d) of q (parts 1), kv (2) or qkv (3).
inline std::size_t at(std::int64_t token, std::int64_t part, std::int64_t parts, std::int64_t head,
                      std::int64_t d, const Sizes& s) {
  return static_cast<std::size_t>(((token * parts + part) * s.heads + head) * s.width + d);
}

inline std::int64_t pair_count(const Sizes& s) {
  std::int64_t pairs = 0;
  for (int b = 0; b < s.q.count(); ++b) pairs += std::int64_t{s.q.length(b)} * s.k.length(b);
  return pairs;
}

template <class Q, class K, class V>
std::vector<double> attend(const Sizes& s, Q q, K k, V v, const std::vector<double>& bias = {}) {
  std::int64_t first_pair = 0;
  std::vector<double> out(static_cast<std::size_t>(s.q.total() * s.heads * s.width), 0.0);
  for (int b = 0; b < s.q.count(); ++b) {
    const std::int64_t q0 = s.q.cu_seqlens()[static_cast<std::size_t>(b)],
                       k0 = s.k.cu_seqlens()[static_cast<std::size_t>(b)];
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t i = 0; i < s.q.length(b); ++i) {
        std::int64_t n = s.k.length(b);
        if (!s.causal.empty() && s.causal[static_cast<std::size_t>(b)]) n = std::min(n, i + 1);
        std::vector<double> p;
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) {
          double dot = 0;
          for (std::int64_t d = 0; d < s.width; ++d) dot += q(q0 + i, h, d) * k(k0 + j, h, d);
          const std::int64_t pair = h * pair_count(s) + first_pair + i * s.k.length(b) + j;
          const double added = bias.empty() ? 0 : bias[static_cast<std::size_t>(pair)];
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(s.width)) + added));
          sum += p.back();
          if (s.key.uniform(static_cast<std::uint64_t>(pair)) < s.dropout) p.back() = 0;
        }
        for (std::int64_t j = 0; j < n; ++j) {
          for (std::int64_t d = 0; d < s.width; ++d) {
            out[at(q0 + i, 0, 1, h, d, s)] +=
                p[static_cast<std::size_t>(j)] / sum / (1.0 - s.dropout) * v(k0 + j, h, d);
          }
        }
      }
    }
    first_pair += std::int64_t{s.q.length(b)} * s.k.length(b);
  }
  return out;
}

// Output and gradients of self attention in double: the formulas above attention(), for segments
// too long for finite differences.
struct Expected {
  std::vector<double> out, dqkv, dbias;
};

inline Expected attend_and_differentiate(const Sizes& s, const std::vector<double>& x,
                                         const std::vector<double>& bias,
                                         const std::vector<double>& up) {
  Expected e{std::vector<double>(up.size(), 0.0), std::vector<double>(x.size(), 0.0),
             std::vector<double>(bias.size(), 0.0)};
  const double scale = 1 / std::sqrt(static_cast<double>(s.width));
  std::int64_t first_pair = 0;
  for (int b = 0; b < s.q.count(); ++b) {
    const std::int64_t t0 = s.q.cu_seqlens()[static_cast<std::size_t>(b)], l = s.q.length(b);
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t i = 0; i < l; ++i) {
        const bool causal = !s.causal.empty() && s.causal[static_cast<std::size_t>(b)] != 0;
        const std::int64_t n = causal ? i + 1 : l, pair = h * pair_count(s) + first_pair + i * l;
        const auto in = [&](std::int64_t token, std::int64_t part, std::int64_t d) {
          return at(t0 + token, part, 3, h, d, s);
        };
        std::vector<double> p, mask, dp;
        double sum = 0, mean = 0;
        for (std::int64_t j = 0; j < n; ++j) {
          double dot = 0;
          for (std::int64_t d = 0; d < s.width; ++d) dot += x[in(i, 0, d)] * x[in(j, 1, d)];
          p.push_back(std::exp(scale * dot + bias[static_cast<std::size_t>(pair + j)]));
          sum += p.back();
          const bool kept = s.key.uniform(static_cast<std::uint64_t>(pair + j)) >= s.dropout;
          mask.push_back(kept ? 1 / (1 - static_cast<double>(s.dropout)) : 0);
        }
        for (std::size_t j = 0; j < p.size(); ++j) {
          p[j] /= sum;
          double slope = 0;
          for (std::int64_t d = 0; d < s.width; ++d) {
            const double g = up[at(t0 + i, 0, 1, h, d, s)];
            const std::size_t value = in(static_cast<std::int64_t>(j), 2, d);
            e.out[at(t0 + i, 0, 1, h, d, s)] += p[j] * mask[j] * x[value];
            e.dqkv[value] += p[j] * mask[j] * g;
            slope += g * x[value];
          }
          dp.push_back(mask[j] * slope);
          mean += p[j] * dp[j];
        }
        for (std::size_t j = 0; j < p.size(); ++j) {
          const double ds = p[j] * (dp[j] - mean);
          e.dbias[static_cast<std::size_t>(pair) + j] = ds;
          for (std::int64_t d = 0; d < s.width; ++d) {
            const std::size_t query = in(i, 0, d), key = in(static_cast<std::int64_t>(j), 1, d);
            e.dqkv[query] += scale * ds * x[key];
            e.dqkv[key] += scale * ds * x[query];
          }
        }
      }
    }
    first_pair += l * l;
  }
  return e;
}

// Result and gradients (qkv, bias) of self attention on a device, for an upstream gradient.
struct Passes {
  Tensor out, dqkv, dbias;
};

inline Passes run_passes(const Sizes& s, const Tensor& x0, const Tensor& bias0, const Tensor& up,
                         Device device) {
  Tensor x = x0.clone().to(device), bias = bias0.clone().to(device);
  x.set_requires_grad(true);
  bias.set_requires_grad(true);
  const Tensor y = attention(
      x, s.q, {.causal_segments = s.causal, .dropout = s.dropout, .key = s.key, .bias = bias});
  backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
    return std::vector<Tensor>{up.to(device)};
  }));
  return {y, x.grad(), bias.grad()};
}

}  // namespace tessera::testing_support
