// tessera predict: answers of a stored task model to every jet of its input. No truth is needed.
#include <cmath>
#include <filesystem>
#include <numbers>

#include "apps/answer_table.h"
#include "apps/answers_file.h"
#include "apps/model_data.h"
#include "apps/observers.h"
#include "apps/output.h"
#include "train/features.h"
#include "train/task_outputs.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

/// One split or file with the model's answers. `row_of` is the row of each jet in `answers`, -1 for
/// a jet without a constituent.
struct Part {
  std::string split;
  std::shared_ptr<const Dataset> data;
  Answers answers;
  std::vector<std::int64_t> row_of;
};

/// A column of one value for each jet, from value(block, row).
template <class T>
std::vector<T> each_jet(const Dataset& data, const auto& value) {
  std::vector<T> values;
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const auto [block, row] = data.locate(j);
    values.push_back(value(*block, row));
  }
  return values;
}

double jet_mass(const JetBlock& b, std::uint64_t row) {
  const double energy = static_cast<double>(b.jet_energy[row]);
  const double momentum =
      static_cast<double>(b.jet_pt[row]) * std::cosh(static_cast<double>(b.jet_eta[row]));
  return std::sqrt(std::max(0.0, (energy - momentum) * (energy + momentum)));
}

/// Where each jet comes from, and its kinematics in GeV and rad.
void add_jets(const Part& part, AnswerTable& table) {
  const Dataset& data = *part.data;
  std::vector<std::uint64_t> entry;
  std::vector<std::string> file;
  for (const Dataset::File& f : data.files()) {
    for (std::uint64_t row = 0; row < f.jets; ++row) {
      entry.push_back(row);
      file.push_back(f.name);
    }
  }
  const auto jet = [&](std::vector<float> JetBlock::*column) {
    return each_jet<float>(data, [=](const JetBlock& b, auto row) { return (b.*column)[row]; });
  };
  table.add("entry", std::move(entry));
  table.add("id", data.ids());
  table.add("jet_pt", jet(&JetBlock::jet_pt));
  table.add("jet_eta", jet(&JetBlock::jet_eta));
  table.add("jet_phi", jet(&JetBlock::jet_phi));
  table.add("jet_mass", each_jet<double>(data, jet_mass));
  table.add("split", std::vector<std::string>(data.size(), part.split));
  table.add("file", std::move(file));
}

/// The name of each jet's class, or the true pT of a tau jet; empty where there is none.
void add_truth(Task task, const Dataset& data, AnswerTable& table) {
  if (task == Task::tau_pt) {
    table.add("pt_true_gev", each_jet<double>(data, [](const JetBlock& b, auto row) {
                const bool tau = !b.tau_dm.empty() && hadronic(b.tau_dm[row]);
                return tau && !b.vis_px.empty() && !b.vis_py.empty()
                           ? std::hypot(static_cast<double>(b.vis_px[row]),
                                        static_cast<double>(b.vis_py[row]))
                           : std::nan("");
              }));
    return;
  }
  const std::vector<std::string> classes = classes_of(task, data);
  table.add("label", each_jet<std::string>(data, [&](const JetBlock& b, auto row) {
              const bool known = task == Task::tag ? !b.label_class.empty() : !b.tau_dm.empty();
              const int place =
                  known ? class_place(task, b.label_class.empty() ? -1 : b.label_class[row],
                                      b.tau_dm.empty() ? -1 : b.tau_dm[row])
                        : -1;
              return place < 0 ? std::string() : classes.at(static_cast<std::size_t>(place));
            }));
}

/// Probabilities, the softmax of a row of outputs.
std::vector<double> probabilities(std::span<const float> row) {
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

/// pT predicted (GeV), or the probability of each class, NaN for a jet without an answer.
void add_answers(const TaskModel& model, const std::vector<std::string>& classes, const Part& part,
                 AnswerTable& table) {
  const bool regression = model.config.task == Task::tau_pt;
  const auto c = static_cast<std::size_t>(part.answers.columns);
  std::vector<std::vector<double>> columns(c);
  for (std::uint64_t j = 0; j < part.data->size(); ++j) {
    std::vector<double> values(c, std::nan(""));
    if (const std::int64_t at = part.row_of[j]; at >= 0) {
      const auto row = std::span(part.answers.outputs).subspan(static_cast<std::size_t>(at) * c, c);
      const auto [block, k] = part.data->locate(j);
      values = regression ? std::vector{static_cast<double>(block->jet_pt[k]) *
                                        std::exp(static_cast<double>(row[0]))}
                          : probabilities(row);
    }
    for (std::size_t i = 0; i < c; ++i) {
      columns[i].push_back(values[i]);
    }
  }
  for (std::size_t i = 0; i < c; ++i) {
    table.add(regression        ? "pt_predicted_gev"
              : classes.empty() ? fmt::format("p_{}", i)
                                : "p_" + classes[i],
              std::move(columns[i]));
  }
}

Part answer(const Stored<TaskModel>& stored, const ModelArguments& a, const std::string& split) {
  const bool directory = std::filesystem::is_directory(a.data);
  Part part{.split = directory && split.empty() ? "test" : split,
            .data = open_for(*stored.model, a.data, split,
                             a.ignore_labels ? Labels::ignored : Labels::by_name,
                             Weights::ignore),  // an answer has no weight
            .answers = {},
            .row_of = {}};
  part.answers = answers_of_stored(
      a.model, [&] { return predict(*stored.model, part.data, stored.features); });
  part.row_of.assign(part.data->size(), -1);
  for (std::size_t i = 0; i < part.answers.jets.size(); ++i) {
    part.row_of[part.answers.jets[i]] = static_cast<std::int64_t>(i);
  }
  return part;
}

/// Prints on stderr how many jets have no answer, and how many the training selection leaves out.
void report_counts(const TaskModel& model, const std::vector<Part>& parts) {
  const Task task = model.config.task;
  std::uint64_t jets = 0, answered = 0, soft = 0;
  for (const Part& part : parts) {
    jets += part.data->size();
    answered += part.answers.jets.size();
    const auto pts = part.data->jet_pts();
    soft += static_cast<std::uint64_t>(
        std::ranges::count_if(pts, [&](float pt) { return pt < least_pt(task); }));
  }
  if (answered < jets) {
    print_err("predict: {} of {} jets have no constituent; their answers are empty\n",
              jets - answered, jets);
  }
  if (soft > 0) {
    print_err(
        "predict: {} of {} jets have pT below {} GeV, where {} is not trained; they are "
        "answered all the same\n",
        soft, jets, least_pt(task), name(task));
  }
}

/// Returns the description of the rows in a file of answers: model, task, classes, data.
ordered_json head_of(const TaskModel& model, const std::vector<std::string>& classes,
                     const ModelArguments& a, std::size_t jets) {
  ordered_json head{{"model", a.model}, {"data", a.data}, {"task", name(model.config.task)}};
  if (const auto q = quantity_of(model.config.task)) {
    head["target"] = {{"name", q->name}, {"meaning", q->meaning}, {"unit", q->unit}};
  } else {
    head["classes"] = classes;
  }
  head["jets"] = jets;
  return head;
}

}  // namespace

void predict_verb(const ModelArguments& a) {
  const AnswersFormat format = answers_format(a.output, a.json);
  const Stored<TaskModel> stored = load_on_device(a.model, a.device);
  const TaskModel& model = *stored.model;
  std::vector<Part> parts;
  for (const std::string& split : a.splits.empty() ? std::vector<std::string>{""} : a.splits) {
    parts.push_back(answer(stored, a, split));
  }
  const bool truth = std::ranges::any_of(
      parts, [&](const Part& part) { return has_truth(model.config.task, *part.data); });
  const auto classes = output_names(model, a.model, *parts.front().data);
  AnswerTable table;
  for (const Part& part : parts) {
    AnswerTable rows;
    add_jets(part, rows);
    if (truth) {
      add_truth(model.config.task, *part.data, rows);
    }
    add_answers(model, classes, part, rows);
    add_observers(*part.data, a.observers, rows);
    table.columns().empty() ? void(table = std::move(rows)) : table.append(rows);
  }
  write_answers_file(a, format, head_of(model, classes, a, table.rows()), table);
  report_counts(model, parts);
}

}  // namespace tessera::apps
