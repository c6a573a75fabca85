#include "nn/codebook.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "core/autograd.h"
#include "kernels/vq/vq.h"

namespace tessera {
namespace {

/// Rows of a contiguous (N, D) array.
struct Rows {
  std::span<float> data;
  std::size_t count, width;

  explicit Rows(const Tensor& t)
      : data(t.span<float>()),
        count(static_cast<std::size_t>(t.shape(0))),
        width(static_cast<std::size_t>(t.shape(1))) {}
  [[nodiscard]] std::span<float> operator[](std::size_t i) const {
    return data.subspan(i * width, width);
  }
};

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

double squared_distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) {
    const double gap = static_cast<double>(a[d]) - static_cast<double>(b[d]);
    sum += gap * gap;
  }
  return sum;
}

double norm(std::span<const float> a) {
  double sum = 0;
  for (const float x : a) {
    sum += static_cast<double>(x) * static_cast<double>(x);
  }
  return std::sqrt(sum);
}

/// Host copy without history; checks shape and finiteness.
Tensor host_rows(const Tensor& z, std::int64_t width) {
  TESSERA_CHECK(z.rank() == 2 && z.shape(1) == width, "codebook: rows must be (T, {}), got {}",
                width, z.shape());
  Tensor host = z.detach().to(kCpu).contiguous();
  for (const float x : host.span<float>()) {
    TESSERA_CHECK_KIND(ErrorKind::numeric, std::isfinite(x),
                       "codebook: rows must be finite, got {}", x);
  }
  return host;
}

/// An index with probability weight / total; uniform if all weights are zero.
std::size_t draw(const std::vector<double>& weights, Rng& rng) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!(total > 0)) {
    return static_cast<std::size_t>(rng.below(weights.size()));
  }
  // 53 bits: with 24 a row of many would have no chance.
  double left = total * static_cast<double>(rng.next_u64() >> 11) * 0x1.0p-53;
  std::size_t last = 0;  // rounding may carry past the end: then the last row with any weight
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) {
      last = i;
      if (left < weights[i]) {
        break;
      }
      left -= weights[i];
    }
  }
  return last;
}

/// Sum of the rows of each code, and how many they are.
struct CodeSums {
  std::vector<double> sums;
  std::vector<std::int64_t> counts;
};

CodeSums sum_by_code(const Rows& z, std::span<const std::int32_t> codes, std::size_t k) {
  CodeSums m{std::vector<double>(k * z.width), std::vector<std::int64_t>(k)};
  for (std::size_t i = 0; i < z.count; ++i) {
    const auto code = static_cast<std::size_t>(codes[i]);
    ++m.counts[code];
    for (std::size_t d = 0; d < z.width; ++d) {
      m.sums[code * z.width + d] += static_cast<double>(z[i][d]);
    }
  }
  return m;
}

/// Row indices, farthest from their centre first; ties in row order.
std::vector<std::size_t> rows_by_distance(const Rows& z, const Rows& centres,
                                          std::span<const std::int32_t> codes) {
  std::vector<double> distance(z.count);
  for (std::size_t i = 0; i < z.count; ++i) {
    distance[i] = squared_distance(z[i], centres[static_cast<std::size_t>(codes[i])]);
  }
  std::vector<std::size_t> order(z.count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return distance[a] > distance[b]; });
  return order;
}

/// One iteration: moves `centres` in place; returns the sum of the squared moves.
double move_centres(const Tensor& z_rows, const Tensor& centre_rows, EmptyCentre empty) {
  const Rows z(z_rows), centres(centre_rows);
  const std::vector<std::int32_t> codes = vq_assign(z_rows, centre_rows).to_vector<std::int32_t>();
  const CodeSums means = sum_by_code(z, codes, centres.count);
  std::vector<std::size_t> seeds;
  if (empty == EmptyCentre::reseed && std::ranges::count(means.counts, 0) > 0) {
    seeds = rows_by_distance(z, centres, codes);
  }
  double moved = 0;
  std::size_t next_seed = 0;
  std::vector<float> next(z.width);
  for (std::size_t k = 0; k < centres.count; ++k) {
    if (means.counts[k] == 0 && empty == EmptyCentre::zero) {
      std::ranges::fill(next, 0.0F);
    } else if (means.counts[k] == 0) {
      std::ranges::copy(z[seeds[next_seed++ % z.count]], next.begin());
    } else {
      for (std::size_t d = 0; d < z.width; ++d) {
        next[d] =
            static_cast<float>(means.sums[k * z.width + d] / static_cast<double>(means.counts[k]));
      }
    }
    moved += squared_distance(centres[k], next);
    std::ranges::copy(next, centres[k].begin());
  }
  centre_rows.bump_version();
  return moved;
}

std::size_t argmax(const std::vector<double>& values) {
  return static_cast<std::size_t>(std::ranges::max_element(values) - values.begin());
}

/// k rows of z0; choose() gets the squared distance of each row from its nearest centre so far.
template <class Choose>
Tensor choose_centres(const Tensor& z0, std::int64_t k, Choose choose) {
  TESSERA_CHECK(z0.rank() == 2 && z0.shape(0) > 0 && k > 0,
                "k-means: needs rows (T, D), T > 0, and k > 0 centres, got {} and {}", z0.shape(),
                k);
  const Tensor host = host_rows(z0, z0.shape(1));
  Tensor centres = Tensor::empty({k, z0.shape(1)});
  const Rows z(host), chosen(centres);
  std::vector<double> nearest(z.count, 0.0);
  for (std::size_t c = 0; c < chosen.count; ++c) {
    const std::size_t row = choose(nearest);
    std::ranges::copy(z[row], chosen[c].begin());
    for (std::size_t i = 0; i < z.count; ++i) {
      const double distance = squared_distance(z[i], z[row]);
      nearest[i] = c == 0 ? distance : std::min(nearest[i], distance);
    }
  }
  return centres;
}

Tensor kmeans(const Tensor& z, std::int64_t k, KmeansStart start, Rng& rng) {
  return start == KmeansStart::plus_plus
             ? lloyd(z, kmeans_plus_plus(z, k, rng))
             : lloyd(z, farthest_first(z, k, rng), 100, EmptyCentre::zero);
}

/// 0 .. n - 1 in random order (Fisher and Yates).
std::vector<std::size_t> permutation(std::size_t n, Rng& rng) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<std::size_t>(rng.below(i))]);
  }
  return order;
}

std::vector<float> noisy(std::span<const float> row, double sigma, Rng& rng) {
  std::vector<float> out(row.begin(), row.end());
  for (float& x : out) {
    x += static_cast<float>(sigma * rng.normal());
  }
  return out;
}

}  // namespace

Tensor kmeans_plus_plus(const Tensor& z, std::int64_t k, Rng& rng) {
  return choose_centres(z, k, [&](const std::vector<double>& nearest) {
    return draw(nearest, rng);  // all are zero at first: uniform
  });
}

Tensor farthest_first(const Tensor& z, std::int64_t k, Rng& rng) {
  bool first = true;
  return choose_centres(z, k, [&](const std::vector<double>& nearest) {
    return std::exchange(first, false) ? draw(nearest, rng) : argmax(nearest);
  });
}

Tensor lloyd(const Tensor& z0, const Tensor& start, int max_iterations, EmptyCentre empty) {
  TESSERA_CHECK(start.rank() == 2 && start.shape(0) > 0 && z0.rank() == 2 && z0.shape(0) > 0,
                "k-means: needs rows (T, D) and centres (K, D), T and K > 0, got {} and {}",
                z0.shape(), start.shape());
  const NoGrad off;
  const Tensor z = host_rows(z0, start.shape(1));
  Tensor centres = start.clone();
  for (int i = 0; i < max_iterations; ++i) {
    if (move_centres(z, centres, empty) <= 1e-4) {
      break;
    }
  }
  return centres;
}

Codebook Codebook::create(std::int64_t codes, std::int64_t width, std::int64_t timeout, Rng& rng) {
  TESSERA_CHECK(codes > 0 && width > 0 && timeout > 0,
                "codebook: codes, width and timeout must be positive, got {}, {} and {}", codes,
                width, timeout);
  const std::vector<std::int32_t> counters(index(codes), static_cast<std::int32_t>(timeout));
  Codebook c{Tensor::empty({codes, width}), Tensor::zeros({width}), Tensor::zeros({width}),
             Tensor::from(counters, {codes}), Tensor::zeros({1}, DType::i32)};
  for (float& x : c.values.span<float>()) {
    x = static_cast<float>(rng.normal());
  }
  return c;
}

// e = (row - a b) / (1 + a s); a column whose factor is zero cannot be reached and keeps the row.
void Codebook::write_row(std::int64_t code, const std::vector<float>& row,
                         const CodebookOptions& options) {
  const std::span<float> out = Rows(values)[index(code)];
  const std::span<const float> s = scale.span<float>(), b = bias.span<float>();
  for (std::size_t d = 0; d < row.size(); ++d) {
    const float factor = 1 + options.affine_lr * s[d];
    const bool invert = options.inverse_affine && factor != 0;
    out[d] = invert ? (row[d] - options.affine_lr * b[d]) / factor : row[d];
  }
}

void Codebook::on_host(const std::function<void(Codebook&)>& body) {
  const NoArena heap;
  const auto copy = [](const Tensor& t) { return t.detach().to(kCpu); };
  Codebook host{copy(values), copy(scale), copy(bias), copy(lru), copy(initialised)};
  body(host);
  copy_into(values, host.values);
  copy_into(lru, host.lru);
  copy_into(initialised, host.initialised);
}

void Codebook::start(const Tensor& z0, const CodebookOptions& options, Rng& rng) {
  const NoGrad off;
  if (values.device() != kCpu) {
    on_host([&](Codebook& host) { host.start(z0, options, rng); });
    return;
  }
  const Tensor z = host_rows(z0, values.shape(1));
  const std::int64_t k = values.shape(0), t = z.shape(0);
  if (t == 0) {
    return;
  }
  const Tensor rows = t > k ? kmeans(z, k, options.kmeans, rng) : z;
  for (std::int64_t i = 0; i < k; ++i) {
    const std::span<const float> row = Rows(rows)[index(t > k ? i : i % t)];
    write_row(i, noisy(row, t > k ? 0.0 : 1e-3, rng), options);
  }
  values.bump_version();
  initialised.span<std::int32_t>()[0] = 1;
  initialised.bump_version();
}

void Codebook::count_use(const Tensor& codes, std::int64_t timeout) {
  const std::span<std::int32_t> left = lru.span<std::int32_t>();
  for (std::int32_t& n : left) {
    --n;
  }
  for (const std::int32_t code : codes.to_vector<std::int32_t>()) {
    TESSERA_CHECK(code >= 0 && static_cast<std::size_t>(code) < left.size(),
                  "codebook: codes must be in [0, {}), got {}", left.size(), code);
    left[static_cast<std::size_t>(code)] = static_cast<std::int32_t>(timeout);
  }
  lru.bump_version();
}

// Not "exactly 0": a forward without rows replaces nothing, and its codes wait for the next one.
std::vector<std::int64_t> Codebook::dead() const {
  std::vector<std::int64_t> result;
  const std::span<const std::int32_t> left = lru.span<std::int32_t>();
  for (std::size_t k = 0; k < left.size(); ++k) {
    if (left[k] <= 0) {
      result.push_back(static_cast<std::int64_t>(k));
    }
  }
  return result;
}

std::vector<std::int64_t> Codebook::observe(const Tensor& z0, const Tensor& codes,
                                            const CodebookOptions& options, Rng& rng) {
  TESSERA_CHECK(options.timeout > 0, "codebook: timeout must be positive, got {}", options.timeout);
  TESSERA_CHECK(codes.rank() == 1 && z0.rank() == 2 && codes.shape(0) == z0.shape(0),
                "codebook: needs one code per row, got rows {} and codes {}", z0.shape(),
                codes.shape());
  const NoGrad off;
  if (values.device() != kCpu) {
    std::vector<std::int64_t> replaced;
    on_host([&](Codebook& host) { replaced = host.observe(z0, codes, options, rng); });
    return replaced;
  }
  const Tensor z = host_rows(z0, values.shape(1));
  if (initialised.span<std::int32_t>()[0] == 0) {
    start(z, options, rng);
  }
  count_use(codes, options.timeout);
  const std::vector<std::int64_t> replaced = dead();
  if (replaced.empty() || z.shape(0) == 0) {
    return {};
  }
  const std::vector<std::size_t> order = permutation(index(z.shape(0)), rng);
  for (std::size_t i = 0; i < replaced.size(); ++i) {
    const std::span<const float> row = Rows(z)[order[i % order.size()]];
    const double sigma = static_cast<double>(options.replacement_noise) * norm(row);
    write_row(replaced[i], noisy(row, sigma, rng), options);
    lru.span<std::int32_t>()[index(replaced[i])] = static_cast<std::int32_t>(options.timeout);
  }
  values.bump_version();
  return replaced;
}

}  // namespace tessera
