// Fields of a CSV line come back from a reader of RFC 4180 as they went in.
#include "train/csv.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

/// The fields of the one record that `text` holds, read as RFC 4180 says.
std::vector<std::string> parsed(const std::string& text) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const bool doubled = quoted && text[i] == '"' && text[i + 1] == '"';
    if (doubled) {
      fields.back() += text[i++];
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (text[i] == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += text[i];
    }
  }
  return fields;
}

TEST(Csv, FieldsThatNeedItAreQuotedAndOthersAreNot) {
  EXPECT_EQ(csv_field("QCD"), "QCD");
  EXPECT_EQ(csv_field(""), "");
  EXPECT_EQ(csv_field("H->bb, boosted"), "\"H->bb, boosted\"");
  EXPECT_EQ(csv_field("two\nlines"), "\"two\nlines\"");
  EXPECT_EQ(csv_field("carriage\rreturn"), "\"carriage\rreturn\"");
  EXPECT_EQ(csv_field("a \"b\""), "\"a \"\"b\"\"\"");
  EXPECT_EQ(csv_field(" padded"), "\" padded\"");
  EXPECT_EQ(csv_field("in side"), "in side");
}

TEST(Csv, AReaderOfTheStandardGivesTheFieldsBack) {
  const std::vector<std::string> fields{"",       "plain", "a,b", "\"", "\"\"", "x\r\ny",
                                        "Zürich", " ",     ",",   "\n", "",     "end"};
  EXPECT_EQ(parsed(csv_line(fields)), fields);
  EXPECT_EQ(csv_line({"", "a"}), ",a\n");
  EXPECT_EQ(csv_line({"", "", ""}), ",,\n");
}

}  // namespace
}  // namespace tessera
