// Predicted times of the device kernels: counters of a run on simt, scaled to the shape that the
// design names, divided by the rates of a card. No GPU takes part; nothing here is measured. Work
// that does not grow with the batch (codebooks, weights) is scaled as well: small kernels come out
// high.
//   predicted_bench [predicted.json]
#include <fmt/format.h>
#include <fmt/os.h>

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/gpu/cases.h"
#include "bench/gpu/training_loss.h"
#include "core/simt/report.h"
#include "tests/support/hardware.h"

namespace tessera::bench {
namespace {

simt::LaunchStats scaled(simt::LaunchStats s, double times) {
  for (const auto counter : simt::kCounters) {
    s.*counter = static_cast<std::uint64_t>(static_cast<double>(s.*counter) * times);
  }
  return s;
}

/// Launches of one name in a case, counters summed.
struct Row {
  std::string launch;
  int launches = 0;
  simt::LaunchStats stats;
};

std::vector<Row> rows_of(const GpuCase& c) {
  const auto run = c.prepare();
  const simt::BankCounting banks;
  const simt::LaunchLog log;
  run();
  std::vector<Row> rows;
  for (const simt::Launched& one : log.launches()) {
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& r) { return r.launch == one.kernel; });
    row = row == rows.end() ? rows.insert(row, Row{one.kernel, 0, {}}) : row;
    ++row->launches;
    row->stats += one.stats;
  }
  return rows;
}

// Tensor cores, and fma as two; 0 where the kernel has only plain sums and products.
double flops(const simt::LaunchStats& s) {
  return tensor_work(s) + 2 * static_cast<double>(s.fused);
}

nlohmann::json predict(const simt::LaunchStats& s, int launches) {
  nlohmann::json cards;
  for (const Hardware& card : kCards) {
    const Prediction p = predicted_time(s, card);
    cards[card.name] = {{"microseconds", 1e6 * (p.busy + launches * card.launch_overhead)},
                        {"bound", p.bound}};
  }
  return cards;
}

/// Where a row stands in the table; `place` in gpu_cases(), for the table of measured times, or -1.
struct Label {
  int place;
  std::string op, kernel, shape, counted_at;
};

nlohmann::json describe(const Label& label, int launches, const simt::LaunchStats& s) {
  return {{"case", label.place},
          {"op", label.op},
          {"kernel", label.kernel},
          {"launches", launches},
          {"shape", label.shape},
          {"counted_at", label.counted_at},
          {"dram_bytes", 32 * (s.unique_sectors_read + s.unique_sectors_written)},
          {"l2_bytes", 32 * (s.sectors_read + s.sectors_written)},
          {"flops", flops(s)},
          {"sectors_over_ideal",
           32.0 * static_cast<double>(s.sectors_read + s.sectors_written) /
               static_cast<double>(std::max<std::uint64_t>(1, s.bytes_read + s.bytes_written))},
          {"wavefronts_over_ideal",
           s.wavefronts_ideal == 0
               ? 1.0
               : static_cast<double>(s.wavefronts) / static_cast<double>(s.wavefronts_ideal)},
          {"predicted", predict(s, launches)}};
}

nlohmann::json describe(int place, const GpuCase& c, const Row& row) {
  return describe(
      {place, c.name, row.launch, c.full_shape.empty() ? c.shape : c.full_shape, c.shape},
      row.launches, scaled(row.stats, c.times));
}

// The kernels of a call, then all of it: the sum of their times.
std::vector<nlohmann::json> describe(const LossShape& shape) {
  const std::string where =
      fmt::format("T={:.0f} V={:.0f} d=256 {}", shape.t, shape.v, name(shape.precision));
  const std::string op = shape.gradients ? "loss + gradients" : "loss";
  const auto launches = loss_launches(shape);
  std::vector<nlohmann::json> rows;
  simt::LaunchStats all;
  int count = 0;
  for (const LossLaunch& one : launches) {
    const auto times = static_cast<int>(one.launches);
    rows.push_back(
        describe({-1, op, one.kernel, where, "T=128..256 V=256..512"}, times, one.stats));
    all += one.stats;
    count += times;
  }
  rows.push_back(describe({-1, op, "all of it", where, "T=128..256 V=256..512"}, count, all));
  for (const Hardware& card : kCards) {
    const double seconds = predicted_loss_time(launches, card);
    rows.back()["predicted"][card.name] = {
        {"microseconds", 1e6 * seconds},
        {"bound", fmt::format("{:.2f} of the floor", seconds / loss_floor(shape, card))}};
  }
  return rows;
}

void print(const nlohmann::json& r) {
  fmt::print("{:<18}{:<24}{:<30}{:>9.1f}{:>10.2f}", r["op"].get<std::string>(),
             r["kernel"].get<std::string>(), r["shape"].get<std::string>(),
             1e-6 * r["dram_bytes"].get<double>(), 1e-9 * r["flops"].get<double>());
  for (const Hardware& card : kCards) {
    const auto& p = r["predicted"][card.name];
    fmt::print("{:>10.1f}  {:<18}", p["microseconds"].get<double>(), p["bound"].get<std::string>());
  }
  fmt::print("\n");
}

// Of the design.
std::vector<LossShape> loss_shapes() {
  std::vector<LossShape> all;
  for (const double v : {8192.0, 32768.0}) {
    for (const bool gradients : {false, true}) {
      for (const Precision precision : {Precision::bf16, Precision::f32}) {
        all.push_back({51200, v, gradients, precision});
      }
    }
  }
  return all;
}

void run(const char* json_path) {
  fmt::print("Predicted, not measured: counters on simt over the rates of the cards.\n");
  fmt::print("{:<18}{:<24}{:<30}{:>9}{:>10}{:>10}  {:<18}{:>10}  {:<18}\n", "op", "kernel", "shape",
             "DRAM MB", "GFLOP", "H100 us", "bound", "A100 us", "bound");
  nlohmann::json all = nlohmann::json::array();
  const std::vector<GpuCase> cases = gpu_cases();
  int place = 0;
  for (const GpuCase& c : cases) {
    for (const Row& row : rows_of(c)) {
      all.push_back(describe(place, c, row));
      print(all.back());
    }
    ++place;
  }
  for (const LossShape& shape : loss_shapes()) {
    for (const nlohmann::json& row : describe(shape)) {
      all.push_back(row);
      print(row);
    }
  }
  if (json_path != nullptr) {
    auto out = fmt::output_file(json_path);
    out.print("{}\n", nlohmann::json{{"kind", "predicted"}, {"rows", all}}.dump(1));
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) { tessera::bench::run(argc > 1 ? argv[1] : nullptr); }
