// tessera evaluate: a stored task model on a dataset split with truth.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/model_data.h"
#include "apps/output.h"
#include "apps/stages.h"
#include "train/metrics/paired.h"
#include "train/task_outputs.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

/// A model's answers with truth, and the names of its outputs in order.
struct Judged {
  Task task;
  std::vector<std::string> classes;
  Predictions predictions;
};

/// "DIRECTORY:SPLIT", or the lone file.
std::string data_text(const ModelArguments& a) {
  if (!a.splits.empty()) {
    return a.data + ":" + a.splits.front();
  }
  return std::filesystem::is_regular_file(a.data) ? a.data : a.data + ":test";
}

Judged judge(const ModelArguments& a, const std::string& directory) {
  const Stored<TaskModel> stored = load_on_device(directory, a.device);
  const TaskModel& model = *stored.model;
  const auto data = open_for(model, a.data, a.splits.empty() ? "" : a.splits.front(),
                             Labels::by_name, parse_weights(a.weights));
  check_truth(model.config.task, *data);
  if (data->weights_ignored()) {
    print_err("{}: the weights of the jets are ignored, as asked\n", data_text(a));
  }
  return {model.config.task, output_names(model, directory, *data),
          predict_labelled(model, data, stored.features)};
}

ordered_json bounds(const Interval& i) { return {i.low, i.high}; }

/// The answers of this model minus those of another for the same jets.
ordered_json against(const ModelArguments& arguments, const Judged& a) {
  const Judged b = judge(arguments, arguments.against);
  TESSERA_CHECK(b.task == a.task, "--against: expected a model for {}, got {}", name(a.task),
                name(b.task));
  const std::vector<Predictions> both[] = {
      {a.predictions}, {reordered(b.predictions, b.classes, a.classes, arguments.model)}};
  const auto replicated = replicate(a.task, both, arguments.seed);
  ordered_json out{{"model", arguments.against}};
  for (const Difference& d : paired_differences(replicated[0], replicated[1])) {
    out["differences"][d.metric] = {
        {"value", d.value}, {"interval68", bounds(d.test68)}, {"interval95", bounds(d.test95)}};
  }
  return out;
}

std::string weight_note(const ordered_json& evaluation) {
  return evaluation.contains("weights")
             ? fmt::format(", weighted: they count as {:.1f}",
                           evaluation["weights"]["effective_number"].get<double>())
             : "";
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
  TESSERA_CHECK(arguments.splits.size() <= 1, "--split: evaluate takes one split, got {}",
                arguments.splits.size());
  const Judged a = judge(arguments, arguments.model);
  const Task task = a.task;
  ordered_json json = evaluation_json(task, a.predictions, a.classes);
  const std::vector<double> errors = bootstrap_errors(task, a.predictions, arguments.seed);
  ordered_json by_metric;  // joined after the walk: a new key moves what an ordered_json holds
  std::size_t i = 0;
  for (const auto& [metric, value] : json.at("metrics").items()) {
    by_metric[metric] = errors[i++];
  }
  json["errors"] = by_metric;
  json["model"] = arguments.model;
  json["data"] = data_text(arguments);
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
  print_out("{} on {} jets of {}{}\n", name(task), a.predictions.size(), data_text(arguments),
            weight_note(json));
  for (const auto& [metric, value] : json.at("metrics").items()) {
    print_out("{:12} {:9.4f} +- {:.4f}   without a network {:.4f}\n", metric, value.get<double>(),
              json["errors"][metric].get<double>(), json["baseline"][metric].get<double>());
  }
  print_differences(json);
}

}  // namespace tessera::apps
