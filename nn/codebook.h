// State of a vector quantiser's codebook outside the gradient: its start by k-means and the
// replacement of codes that nothing uses.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"

namespace tessera {

/// k centres (k, D) drawn from the rows of z (T, D), T > 0: the first uniformly, each next one with
/// probability proportional to its squared distance from the nearest centre so far. Arthur and
/// Vassilvitskii, "k-means++", SODA 2007.
Tensor kmeans_plus_plus(const Tensor& z, std::int64_t k, Rng& rng);

/// k centres (k, D) from the rows of z (T, D), T > 0: the first drawn uniformly, each next one the
/// row that is farthest from its nearest centre so far, ties to the smaller index. What the
/// published code calls k-means++ (minyoungg/vqtorch).
Tensor farthest_first(const Tensor& z, std::int64_t k, Rng& rng);

/// What becomes of a centre without rows.
enum class EmptyCentre {
  reseed,  ///< moves to the row that is farthest from its own centre, each such row serving once
  zero,    ///< becomes the zero vector, as in the published code
};

/// At most `max_iterations` of Lloyd's algorithm from `centres` (K, D); ends early once the squared
/// moves of all centres sum to <= 1e-4. Returns new centres.
Tensor lloyd(const Tensor& z, const Tensor& centres, int max_iterations = 100,
             EmptyCentre empty = EmptyCentre::reseed);

/// How a codebook is started from data.
enum class KmeansStart {
  plus_plus,  ///< kmeans_plus_plus, centres without rows re-seeded
  published,  ///< farthest_first, centres without rows zero
};

/// What Codebook::observe() does.
struct CodebookOptions {
  std::int64_t timeout = 50;        ///< forwards without use until a code is replaced, R >= 1
  float replacement_noise = 0.01F;  ///< relative to the norm of the row
  float affine_lr = 2.0F;           ///< effective codebook e' = (1 + affine_lr s) e + affine_lr b
  /// Rows enter the codebook through the inverse of the affine map, so that e' is the row; if not,
  /// they are written into e as they are (the published behaviour).
  bool inverse_affine = true;
  KmeansStart kmeans = KmeansStart::plus_plus;
};

/// The tensors alias what a module registers: parameters `values`, `scale`, `bias` and buffers
/// `lru`, `initialised`. All changes are written in place. The bookkeeping runs on the host:
/// tensors of another device are copied there and back.
struct Codebook {
  Tensor values;       // (K, D)
  Tensor scale, bias;  // (D)
  Tensor lru;          // (K) i32, forwards left until a code counts as dead
  Tensor initialised;  // (1) i32, 1 once the values come from data

  /// Values from N(0, 1), affine zero, counters at `timeout`.
  static Codebook create(std::int64_t codes, std::int64_t width, std::int64_t timeout, Rng& rng);

  /// Sets the values from rows z (T, D): k-means if T > K, else the rows repeated with
  /// 1e-3 N(0, 1) added. Without rows nothing happens. Throws Error(numeric) on non-finite rows.
  void start(const Tensor& z, const CodebookOptions& options, Rng& rng);

  /// To be called once per training forward with its latents z (T, D) and codes (T) i32, after its
  /// backward (the tape refuses a codebook written to before), never in evaluation. The first call
  /// with rows starts the codebook. Then every counter falls by one, those of used codes return to
  /// the timeout, and each code at 0 gets a row of z, drawn without replacement as long as rows
  /// last, plus noise |z| N(0, 1). Returns the replaced codes, rising: their optimizer moments are
  /// to be reset.
  std::vector<std::int64_t> observe(const Tensor& z, const Tensor& codes,
                                    const CodebookOptions& options, Rng& rng);

 private:
  void on_host(const std::function<void(Codebook&)>& body);
  void count_use(const Tensor& codes, std::int64_t timeout);
  [[nodiscard]] std::vector<std::int64_t> dead() const;
  void write_row(std::int64_t code, const std::vector<float>& row, const CodebookOptions& options);
};

}  // namespace tessera
