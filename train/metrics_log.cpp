#include "train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/check.h"
#include "train/file_io.h"

namespace tessera {
namespace {

constexpr std::string_view kPrefix = "{\"step\":";

// The step of a whole line, or nothing.
std::optional<std::uint64_t> step_of_line(std::string_view line) {
  if (!line.starts_with(kPrefix) || !line.ends_with('}')) {
    return std::nullopt;
  }
  std::uint64_t step = 0;
  const auto [end, code] =
      std::from_chars(line.data() + kPrefix.size(), line.data() + line.size(), step);
  return code == std::errc{} ? std::optional(step) : std::nullopt;
}

/// Leading whole lines of a log.
struct Kept {
  std::size_t bytes = 0;
  std::uint64_t last_step = 0;
};

// Those whose step is at most `last`.
Kept lines_to_keep(std::string_view text, std::uint64_t last) {
  Kept kept;
  std::size_t& keep = kept.bytes;
  for (std::size_t end = text.find('\n'); end != std::string_view::npos;
       end = text.find('\n', keep)) {
    const auto step = step_of_line(text.substr(keep, end - keep));
    if (!step || *step > last) {
      break;
    }
    keep = end + 1;
    kept.last_step = *step;
  }
  return kept;
}

[[noreturn]] void fail(const std::filesystem::path& path, std::string_view what) {
  const int code = errno;
  TESSERA_FAIL(ErrorKind::io, "{}: {} failed: {} (errno {})", path.string(), what,
               std::strerror(code), code);
}

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + "\"";
}

}  // namespace

std::string metrics_line(std::uint64_t step, const Metrics& metrics) {
  std::string line = fmt::format("{}{}", kPrefix, step);
  for (const auto& [name, value] : metrics) {
    line += fmt::format(",{}:{}", json_text(name),
                        std::isfinite(value) ? fmt::format("{}", value) : "null");
  }
  return line + "}\n";
}

MetricsLog::MetricsLog(std::filesystem::path path, std::optional<std::uint64_t> resume_step)
    : path_(std::move(path)) {
  Kept kept;
  std::error_code code;
  if (resume_step && std::filesystem::exists(path_, code)) {
    kept = lines_to_keep(read_text(path_), *resume_step);
  }
  whole_ = kept.last_step == resume_step.value_or(0);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    fail(path_, "open");
  }
  if (::ftruncate(descriptor_, static_cast<off_t>(kept.bytes)) != 0) {
    fail(path_, "truncate");
  }
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void MetricsLog::write(std::uint64_t step, const Metrics& metrics) {
  const std::string line = metrics_line(step, metrics);
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  const ssize_t written = ::write(descriptor_, line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) {
    return;
  }
  // A disk that takes a part of the line is full; no torn line stays.
  const int code = written < 0 ? errno : ENOSPC;
  (void)!::ftruncate(descriptor_, before);
  errno = code;
  fail(path_, fmt::format("write of {} bytes", line.size()));
}

void MetricsLog::sync() {
  if (::fsync(descriptor_) != 0) {
    fail(path_, "fsync");
  }
  if (!name_is_durable_) {
    FileIo().sync_directory(path_.parent_path());
    name_is_durable_ = true;
  }
}

}  // namespace tessera
