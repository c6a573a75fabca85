#include "apps/differences.h"

#include <filesystem>

#include "apps/output.h"
#include "apps/stages.h"
#include "train/csv.h"
#include "train/safetensors.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

template <class T>
Tensor column(const std::vector<T>& values) {
  Tensor tensor = Tensor::empty({std::ssize(values)}, dtype_of<T>);
  std::ranges::copy(values, tensor.span<T>().begin());
  return tensor;
}

template <class T>
std::vector<T> column(const TensorMap& tensors, const std::string& name, const std::string& path) {
  const auto found = tensors.find(name);
  TESSERA_CHECK_KIND(ErrorKind::data,
                     found != tensors.end() && found->second.dtype() == dtype_of<T>,
                     "{}: expected answers of a task model, got no '{}' of type {}", path, name,
                     tessera::name(dtype_of<T>));
  return found->second.to_vector<T>();
}

bool control(const Study& study) { return !pretrained(parse_strategy(study.strategy)); }

bool same_labels(const Study& a, const Study& b) {
  return a.task == b.task && a.train_jets == b.train_jets;
}

/// The studies that answer one question, and what they answer on the same replicas.
struct Comparison {
  std::vector<Study> studies;
  std::vector<Replicated> replicated;
};

Comparison compare(const RunConfig& c, std::vector<Study> studies) {
  std::vector<std::vector<Predictions>> answers;
  for (const Study& study : studies) {
    answers.emplace_back();
    for (std::int64_t seed = 0; seed < c.finetune.seeds; ++seed) {
      answers.back().push_back(read_answers(answers_path(c, study.name(seed))));
    }
  }
  const auto seed = static_cast<std::uint64_t>(c.finetune.bootstrap_seed);
  auto replicated = replicate(parse_task(studies.at(0).task), answers, seed);
  return {std::move(studies), std::move(replicated)};
}

/// Task by task and number by number; one where nothing is pre-trained, or all, has no difference.
std::vector<std::vector<Study>> questions(const std::vector<Study>& studies) {
  std::vector<std::vector<Study>> groups;
  for (const Study& study : studies) {
    const auto known = std::ranges::find_if(
        groups, [&](const auto& group) { return same_labels(group[0], study); });
    (known == groups.end() ? groups.emplace_back() : *known).push_back(study);
  }
  std::erase_if(groups, [](const auto& group) {
    return std::ranges::all_of(group, control) || std::ranges::none_of(group, control);
  });
  return groups;
}

/// An empty field where nothing defines it, such as a spread over one seed.
std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{:.4g}", value) : "";
}

std::string line_of(const Study& a, const Study& b, const Difference& d) {
  std::vector<std::string> fields{a.task,     a.method,
                                  a.strategy, b.method,
                                  b.strategy, fmt::format("{}", a.train_jets),
                                  d.metric,   fmt::format("{:.6g}", d.value)};
  for (const double value : {d.test68.low, d.test68.high, d.test95.low, d.test95.high, d.seed_sd,
                             d.seeds68.low, d.seeds68.high, d.seeds95.low, d.seeds95.high}) {
    fields.push_back(number(value));
  }
  fields.push_back(fmt::format("{}", d.seeds));
  return csv_line(fields);
}

std::string shown_line(const Study& a, const Study& b, const Difference& d) {
  const auto range = [&](const Interval& i) {
    return std::isfinite(i.low) ? fmt::format("{:+.4f} to {:+.4f}", i.low, i.high)
           : d.seeds == 1       ? std::string("one seed")
                                : std::string("not defined");
  };
  return fmt::format("{:8} {:24} {:7} {:12} {:+9.4f}  {:>20}  {:>20}\n", a.task,
                     a.strategy + " - " + b.strategy, a.train_jets, d.metric, d.value,
                     range(d.test95), range(d.seeds95));
}

}  // namespace

std::string answers_path(const RunConfig& c, const std::string& study) {
  return fmt::format("{}/eval/{}.safetensors", c.run.directory, study);
}

void write_answers(const std::string& path, const Predictions& p) {
  const std::vector<std::int64_t> ids(p.ids.begin(), p.ids.end());
  TensorMap tensors{{"ids", column(ids)},
                    {"outputs", column(p.outputs).reshape({p.size(), p.columns})},
                    {"target", column(p.target)},
                    {"pt_reco", column(p.pt_reco)},
                    {"pt_true", column(p.pt_true)}};
  if (!p.weights.empty()) {
    tensors["weights"] = column(p.weights);
  }
  const FileIo io;
  io.make_directory(fs::path(path).parent_path());
  io.replace(path,
             [&](const fs::path& temporary) { write_safetensors(temporary, tensors, {}, io); });
}

Predictions read_answers(const std::string& path) {
  TESSERA_CHECK_KIND(ErrorKind::missing, fs::exists(path), "{}: no such answers", path);
  const TensorMap tensors = read_safetensors(path).tensors;
  Predictions p{.outputs = column<float>(tensors, "outputs", path),
                .target = column<std::int32_t>(tensors, "target", path),
                .pt_reco = column<double>(tensors, "pt_reco", path),
                .pt_true = column<double>(tensors, "pt_true", path)};
  for (const std::int64_t id : column<std::int64_t>(tensors, "ids", path)) {
    p.ids.push_back(static_cast<std::uint64_t>(id));
  }
  if (tensors.contains("weights")) {
    p.weights = column<double>(tensors, "weights", path);
  }
  const std::size_t n = p.target.size();
  const Tensor& outputs = tensors.at("outputs");
  p.columns = outputs.rank() == 2 ? outputs.shape(1) : 0;
  const bool whole = p.columns > 0 && outputs.shape(0) == p.size() && p.ids.size() == n &&
                     p.pt_reco.size() == n && p.pt_true.size() == n &&
                     (p.weights.empty() || p.weights.size() == n);
  TESSERA_CHECK_KIND(ErrorKind::data, whole, "{}: expected {} rows in every column", path, n);
  check_finite(p, ErrorKind::data, path);
  return p;
}

void write_differences(const RunConfig& c, const std::vector<Study>& studies) {
  std::string csv =
      "task,method,strategy,minus_method,minus_strategy,n_train,metric,difference,test_low68,"
      "test_high68,test_low95,test_high95,seed_sd,seeds_low68,seeds_high68,seeds_low95,"
      "seeds_high95,seeds\n";
  std::string shown = fmt::format(
      "\nPaired differences from scratch; 95 % intervals over test jets and over seeds.\n"
      "{:8} {:24} {:>7} {:12} {:>9}  {:>20}  {:>20}\n",
      "task", "difference", "n_train", "metric", "value", "test jets", "seeds");
  for (const std::vector<Study>& group : questions(studies)) {
    const Comparison comparison = compare(c, group);
    for (std::size_t a = 0; a < group.size(); ++a) {
      for (std::size_t b = 0; b < group.size(); ++b) {
        if (control(group[a]) || !control(group[b])) {
          continue;
        }
        for (const Difference& d :
             paired_differences(comparison.replicated[a], comparison.replicated[b])) {
          csv += line_of(group[a], group[b], d);
          if (group[a].method == group[b].method && group[b].strategy == "scratch") {
            shown += shown_line(group[a], group[b], d);
          }
        }
      }
    }
  }
  write_text(c.run.directory + "/differences.csv", csv);
  write_out(shown);
}

}  // namespace tessera::apps
