// Files of answers: CSV and JSON by ourselves, Parquet and ROOT by a Python program.
#pragma once

#include "apps/answer_table.h"
#include "apps/command.h"

namespace tessera::apps {

enum class AnswersFormat : std::uint8_t { csv, json, parquet, root };

/// By the ending of the output's name (.json, .parquet, .root), else JSON where it is asked for,
/// else CSV. Throws Error(usage) where JSON is asked for under another format's name, and refuses
/// an output that could not be written, before the work that makes it.
AnswersFormat answers_format(const std::string& output, bool json);

/// Writes the table to the output, or to stdout where there is none. JSON is one object: `head`
/// with the rows under "answers". Parquet keeps `head` among the metadata of its schema, ROOT as
/// the title of the tree "answers".
void write_answers_file(const ModelArguments& arguments, AnswersFormat format,
                        nlohmann::ordered_json head, const AnswerTable& table);

}  // namespace tessera::apps
