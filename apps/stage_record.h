// done.json of a stage: which files the stage has written, written last.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tessera::apps {

/// One file that a stage wrote. `path` is relative to the run directory.
struct Product {
  std::string path;
  std::uint64_t bytes = 0;
  std::string xxh3_128;
  bool operator==(const Product&) const = default;
};

/// What a finished stage has to tell; run.json is put together from these.
struct StageRecord {
  std::string stage;     ///< "tokenizer", "finetune/TASK__METHOD__STRATEGY__seedK"
  std::string settings;  ///< the text of settings.txt
  double seconds = 0;
  std::string ended, weights;  ///< time in UTC, hash of the weights ("" without)
  std::vector<Product> files;
};

/// Size and hash of RUN/path. Throws Error(missing | io).
Product describe_product(const std::filesystem::path& run, const std::string& path);

/// Writes RUN/STAGE/done.json durably: the stage's last act. Throws Error(io).
void write_record(const std::filesystem::path& run, const StageRecord& record);

/// The record of a stage; nothing where it has none, or where it is damaged, which a line on stderr
/// then says.
std::optional<StageRecord> read_record(const std::filesystem::path& run, const std::string& stage);

/// The records of all finished stages of a run, in the order of their names.
std::vector<StageRecord> records_of(const std::filesystem::path& run);

/// Whether the file is still the one of the record, by size and hash.
bool unchanged(const std::filesystem::path& run, const Product& product);

/// Whether RUN/path can be read whole: what is asked of the files of a stage that has no record.
bool readable(const std::filesystem::path& run, const std::string& path);

}  // namespace tessera::apps
