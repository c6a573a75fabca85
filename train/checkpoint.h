// Checkpoints of a run: a directory per step, committed as a whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "train/file_io.h"
#include "train/safetensors.h"

namespace tessera {

/// What one checkpoint holds. Empty maps and texts give no file.
struct Checkpoint {
  std::string config_json;  ///< config.json: architecture and data contract
  TensorMap model;          ///< model.safetensors
  TensorMap optimizer;      ///< optimizer.safetensors
  TensorMap ema;            ///< ema.safetensors
  std::map<std::string, std::string>
      state;                    ///< state.json: step, cursor, RNG, schedule, counters, as text
  std::string preprocess_json;  ///< preprocess.json
};

/// Throws Error(kind), beginning with `what` and naming the tensor, on a weight that is not finite:
/// it makes every answer NaN.
void check_finite(const TensorMap& weights, ErrorKind kind, const std::string& what);

/// Reads one directory after checking MANIFEST.json, and name, size and XXH3-128 of each file.
/// Throws Error(missing) or Error(data) naming file, expected, got; Error(data), too, naming the
/// tensor, where a weight is not finite.
Checkpoint read_checkpoint(const std::filesystem::path& directory);
/// The checks alone.
void verify_checkpoint(const std::filesystem::path& directory);
/// Writes `directory` directly with its manifest (no commit protocol): for exports and copies.
void write_checkpoint(const std::filesystem::path& directory, std::uint64_t step,
                      const Checkpoint& content, const FileIo& io = {});

struct CheckpointOptions {
  std::uint32_t keep_last = 3;   ///< newest directories that stay
  std::uint64_t keep_every = 0;  ///< also every step divisible by this, 0 = none
};

/// The checkpoints/ of one run directory, held under run.lock: a second process is refused. Opening
/// removes what an interrupted save left behind.
class CheckpointStore {
 public:
  explicit CheckpointStore(std::filesystem::path run_directory, CheckpointOptions options = {},
                           FileIo io = {});

  /// Writes step-NNNNNN.tmp.<pid>, fsyncs all, renames, updates `latest`, then prunes. Interrupted
  /// anywhere, the next start finds the previous or the new checkpoint, never a mix. A step that is
  /// already there stays as it is. Throws Error(io), or Error(numeric) naming a model tensor with a
  /// non-finite value, before anything is written.
  void save(std::uint64_t step, const Checkpoint& content);

  struct Loaded {
    std::uint64_t step;
    Checkpoint content;
    std::vector<std::string>
        skipped;  ///< one message for each newer directory that did not verify: warn loudly
  };
  /// The newest checkpoint that verifies; newer ones are renamed to stale-*. Nothing when there is
  /// no checkpoint at all; throws Error(data) when none of those present verifies.
  std::optional<Loaded> load_latest();
  /// A given step; newer ones are renamed to stale-*, since the run continues from here.
  Loaded load(std::uint64_t step);

  /// Steps of the finished directories, rising, verified or not.
  [[nodiscard]] std::vector<std::uint64_t> steps() const;
  [[nodiscard]] std::filesystem::path path_of(std::uint64_t step) const;

 private:
  void set_aside_newer(std::uint64_t step);
  void prune(std::uint64_t newest);

  std::filesystem::path directory_;
  CheckpointOptions options_;
  FileIo io_;
  FileLock lock_;
};

/// The newest verifying checkpoint of a run directory without its lock, for evaluation; a path to a
/// checkpoint itself is returned as it is. Throws Error(missing) if there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& run_or_checkpoint);

}  // namespace tessera
