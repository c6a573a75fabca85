#include "apps/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/output.h"
#include "apps/run_record.h"
#include "apps/stages.h"
#include "train/csv.h"
#include "train/file_io.h"
#include "train/metrics/label_efficiency.h"
#include "train/metrics/statistics.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

struct Row {
  std::string task, method, strategy, metric;
  std::int64_t n_train = 0;
  std::vector<double> values;  // one a seed, at least one
};

ordered_json read_evaluation(const RunConfig& c, const Study& study, std::int64_t seed) {
  const std::string path = fmt::format("{}/eval/{}.json", c.run.directory, study.name(seed));
  try {
    return ordered_json::parse(read_text(path));
  } catch (const ordered_json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", path, e.what());
  }
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
    for (const auto& [metric, value] : evaluation.at("metrics").items()) {
      auto row = std::ranges::find(own, metric, &Row::metric);
      if (row == own.end()) {
        row = own.insert(
            row,
            {study.task, study.method, study.strategy, metric, evaluation.at("train_jets"), {}});
      }
      row->values.push_back(value);
    }
  }
  rows.insert(rows.end(), own.begin(), own.end());
}

/// One line on stderr for each metric that a task's test jets do not define: its rows are missing.
void tell_undefined(const Study& study, const ordered_json& evaluation) {
  const ordered_json undefined = evaluation.value("undefined", ordered_json::object());
  for (const auto& [metric, reason] : undefined.items()) {
    print_err("table: {}: {} is left out, since the test jets do not define it: {}\n", study.task,
              metric, reason.get<std::string>());
  }
}

std::vector<Row> rows_of(const RunConfig& c, const std::vector<Study>& studies) {
  std::vector<Row> rows;
  std::set<std::string> begun;
  for (const Study& study : studies) {
    if (begun.insert(study.task).second) {
      const ordered_json evaluation = read_evaluation(c, study, 0);
      add_baseline(rows, study, evaluation);
      tell_undefined(study, evaluation);
    }
    add_study(rows, c, study);
  }
  return rows;
}

// ", weighted (TASKS)" for tasks whose test jets are; a weighted number is no count of jets.
std::string weight_note(const RunConfig& c, const std::vector<Study>& studies) {
  std::set<std::string> tasks;
  for (const Study& study : studies) {
    if (read_evaluation(c, study, 0).contains("weights")) {
      tasks.insert(study.task);
    }
  }
  return tasks.empty() ? "" : fmt::format(", weighted ({})", fmt::join(tasks, ", "));
}

void write_results(const RunConfig& c, const std::vector<Study>& studies,
                   const std::vector<Row>& rows) {
  std::string csv = "task,method,strategy,n_train,metric,value,error,seeds\n";
  std::string shown = fmt::format(
      "\n{}, test split{}; mean +- standard deviation over seeds.\n{:8} {:10} {:14} "
      "{:>7} {:12} {:>9} {:>9} {:>5}\n",
      all_simulated(c) ? "Simulated jets" : "Jets", weight_note(c, studies), "task", "method",
      "strategy", "n_train", "metric", "value", "error", "seeds");
  for (const Row& r : rows) {
    const MeanSd m = mean_sd(r.values);
    csv += csv_line({r.task, r.method, r.strategy, fmt::format("{}", r.n_train), r.metric,
                     fmt::format("{:.6g}", m.mean), fmt::format("{:.3g}", m.sd),
                     fmt::format("{}", r.values.size())});
    shown += fmt::format("{:8} {:10} {:14} {:7} {:12} {:9.4f} {:9.4f} {:5}\n", r.task, r.method,
                         r.strategy, r.n_train, r.metric, m.mean, m.sd, r.values.size());
  }
  write_text(c.run.directory + "/table.csv", csv);
  write_out(shown);
}

// A response has no better side: it is to be one.
std::optional<Better> better_of(const std::string& metric) {
  if (metric == "accuracy" || metric == "auc") return Better::larger;
  if (metric == "resolution" || metric == "misid@80") return Better::smaller;
  return std::nullopt;
}

const char* sign(LabelMultiplier::Bound bound) {
  switch (bound) {
    case LabelMultiplier::Bound::at_least:
      return ">";
    case LabelMultiplier::Bound::at_most:
      return "<";
    case LabelMultiplier::Bound::none:
      break;
  }
  return "";
}

/// The curve of the same model from scratch, for each task, model and metric.
using Curves = std::map<std::string, LearningCurve>;

std::string curve_of(const Row& r) { return r.task + "," + r.method + "," + r.metric; }

Curves scratch_curves(const std::vector<Row>& rows) {
  Curves curves;
  for (const Row& r : rows) {
    if (r.strategy == "scratch") {
      curves[curve_of(r)].jets.push_back(static_cast<double>(r.n_train));
      curves[curve_of(r)].value.push_back(mean_sd(r.values).mean);
    }
  }
  return curves;
}

void write_label_multipliers(const RunConfig& c, const std::vector<Row>& rows) {
  const Curves curves = scratch_curves(rows);
  std::string csv = "task,method,strategy,n_train,metric,value,bound,label_multiplier\n";
  std::string shown = "\nLabel multiplier: jets from scratch over jets at equal metric.\n";
  for (const Row& r : rows) {
    const auto curve = curves.find(curve_of(r));
    const auto better = better_of(r.metric);
    if (r.strategy == "scratch" || curve == curves.end() || !better) {
      continue;
    }
    const double value = mean_sd(r.values).mean;
    const LabelMultiplier m =
        label_multiplier(curve->second, static_cast<double>(r.n_train), value, *better);
    csv += csv_line({r.task, r.method, r.strategy, fmt::format("{}", r.n_train), r.metric,
                     fmt::format("{:.6g}", value), sign(m.bound),
                     fmt::format("{:.4g}", m.multiplier)});
    shown += fmt::format("{:8} {:10} {:14} {:7} {:12} {:>2}{:8.2f}\n", r.task, r.method, r.strategy,
                         r.n_train, r.metric, sign(m.bound), m.multiplier);
  }
  write_text(c.run.directory + "/label_multiplier.csv", csv);
  write_out(shown);
}

}  // namespace

void write_tables(const RunConfig& c, const std::vector<Study>& studies) {
  const std::vector<Row> rows = rows_of(c, studies);
  write_results(c, studies, rows);
  if (c.finetune.train_jets.size() > 1) {
    write_label_multipliers(c, rows);
  }
}

}  // namespace tessera::apps
