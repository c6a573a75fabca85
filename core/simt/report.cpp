#include "core/simt/report.h"

#include <fmt/format.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>

#include "core/simt/launch_state.h"

namespace tessera::simt {
namespace {

struct Row {
  std::uint64_t launches = 0;
  LaunchStats sum;
};

bool asked_for() { return std::getenv("TESSERA_SIMT_REPORT") != nullptr; }

std::uintptr_t load_address() {
  std::uintptr_t base = 0;  // of the program itself, which comes first
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<std::uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &base);
  return base;
}

/// Where the code of the kernels lies in the program's file, a line each, added to a file.
void write_entries(const char* path, const std::set<const void*>& entries) {
  if (std::FILE* out = std::fopen(path, "a"); out != nullptr) {
    for (const void* entry : entries) {
      fmt::print(out, "{:x}\n", reinterpret_cast<std::uintptr_t>(entry) - load_address());
    }
    std::fclose(out);
  }
}

struct Table {
  std::mutex mutex;
  std::map<std::string, Row> rows;
  std::set<const void*> entries;
  ~Table() {
    if (const char* path = std::getenv("TESSERA_SIMT_ENTRIES")) {
      write_entries(path, entries);
    }
    if (asked_for()) {
      std::fputs(report().c_str(), stderr);
    }
  }
};

Table& table() {
  static Table t;
  return t;
}

double ratio(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 1.0 : static_cast<double>(a) / static_cast<double>(b);
}

}  // namespace

thread_local int t_bank_scopes = asked_for() ? 1 : 0;
BankCounting::BankCounting() { ++t_bank_scopes; }
BankCounting::~BankCounting() { --t_bank_scopes; }

namespace {
thread_local LaunchLog* t_log = nullptr;

}  // namespace

LaunchLog::LaunchLog() : outer_(t_log) { t_log = this; }
LaunchLog::~LaunchLog() { t_log = outer_; }

LaunchStats& operator+=(LaunchStats& sum, const LaunchStats& s) {
  for (const auto counter : kCounters) {
    sum.*counter += s.*counter;
  }
  return sum;
}

void add_to_report(const Geometry& g, const LaunchStats& s) {
  for (LaunchLog* log = t_log; log != nullptr; log = log->outer_) {
    log->launches_.push_back({g.name, g.entry, g.grid, g.block, g.smem_bytes, s});
  }
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  t.entries.insert(g.entry);
  Row& row = t.rows[g.name];
  ++row.launches;
  row.sum += s;
}

// "sectors" and "banks" are factors over the least possible: 1.00 is perfect.
std::string report() {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  std::string text = fmt::format("{:<28}{:>9}{:>14}{:>14}{:>9}{:>9}{:>8}{:>12}{:>14}{:>10}{:>10}\n",
                                 "kernel", "launches", "bytes read", "written", "sectors", "",
                                 "banks", "mma", "ex2", "barriers", "atomics");
  for (const auto& [name, row] : t.rows) {
    const LaunchStats& s = row.sum;
    text += fmt::format(
        "{:<28}{:>9}{:>14}{:>14}{:>9.2f}{:>9.2f}{:>8.2f}{:>12}{:>14}{:>10}{:>10}\n", name,
        row.launches, s.bytes_read, s.bytes_written, ratio(32 * s.sectors_read, s.bytes_read),
        ratio(32 * s.sectors_written, s.bytes_written), ratio(s.wavefronts, s.wavefronts_ideal),
        s.mma, s.exponentials, s.barriers, s.atomics);
  }
  return text;
}

}  // namespace tessera::simt
