#include "apps/table.h"

#include <fmt/format.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/stages.h"
#include "train/metrics.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

struct Row {
  std::string task, method, strategy, metric;
  std::int64_t n_train = 0;
  std::vector<double> values;  // one a seed
};

ordered_json read_evaluation(const RunConfig& c, const Study& study, std::int64_t seed) {
  return ordered_json::parse(
      std::ifstream(fmt::format("{}/eval/{}.json", c.run.directory, study.name(seed))));
}

void add_baseline(std::vector<Row>& rows, const Study& study, const ordered_json& evaluation) {
  for (const auto& [metric, value] : evaluation.at("baseline").items()) {
    const char* method = study.task == "tau-pt" ? "raw-jet" : "constant";
    rows.push_back({study.task, method, "-", metric, 0, {value.get<double>()}});
  }
}

void add_study(std::vector<Row>& rows, const RunConfig& c, const Study& study) {
  std::vector<Row> own;
  for (std::int64_t seed = 0; seed < c.finetune.seeds; ++seed) {
    const ordered_json evaluation = read_evaluation(c, study, seed);
    std::size_t i = 0;
    for (const auto& [metric, value] : evaluation.at("metrics").items()) {
      if (seed == 0) {
        own.push_back(
            {study.task, study.method, study.strategy, metric, evaluation.at("train_jets"), {}});
      }
      own[i++].values.push_back(value);
    }
  }
  rows.insert(rows.end(), own.begin(), own.end());
}

}  // namespace

std::string Study::name(std::int64_t seed) const {
  return fmt::format("{}__{}__{}__seed{}", task, method, strategy, seed);
}

void write_table(const RunConfig& c, const std::vector<Study>& studies) {
  std::vector<Row> rows;
  std::set<std::string> begun;
  for (const Study& study : studies) {
    if (begun.insert(study.task).second) {
      add_baseline(rows, study, read_evaluation(c, study, 0));
    }
    add_study(rows, c, study);
  }
  std::string csv = "task,method,strategy,n_train,metric,value,error,seeds\n";
  fmt::print(
      "\nSimulated jets, test split; mean +- standard deviation over seeds.\n{:8} {:10} {:14} "
      "{:>7} {:12} {:>9} {:>9} {:>5}\n",
      "task", "method", "strategy", "n_train", "metric", "value", "error", "seeds");
  for (const Row& r : rows) {
    const MeanSd m = mean_sd(r.values);
    csv += fmt::format("{},{},{},{},{},{:.6g},{:.3g},{}\n", r.task, r.method, r.strategy, r.n_train,
                       r.metric, m.mean, m.sd, r.values.size());
    fmt::print("{:8} {:10} {:14} {:7} {:12} {:9.4f} {:9.4f} {:5}\n", r.task, r.method, r.strategy,
               r.n_train, r.metric, m.mean, m.sd, r.values.size());
  }
  write_text(c.run.directory + "/table.csv", csv);
}

}  // namespace tessera::apps
