// Columns of the data files that predict copies beside its answers.
#pragma once

#include <string>
#include <vector>

#include "apps/answer_table.h"
#include "train/dataset.h"

namespace tessera::apps {

/// Appends the columns of the files, one value a jet, as they are stored; numbers of classes become
/// their names. Throws Error(usage) with the nearest name where the first file has no such column,
/// Error(data) where another file has none.
void add_observers(const Dataset& data, const std::vector<std::string>& names, AnswerTable& table);

}  // namespace tessera::apps
