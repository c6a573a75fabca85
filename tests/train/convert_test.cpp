// Native files that apps/python/convert.py made of look-alikes, read back by the engine's reader.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/dataset.h"
#include "train/native_writer.h"

namespace tessera {
namespace {

const std::filesystem::path kFixtures =
    std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/fixtures";

// The fixture as a data set of its own.
class Converted {
 public:
  explicit Converted(const std::string& file) {
    std::filesystem::copy_file(kFixtures / file, directory_.path() / file);
    write_manifest(directory_.path(), make_manifest(directory_.path(), file, {{"train", {file}}}));
  }
  [[nodiscard]] Dataset open() const { return Dataset(directory_.path()); }

 private:
  TempDir directory_;
};

TEST(Convert, JetClassFileIsReadWithItsClassesAndZeroImpactParametersOfNeutrals) {
  const Converted files("jetclass.h5");
  const Dataset data = files.open();
  EXPECT_EQ(data.size(), 40U);
  ASSERT_EQ(data.classes().size(), 10U);
  EXPECT_EQ(data.classes()[8], "Tbqq");
  std::map<int, int> counts;
  for (const auto c : data.class_labels()) {
    ++counts[c];
  }
  EXPECT_EQ(counts.size(), 10U);
  const auto block = data.locate(0).block;
  for (std::size_t i = 0; i < block->px.size(); ++i) {
    ASSERT_TRUE(std::isfinite(block->d0[i]));
    if (block->charge[i] == 0) {
      ASSERT_EQ(block->d0[i], 0);
      ASSERT_EQ(block->dzerr[i], 0);
    }
  }
}

TEST(Convert, FuTauReFileIsReadWithDecayModesAndMissingTracksAsNaN) {
  const Converted files("fu_tau_re.h5");
  const Dataset data = files.open();
  EXPECT_EQ(data.size(), 120U);
  int taus = 0;
  for (const auto mode : data.decay_modes()) {
    taus += mode >= 0 ? 1 : 0;
  }
  EXPECT_EQ(taus, 60);
  const auto block = data.locate(0).block;
  std::size_t missing = 0;
  for (std::size_t i = 0; i < block->px.size(); ++i) {
    missing += std::isnan(block->d0[i]) ? 1 : 0;
    ASSERT_NE(block->d0[i], -1000);
    if (block->charge[i] == 0) {
      ASSERT_TRUE(std::isnan(block->d0[i]) && std::isnan(block->dzerr[i]));
    }
  }
  EXPECT_EQ(missing, 550U);
}

// Big-endian 64-bit columns in chunks of 100 from h5py, with columns that nobody asked for.
TEST(Convert, AnotherWritersChoiceOfTypesGivesTheSameJets) {
  const NativeFile want(kFixtures / "fu_tau_re.h5"), got(kFixtures / "native_wide.h5");
  EXPECT_TRUE(want.read(7, 113).px == got.read(7, 113).px);
  EXPECT_TRUE(want.read(7, 113).tau_dm == got.read(7, 113).tau_dm);
  EXPECT_TRUE(want.read(0, 120).id == got.read(0, 120).id);
  const auto a = want.read(0, 120).d0, b = got.read(0, 120).d0;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), 4 * a.size()), 0);  // NaN included
  EXPECT_EQ(make_manifest(kFixtures, "x", {{"train", {"native_wide.h5"}}}).splits.at("train")[0].m,
            1044U);
}

TEST(Convert, PythonAndEngineAgreeOnTheContentHash) {
  for (const char* name : {"jetclass.h5", "fu_tau_re.h5"}) {
    const H5File file = H5File::open(kFixtures / name);
    EXPECT_EQ(content_hash(file), file.read_attribute<std::string>("content_xxh3")) << name;
    for (const std::string& column : file.columns()) {
      EXPECT_TRUE(file.info(column).checksummed) << column;
    }
  }
}

template <class T>
void copy_if(const H5File& file, const std::string& column, ColumnType type, NativeJets& out) {
  if (type == column_type<T>()) {
    out.columns[column] = file.read_column<T>(column);
  }
}

TEST(Convert, WrittenAgainByTheEngineTheContentIsEqual) {
  const H5File file = H5File::open(kFixtures / "jetclass.h5");
  NativeJets jets;
  jets.offsets = file.read_column<std::int64_t>("offsets");
  for (const std::string& column : file.columns()) {
    const ColumnType type = file.info(column).type;
    if (column != "offsets") {
      copy_if<std::int8_t>(file, column, type, jets);
      copy_if<std::uint8_t>(file, column, type, jets);
      copy_if<std::int32_t>(file, column, type, jets);
      copy_if<std::uint64_t>(file, column, type, jets);
      copy_if<float>(file, column, type, jets);
    }
  }
  const TempDir directory;
  write_native_jets(directory.path() / "again.h5", jets);
  const H5File again = H5File::open(directory.path() / "again.h5");
  EXPECT_EQ(again.read_attribute<std::string>("content_xxh3"),
            file.read_attribute<std::string>("content_xxh3"));
}

}  // namespace
}  // namespace tessera
