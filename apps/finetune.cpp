// tessera finetune: every task with the individual method and all strategies, several seeds;
// table.csv at the end.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/command.h"
#include "apps/store.h"
#include "train/metrics.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

struct Splits {
  std::shared_ptr<const Dataset> train, validation, test;
  explicit Splits(const std::string& directory)
      : train(open(directory, "train")),
        validation(open(directory, "val")),
        test(open(directory, "test")) {}

 private:
  static std::shared_ptr<const Dataset> open(const std::string& directory,
                                             const std::string& split) {
    return std::make_shared<Dataset>(directory, DatasetOptions{.split = split});
  }
};

std::vector<Task> parse_tasks(const std::string& list) {
  std::vector<Task> tasks;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) {
    tasks.push_back(parse_task(item));
  }
  return tasks;
}

const char* method(Strategy s) { return s == Strategy::individual ? "deepsets" : "tessera"; }
const char* strategy_name(Strategy s) { return s == Strategy::individual ? "scratch" : name(s); }

// Curves for the report: response and resolution in bins of true pT, ROC, confusion.
ordered_json momentum_curves(const Predictions& p) {
  static constexpr double kEdges[] = {10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 125, 150, 175, 200};
  ordered_json out;
  for (std::size_t b = 0; b + 1 < std::size(kEdges); ++b) {
    std::vector<double> r;
    for (std::size_t j = 0; j < p.target.size(); ++j) {
      if (p.pt_true[j] >= kEdges[b] && p.pt_true[j] < kEdges[b + 1]) {
        r.push_back(std::exp(static_cast<double>(p.outputs[j])) * p.pt_reco[j] / p.pt_true[j]);
      }
    }
    if (r.size() < 20) {
      continue;
    }
    const double median = quantile(r, 0.5), iqr = quantile(r, 0.75) - quantile(r, 0.25);
    out["pt_low"].push_back(kEdges[b]);
    out["pt_high"].push_back(kEdges[b + 1]);
    out["response"].push_back(median);
    out["resolution"].push_back(iqr / median);
    // sd of a median and of an IQR of a normal sample: 1.2533 and 1.573 sigma / sqrt(n), sigma =
    // IQR / 1.349
    const double error = iqr / 1.349 / std::sqrt(static_cast<double>(r.size()));
    out["response_error"].push_back(1.2533 * error);
    out["resolution_error"].push_back(1.573 * error / median);
    out["n"].push_back(r.size());
  }
  return out;
}

ordered_json roc_curve(const Predictions& p) {
  std::vector<std::pair<float, bool>> scored;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    scored.emplace_back(p.outputs[2 * j + 1] - p.outputs[2 * j], p.target[j] == 1);
  }
  std::ranges::sort(scored, std::greater<>());
  const auto total_s = static_cast<double>(std::ranges::count(p.target, 1));
  const double total_b = static_cast<double>(p.size()) - total_s;
  double s = 0, b = 0;
  ordered_json out;
  for (std::size_t i = 0; i < scored.size(); ++i) {
    (scored[i].second ? s : b) += 1;
    if (i % std::max<std::size_t>(1, scored.size() / 400) == 0) {
      out["signal_efficiency"].push_back(s / total_s);
      out["background_efficiency"].push_back(b / total_b);
    }
  }
  return out;
}

ordered_json confusion(const Predictions& p, const std::vector<std::string>& classes) {
  const auto c = static_cast<std::size_t>(p.columns);
  std::vector<std::vector<std::int64_t>> counts(c, std::vector<std::int64_t>(c, 0));
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    const auto row = std::span(p.outputs).subspan(j * c, c);
    ++counts[static_cast<std::size_t>(p.target[j])]
            [static_cast<std::size_t>(std::ranges::max_element(row) - row.begin())];
  }
  return {{"classes", classes}, {"counts", counts}};
}

ordered_json to_json(Task task, const FinetuneResult& r, const Dataset& data) {
  ordered_json out;
  for (const Metric& m : r.metrics) {
    out["metrics"][m.name] = m.value;
  }
  out["parameters"] = r.parameters;
  out["train_jets"] = r.train_jets;
  if (task == Task::tau_pt) out["momentum"] = momentum_curves(r.test);
  if (task == Task::tau_id) out["roc"] = roc_curve(r.test);
  if (task == Task::tau_dm)
    out["confusion"] = confusion(r.test, {"h", "h pi0", "h 2pi0", "3h", "3h pi0", "rare"});
  if (task == Task::tag) out["confusion"] = confusion(r.test, data.classes());
  for (const Metric& m : evaluate_baseline(task, r.test)) {
    out["baseline"][m.name] = m.value;
  }
  return out;
}

std::string eval_path(const RunConfig& c, Task task, Strategy s, std::int64_t seed) {
  return fmt::format("{}/eval/{}__{}__{}__seed{}.json", c.run, name(task), method(s),
                     strategy_name(s), seed);
}

void run_one(const RunConfig& c, Task task, Strategy strategy, std::int64_t seed,
             const Splits& data, const std::vector<NamedTensor>& pretrained,
             const Options& options) {
  const std::string path = eval_path(c, task, strategy, seed);
  if (std::filesystem::exists(path)) {
    return;
  }
  const FinetuneJob job{
      .task = task,
      .strategy = strategy,
      .backbone = backbone_config(c),
      .trainer = {.lr = c.finetune_lr, .steps = c.finetune_steps, .warmup = c.finetune_steps / 20},
      .backbone_lr = c.backbone_lr,
      .batch = c.finetune_batch,
      .train_jets = c.train_jets,
      .seed = static_cast<std::uint64_t>(c.seed + seed)};
  const std::string log = fmt::format("{}/curves/{}__{}__{}__seed{}.jsonl", c.run, name(task),
                                      method(strategy), strategy_name(strategy), seed);
  const FinetuneResult r = finetune(job, data.train, data.validation, data.test, feature_config(c),
                                    pretrained, console_observer(options, log));
  write_text(path, to_json(task, r, *data.train).dump());
}

struct Row {
  std::string task, method, strategy, metric;
  std::int64_t n_train = 0;
  std::vector<double> values;
  double mean() const {
    double s = 0;
    for (const double v : values) s += v;
    return s / static_cast<double>(values.size());
  }
  // Sample standard deviation over seeds; 0 with one seed.
  double error() const {
    double s = 0;
    for (const double v : values) s += (v - mean()) * (v - mean());
    return values.size() < 2 ? 0.0 : std::sqrt(s / static_cast<double>(values.size() - 1));
  }
};

void collect(std::vector<Row>& rows, const RunConfig& c, Task task) {
  for (const Strategy s : kAllStrategies) {
    std::map<std::string, Row> by_metric;
    for (std::int64_t seed = 0; seed < c.seeds; ++seed) {
      const auto eval = ordered_json::parse(std::ifstream(eval_path(c, task, s, seed)));
      if (s == Strategy::individual && seed == 0) {
        for (const auto& [metric, value] : eval.at("baseline").items()) {
          rows.push_back(
              {name(task), task == Task::tau_pt ? "raw-jet" : "constant", "-", metric, 0, {value}});
        }
      }
      for (const auto& [metric, value] : eval.at("metrics").items()) {
        Row& row = by_metric[metric];
        row = {name(task),           method(s), strategy_name(s), metric, eval.at("train_jets"),
               std::move(row.values)};
        row.values.push_back(value);
      }
    }
    for (auto& [metric, row] : by_metric) {
      rows.push_back(std::move(row));
    }
  }
}

void write_table(const RunConfig& c, const std::vector<Row>& rows) {
  std::string csv = "task,method,strategy,n_train,metric,value,error,seeds\n";
  fmt::print(
      "\nSimulated jets; mean +- standard deviation over seeds.\n{:8} {:10} {:14} {:>7} {:12} "
      "{:>9} {:>9} {:>5}\n",
      "task", "method", "strategy", "n_train", "metric", "value", "error", "seeds");
  for (const Row& r : rows) {
    csv += fmt::format("{},{},{},{},{},{:.6g},{:.3g},{}\n", r.task, r.method, r.strategy, r.n_train,
                       r.metric, r.mean(), r.error(), r.values.size());
    fmt::print("{:8} {:10} {:14} {:7} {:12} {:9.4f} {:9.4f} {:5}\n", r.task, r.method, r.strategy,
               r.n_train, r.metric, r.mean(), r.error(), r.values.size());
  }
  write_text(c.run + "/table.csv", csv);
}

}  // namespace

void finetune_verb(const RunConfig& c, const Options& options) {
  if (options.dry_run) {
    fmt::print("{}", run_schema().dump(c));
    return;
  }
  const std::vector<NamedTensor> pretrained = load_state(c.run + "/backbone.safetensors");
  const Splits jets(c.jets), taus(c.taus);
  std::vector<Row> rows;
  const std::vector<Task> tasks = parse_tasks(c.tasks);
  for (std::int64_t seed = 0; seed < c.seeds; ++seed) {
    for (const Task task : tasks) {
      for (const Strategy strategy : kAllStrategies) {
        run_one(c, task, strategy, seed, task == Task::tag ? jets : taus, pretrained, options);
      }
    }
  }
  for (const Task task : tasks) {
    collect(rows, c, task);
  }
  write_table(c, rows);
}

}  // namespace tessera::apps
