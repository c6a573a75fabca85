// tessera evaluate and predict: a stored task model on a dataset split.
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/stages.h"
#include "train/metrics.h"
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
  r.predictions = predict(*r.stored.model, r.data, r.stored.features);
  return r;
}

// The jets of a Poisson bootstrap replica.
Predictions replica_of(const Predictions& p, std::uint32_t replica) {
  Predictions r{.columns = p.columns};
  const auto weights = poisson_weights(1, replica, static_cast<std::uint64_t>(p.size()));
  const auto c = static_cast<std::size_t>(p.columns);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    for (int k = 0; k < static_cast<int>(weights[j]); ++k) {
      r.outputs.insert(r.outputs.end(), p.outputs.begin() + static_cast<long>(j * c),
                       p.outputs.begin() + static_cast<long>((j + 1) * c));
      r.target.push_back(p.target[j]);
      r.pt_reco.push_back(p.pt_reco[j]);
      r.pt_true.push_back(p.pt_true[j]);
    }
  }
  return r;
}

// Poisson bootstrap over jets, for every metric of a task on the same replicas.
std::vector<double> bootstrap_errors(Task task, const Predictions& p) {
  constexpr std::uint32_t kReplicas = 200;
  std::vector<std::vector<double>> values;
  for (std::uint32_t b = 0; b < kReplicas; ++b) {
    const Metrics m = evaluate(task, replica_of(p, b));
    values.resize(m.size());
    for (std::size_t i = 0; i < m.size(); ++i) {
      values[i].push_back(m[i].value);
    }
  }
  std::vector<double> errors;
  for (const auto& v : values) {
    errors.push_back(mean_sd(v).sd);
  }
  return errors;
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

}  // namespace

void evaluate_verb(const ModelArguments& arguments) {
  const Answers a = answer(arguments);
  const Task task = a.stored.model->config.task;
  ordered_json json = evaluation_json(task, a.predictions, *a.data);
  const std::vector<double> errors = bootstrap_errors(task, a.predictions);
  ordered_json by_metric;  // joined after the walk: a new key moves what an ordered_json holds
  std::size_t i = 0;
  for (const auto& [metric, value] : json.at("metrics").items()) {
    by_metric[metric] = errors[i++];
  }
  json["errors"] = by_metric;
  json["model"] = arguments.model;
  json["data"] = arguments.data + ":" + arguments.split;
  if (!arguments.output.empty()) {
    write_text(arguments.output, json.dump(1) + "\n");
  }
  if (arguments.json) {
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print("{} on {} jets of {} ({})\n", name(task), a.predictions.size(), arguments.data,
             arguments.split);
  for (const auto& [metric, value] : json.at("metrics").items()) {
    fmt::print("{:12} {:9.4f} +- {:.4f}   without a network {:.4f}\n", metric, value.get<double>(),
               json["errors"][metric].get<double>(), json["baseline"][metric].get<double>());
  }
}

void predict_verb(const ModelArguments& arguments) {
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
  if (arguments.output.empty()) {
    fmt::print("{}", csv);
  } else {
    write_text(arguments.output, csv);
  }
}

}  // namespace tessera::apps
