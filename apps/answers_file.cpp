#include "apps/answers_file.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "apps/output.h"
#include "apps/programs.h"
#include "train/destination.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr std::pair<const char*, AnswersFormat> kEndings[] = {{".json", AnswersFormat::json},
                                                              {".parquet", AnswersFormat::parquet},
                                                              {".root", AnswersFormat::root}};

/// A file that is removed at the end of the scope.
struct Scratch {
  fs::path path;
  ~Scratch() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

/// The program reads a line of JSON, {"head", "types"}, and CSV below it.
void write_by_program(const ModelArguments& a, const ordered_json& head, const AnswerTable& table) {
  const Scratch source{fmt::format("{}.tmp.{}.csv", a.output, ::getpid())};
  ordered_json first{{"head", head}, {"types", ordered_json::array()}};
  for (const AnswerColumn& column : table.columns()) {
    first["types"].push_back(type_name(column.values));
  }
  constexpr int kAllDigits = 17;
  write_result(source.path.string(), first.dump() + "\n" + table.csv(kAllDigits));
  auto argv = helper_command(a.helpers, "answers.py");
  argv.insert(argv.end(), {source.path.string(), a.output, "--format",
                           fs::path(a.output).extension().string().substr(1)});
  run_program(argv);
}

}  // namespace

AnswersFormat answers_format(const std::string& output, bool json) {
  const std::string ending = fs::path(output).extension().string();
  const auto* named =
      std::ranges::find(kEndings, ending, [](const auto& e) { return std::string(e.first); });
  const AnswersFormat asked = json ? AnswersFormat::json : AnswersFormat::csv;
  const AnswersFormat format = named == std::end(kEndings) ? asked : named->second;
  if (format == AnswersFormat::parquet || format == AnswersFormat::root) {
    check_file_destination(output);
  } else {
    check_output(output);
  }
  TESSERA_CHECK(!json || format == AnswersFormat::json,
                "--json: expected an output that ends with .json, got '{}'", output);
  return format;
}

void write_answers_file(const ModelArguments& a, AnswersFormat format, ordered_json head,
                        const AnswerTable& table) {
  switch (format) {
    case AnswersFormat::csv:
      return write_result(a.output, table.csv());
    case AnswersFormat::json:
      head["answers"] = table.json();
      return write_result(a.output, head.dump() + "\n");
    case AnswersFormat::parquet:
    case AnswersFormat::root:
      return write_by_program(a, head, table);
  }
}

}  // namespace tessera::apps
