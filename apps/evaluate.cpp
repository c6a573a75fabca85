// tessera evaluate: a stored task model on a dataset split with truth.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/model_data.h"
#include "apps/output.h"
#include "apps/stages.h"
#include "train/json_text.h"
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
  return {
      model.config.task, output_names(model, directory, *data),
      answers_of_stored(directory, [&] { return predict_labelled(model, data, stored.features); })};
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
  ordered_json out{{"model", arguments.against}, {"differences", ordered_json::object()}};
  for (const Difference& d : paired_differences(replicated[0], replicated[1])) {
    ordered_json& difference = out["differences"][d.metric] = {{"value", d.value}};
    if (std::isfinite(d.test68.low)) {  // else no replica of the jets defines the metric
      difference["interval68"] = bounds(d.test68);
      difference["interval95"] = bounds(d.test95);
    }
  }
  return out;
}

std::string number_at(const ordered_json& metrics, const std::string& metric) {
  return metrics.contains(metric) ? fmt::format("{:.4f}", metrics[metric].get<double>())
                                  : "(not defined)";
}

void print_metrics(const ordered_json& evaluation) {
  for (const auto& [metric, value] : evaluation.at("metrics").items()) {
    print_out("{:12} {:9.4f} +- {}   without a network {}\n", metric, value.get<double>(),
              number_at(evaluation["errors"], metric), number_at(evaluation["baseline"], metric));
  }
}

/// One line on stderr for each metric that the jets do not define.
void tell_undefined(Task task, const ordered_json& evaluation) {
  const ordered_json undefined = evaluation.value("undefined", ordered_json::object());
  for (const auto& [metric, reason] : undefined.items()) {
    print_err("evaluate: {}: {} is not defined: {}\n", name(task), metric,
              reason.get<std::string>());
  }
}

std::string range_at(const ordered_json& difference, const char* interval) {
  if (!difference.contains(interval)) {
    return "(not defined)";
  }
  const ordered_json& bounds = difference[interval];
  return fmt::format("{:+.4f} to {:+.4f}", bounds[0].get<double>(), bounds[1].get<double>());
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
    print_out("{:12} {:+9.4f}   68 % {}   95 % {}\n", metric, d["value"].get<double>(),
              range_at(d, "interval68"), range_at(d, "interval95"));
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
  json["errors"] = json_of(bootstrap_errors(task, a.predictions, arguments.seed));
  json["model"] = arguments.model;
  json["data"] = data_text(arguments);
  if (!arguments.against.empty()) {
    json["against"] = against(arguments, a);
  }
  tell_undefined(task, json);
  if (!arguments.output.empty()) {
    write_result(arguments.output, json_text(json, 1) + "\n");
  }
  if (arguments.json) {
    print_out("{}\n", json_text(json));
    return;
  }
  print_out("{} on {} jets of {}{}\n", name(task), a.predictions.size(), data_text(arguments),
            weight_note(json));
  print_metrics(json);
  print_differences(json);
}

}  // namespace tessera::apps
