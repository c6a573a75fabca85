// tessera evaluate and predict: a stored task model on a dataset split.
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/stages.h"
#include "train/metrics/paired.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

struct Answers {
  Stored<TaskModel> stored;
  std::shared_ptr<const Dataset> data;
  Predictions predictions;
};

Answers answer(const ModelArguments& a) {
  Answers r{.stored = load_task_model(a.model),
            .data = std::make_shared<Dataset>(a.data, DatasetOptions{.split = a.split}),
            .predictions = {}};
  r.stored.model->to(a.device);
  r.predictions = predict(*r.stored.model, r.data, r.stored.features);
  return r;
}

ordered_json bounds(const Interval& i) { return {i.low, i.high}; }

/// The answers of this model minus those of another for the same jets.
ordered_json against(const ModelArguments& arguments, const Answers& a) {
  ModelArguments others = arguments;
  others.model = arguments.against;
  const Answers b = answer(others);
  const Task task = a.stored.model->config.task;
  TESSERA_CHECK(b.stored.model->config.task == task, "--against: expected a model for {}, got {}",
                name(task), name(b.stored.model->config.task));
  const std::vector<Predictions> both[] = {{a.predictions}, {b.predictions}};
  const auto replicated = replicate(task, both, arguments.seed);
  ordered_json out{{"model", arguments.against}};
  for (const Difference& d : paired_differences(replicated[0], replicated[1])) {
    out["differences"][d.metric] = {
        {"value", d.value}, {"interval68", bounds(d.test68)}, {"interval95", bounds(d.test95)}};
  }
  return out;
}

std::vector<std::string> column_names(const Answers& a) {
  switch (a.stored.model->config.task) {
    case Task::tau_pt:
      return {"pt_reco_gev", "pt_predicted_gev"};
    case Task::tau_id:
      return {"p_background", "p_tau"};
    case Task::tau_dm:
      return {"p_h", "p_h_pi0", "p_h_2pi0", "p_3h", "p_3h_pi0", "p_rare"};
    case Task::tag:
      break;
  }
  std::vector<std::string> names;
  for (const std::string& c : a.data->classes()) {
    names.push_back("p_" + c);
  }
  return names;
}

std::vector<double> columns_of(const Answers& a, std::size_t jet) {
  const Predictions& p = a.predictions;
  const auto c = static_cast<std::size_t>(p.columns);
  const auto row = std::span(p.outputs).subspan(jet * c, c);
  if (a.stored.model->config.task == Task::tau_pt) {
    return {p.pt_reco[jet], p.pt_reco[jet] * std::exp(static_cast<double>(row[0]))};
  }
  const double largest = static_cast<double>(*std::ranges::max_element(row));
  std::vector<double> q;
  double total = 0;
  for (const float z : row) {
    q.push_back(std::exp(static_cast<double>(z) - largest));
    total += q.back();
  }
  for (double& x : q) {
    x /= total;
  }
  return q;
}

void print_differences(const ordered_json& evaluation) {
  if (!evaluation.contains("against")) {
    return;
  }
  print_out("minus {}, on the same jets\n", evaluation["against"]["model"].get<std::string>());
  for (const auto& [metric, d] : evaluation["against"]["differences"].items()) {
    const auto low = d["interval68"], wide = d["interval95"];
    print_out("{:12} {:+9.4f}   68 % {:+.4f} to {:+.4f}   95 % {:+.4f} to {:+.4f}\n", metric,
              d["value"].get<double>(), low[0].get<double>(), low[1].get<double>(),
              wide[0].get<double>(), wide[1].get<double>());
  }
}

}  // namespace

void evaluate_verb(const ModelArguments& arguments) {
  check_output(arguments.output);
  const Answers a = answer(arguments);
  const Task task = a.stored.model->config.task;
  ordered_json json = evaluation_json(task, a.predictions, *a.data);
  const std::vector<double> errors = bootstrap_errors(task, a.predictions, arguments.seed);
  ordered_json by_metric;  // joined after the walk: a new key moves what an ordered_json holds
  std::size_t i = 0;
  for (const auto& [metric, value] : json.at("metrics").items()) {
    by_metric[metric] = errors[i++];
  }
  json["errors"] = by_metric;
  json["model"] = arguments.model;
  json["data"] = arguments.data + ":" + arguments.split;
  if (!arguments.against.empty()) {
    json["against"] = against(arguments, a);
  }
  if (!arguments.output.empty()) {
    write_result(arguments.output, json.dump(1) + "\n");
  }
  if (arguments.json) {
    print_out("{}\n", json.dump());
    return;
  }
  print_out("{} on {} jets of {} ({})\n", name(task), a.predictions.size(), arguments.data,
            arguments.split);
  for (const auto& [metric, value] : json.at("metrics").items()) {
    print_out("{:12} {:9.4f} +- {:.4f}   without a network {:.4f}\n", metric, value.get<double>(),
              json["errors"][metric].get<double>(), json["baseline"][metric].get<double>());
  }
  print_differences(json);
}

void predict_verb(const ModelArguments& arguments) {
  check_output(arguments.output);
  const Answers a = answer(arguments);
  const auto jets = select_jets(a.stored.model->config.task, *a.data);
  const auto ids = a.data->ids();
  std::string csv = "id";
  for (const std::string& column : column_names(a)) {
    csv += "," + column;
  }
  csv += "\n";
  for (std::size_t j = 0; j < jets.size(); ++j) {
    csv += fmt::format("{}", ids[jets[j]]);
    for (const double value : columns_of(a, j)) {
      csv += fmt::format(",{:.7g}", value);
    }
    csv += "\n";
  }
  write_result(arguments.output, csv);
}

}  // namespace tessera::apps
