#include "train/dataset.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <limits>

#include "core/check.h"
#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/hash.h"

namespace tessera {
namespace {

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void touch_all(const std::filesystem::path& directory, Verify verify = Verify::hash) {
  const Dataset data(directory, {.verify = verify, .block = 16});
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    (void)data.locate(j);
  }
}

// The message of the error that reading everything gives, "" if none.
std::string error_of(const std::filesystem::path& directory, Verify verify = Verify::hash) {
  try {
    touch_all(directory, verify);
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::data || e.kind() == ErrorKind::missing) << e.what();
    return e.message();
  }
  return "";
}

// The error of a data set whose jets were changed by `change` before writing.
std::string error_after(const std::function<void(JetBlock&)>& change) {
  const TempDir dir;
  JetBlock b = random_jets({3, 0, 5, 1});
  change(b);
  write_jets(dir.path() / "a.h5", b);
  list_unchecked(dir.path(), "a.h5", 4);
  return error_of(dir.path(), Verify::chunks);
}

TEST(Dataset, JetsComeBackAsWrittenForAnyChunkAndBlockSize) {
  const std::vector<std::int64_t> lengths{0, 1, 31, 0, 257, 32, 33, 0};
  const JetBlock want = random_jets(lengths);
  for (const std::uint64_t chunk : {1, 7, 64, 65536}) {
    const TempDir dir;
    write_dataset(dir.path(), {lengths}, chunk);
    const Dataset data(dir.path(), {.block = 3});
    ASSERT_EQ(data.size(), lengths.size());
    for (std::uint64_t j = 0; j < data.size(); ++j) {
      const auto [block, row] = data.locate(j);
      EXPECT_EQ(block->id[row], want.id[j]);
      const auto begin = static_cast<std::size_t>(block->offsets[row]);
      const auto count = static_cast<std::size_t>(block->offsets[row + 1]) - begin;
      ASSERT_EQ(count, static_cast<std::size_t>(lengths[j]));
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_EQ(block->px[begin + i], want.px[static_cast<std::size_t>(want.offsets[j]) + i]);
      }
    }
  }
}

TEST(Dataset, JetsLongerThanAChunkAndAcrossItsEdgesComeBackAsWritten) {
  const std::vector<std::int64_t> lengths{5, 70'000, 0, 61'000, 1, 200};
  const JetBlock want = random_jets(lengths);
  const TempDir dir;
  write_dataset(dir.path(), {lengths});
  const Dataset data(dir.path(), {.block = 2});
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const auto [block, row] = data.locate(j);
    const auto from = want.py.begin() + want.offsets[j],
               got = block->py.begin() + block->offsets[row];
    ASSERT_EQ(block->offsets[row + 1] - block->offsets[row], lengths[j]);
    EXPECT_TRUE(std::equal(from, from + lengths[j], got)) << j;
  }
}

TEST(Dataset, FilesOfOnlyEmptyJetsAndOfNoJetAreLegal) {
  const TempDir dir;
  write_dataset(dir.path(), {{}, {0, 0}, {2}});
  const Dataset data(dir.path());
  EXPECT_EQ(data.size(), 3U);
  EXPECT_EQ(data.locate(2).block->id[0], 2U);
}

TEST(Dataset, ManifestComesBackEqualAndCountsClasses) {
  const TempDir dir;
  write_dataset(dir.path(), {{1, 2, 3, 4}});
  const DatasetManifest manifest = read_manifest(dir.path());
  EXPECT_EQ(manifest, make_manifest(dir.path(), "test", {{"train", {"train_0.h5"}}}));
  const FileEntry& e = manifest.splits.at("train")[0];
  EXPECT_EQ(e.n, 4U);
  EXPECT_EQ(e.m, 10U);
  EXPECT_EQ(e.max_constituents, 4U);
  EXPECT_EQ(e.class_counts.at("QCD"), 2U);
  EXPECT_GT(manifest.columns.at("pf/d0").n_missing, 0U);
}

TEST(Dataset, AMissingManifestNamesTheCommandThatMakesOne) {
  const TempDir dir;
  EXPECT_NE(error_of(dir.path()).find("without .h5 files"), std::string::npos);
  std::ofstream(dir.path() / "train.h5") << "x";
  EXPECT_NE(error_of(dir.path()).find("tessera inspect --write-manifest"), std::string::npos);
}

TEST(Dataset, AFileThatTheReaderRefusesGetsNoManifest) {
  const TempDir dir;
  JetBlock b = random_jets({3, 0, 5, 1});
  b.px[4] = std::nanf("");
  write_jets(dir.path() / "a.h5", b);
  try {
    (void)make_manifest(dir.path(), "x", {{"train", {"a.h5"}}});
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("a.h5: dataset 'pf/px', row 4 (jet 2): expected a finite value"),
              std::string::npos)
        << e.message();
  }
}

TEST(Dataset, AnIdThatComesTwiceIsNamedWithBothPlaces) {
  const TempDir dir;
  write_jets(dir.path() / "a.h5", random_jets({1, 2, 3}, 0));
  write_jets(dir.path() / "b.h5", random_jets({1, 2}, 2));
  try {
    (void)make_manifest(dir.path(), "x", {{"train", {"a.h5"}}, {"test", {"b.h5"}}});
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("'id', row 2"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("'id', row 0"), std::string::npos) << e.message();
  }
}

// A file damaged on its way here: the hash that its writer stored in it is of other columns.
TEST(Dataset, AFileOtherThanItsWriterHashedGetsNoManifest) {
  const TempDir dir;
  const auto path = dir.path() / "a.h5";
  write_jets(path, random_jets({1, 2, 3}), 65536, std::string(32, '0'));
  try {
    (void)describe_file(dir.path(), "a.h5");
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("'content_xxh3'"), std::string::npos) << e.message();
  }
}

TEST(Dataset, EveryFlippedBitOfTheManifestIsDetected) {
  const TempDir dir;
  write_dataset(dir.path(), {{1, 2, 0}, {4}});
  const auto path = dir.path() / "manifest.json";
  const std::string good = bytes_of(path);
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += 5) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    write_bytes(path, bad);
    EXPECT_THROW((void)read_manifest(dir.path()), Error) << bit;
  }
}

TEST(Dataset, EveryTruncationIsDetected) {
  const TempDir dir;
  write_dataset(dir.path(), {random_lengths(50, 3)});
  const auto file = dir.path() / "train_0.h5";
  const std::string good = bytes_of(file);
  ASSERT_EQ(error_of(dir.path()), "");
  for (std::size_t keep = 0; keep < good.size(); keep += 1024) {
    write_bytes(file, good.substr(0, keep));
    EXPECT_NE(error_of(dir.path()), "") << keep;
  }
}

TEST(Dataset, EveryFlippedBitIsDetected) {
  const TempDir dir;
  write_dataset(dir.path(), {random_lengths(50, 3)});
  const auto file = dir.path() / "train_0.h5";
  const std::string good = bytes_of(file);
  const FileEntry entry = read_manifest(dir.path()).splits.at("train").at(0);
  Rng rng(7);
  for (int trial = 0; trial < 4000; ++trial) {
    std::string bad = good;
    const std::size_t at = rng.below(bad.size());
    bad[at] = static_cast<char>(bad[at] ^ (1 << rng.below(8)));
    write_bytes(file, bad);
    const auto refused = [&] { verify_file(dir.path(), entry, Verify::hash); };
    EXPECT_THROW(refused(), Error) << at;
    if (trial % 20 == 0) {
      EXPECT_NE(error_of(dir.path()).find("train_0.h5"), std::string::npos) << at;
    }
  }
}

TEST(Dataset, BadValuesAreErrorsThatNameDatasetAndRow) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_after([](JetBlock&) {}), "");
  const auto expect = [](const std::string& error, const std::string& part) {
    EXPECT_NE(error.find(part), std::string::npos) << "got: " << error;
    EXPECT_NE(error.find("a.h5"), std::string::npos) << "got: " << error;
  };
  expect(error_after([](JetBlock& b) { b.px[4] = std::nanf(""); }), "'pf/px', row 4");
  expect(error_after([&](JetBlock& b) { b.pz[0] = -inf; }), "'pf/pz', row 0");
  expect(error_after([](JetBlock& b) { b.energy[8] = -1; }), "'pf/energy', row 8");
  expect(error_after([](JetBlock& b) { b.pid[2] = 6; }),
         "'pf/pid', row 2 (jet 0): expected 0 to 5, got 6");
  expect(error_after([](JetBlock& b) { b.label_class[3] = 3; }), "'label/class', row 3");
  expect(error_after([](JetBlock& b) { b.tau_dm[1] = 17; }), "'label/tau_dm', row 1");
  expect(error_after([](JetBlock& b) { b.offsets[2] = 1; }), "'offsets', row 2");
  expect(error_after([](JetBlock& b) { b.offsets[0] = -1; }), "'offsets', row 0");
  expect(error_after([](JetBlock& b) { b.offsets[4] = 99; }), "'pf/px': expected 99 rows, got 9");
  expect(error_after([](JetBlock& b) { b.offsets[4] = std::int64_t{1} << 40; }), "row 4");
  expect(error_after([](JetBlock& b) { b.offsets.pop_back(); }), "'pf/px'");
  expect(error_after([](JetBlock& b) { b.jet_pt.push_back(1); }), "'jet/pt': expected 4 rows");
  expect(error_after([&](JetBlock& b) { b.d0[1] = inf; }), "'pf/d0', row 1");
  EXPECT_EQ(error_after([](JetBlock& b) { b.d0[1] = std::nanf(""); }), "");
}

// Lets the process open about `more` descriptors beyond those that it has.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t more) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest = ::dup(STDERR_FILENO);  // the limit is one of numbers
    ::close(lowest);
    const rlimit few{static_cast<rlim_t>(lowest) + more, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST(Dataset, MoreFilesThanDescriptorsComeBackAsWritten) {
  const TempDir dir(memory_directory());
  write_dataset(dir.path(), std::vector<std::vector<std::int64_t>>(60, {3, 0, 5}));
  const Dataset all(dir.path(), {.block = 2});
  std::vector<std::shared_ptr<const JetBlock>> want;
  for (std::uint64_t j = 0; j < all.size(); ++j) {
    want.push_back(all.locate(j).block);
  }
  const FewDescriptors few(20);
  const Dataset data(dir.path(), {.block = 2, .cache_bytes = 0}), twice(dir.path(), {.block = 2});
  for (std::uint64_t j = 0; j < data.size(); ++j) {
    const std::uint64_t jet = j * 53 % data.size();  // to and fro over the files
    EXPECT_EQ(data.locate(jet).block->id, want[jet]->id);
    EXPECT_EQ(data.locate(jet).block->px, want[jet]->px);
    EXPECT_EQ(twice.locate(jet).block->energy, want[jet]->energy);
  }
  EXPECT_EQ(data.ids(), all.ids());
  EXPECT_EQ(make_manifest(dir.path(), "test", {{"train", {"train_7.h5"}}}).splits.size(), 1U);
}

TEST(Dataset, AFileThatIsChangedWhileItIsInUseIsRefused) {
  const TempDir dir(memory_directory());
  write_dataset(dir.path(), std::vector<std::vector<std::int64_t>>(20, {3, 0, 5}));
  const FewDescriptors few(20);
  const Dataset data(dir.path(), {.cache_bytes = 0});
  (void)data.locate(0);
  for (std::uint64_t j = 3; j < data.size(); ++j) {
    (void)data.locate(j);  // the first file is closed for others
  }
  write_jets(dir.path() / "train_0.h5", random_jets({3, 0, 5}, 900));
  try {
    (void)data.locate(0);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("train_0.h5: was changed while it was in use"), std::string::npos)
        << e.message();
  }
}

TEST(Dataset, AFileThatCannotBeOpenedSaysWhyInTheSystemsWords) {
  const TempDir dir(memory_directory());
  write_dataset(dir.path(), {{3, 0, 5}});
  const auto expect = [&](ErrorKind kind, const std::string& words, auto open) {
    try {
      open();
      FAIL() << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.message();
      EXPECT_NE(e.message().find(words), std::string::npos) << e.message();
    }
  };
  const auto read = [&] { (void)H5File::open(dir.path() / "train_0.h5"); };
  const auto hash = [&] { (void)hash_file(dir.path() / "train_0.h5"); };
  {
    const FewDescriptors none(0);
    expect(ErrorKind::resource, "Too many open files (errno 24)", read);
    expect(ErrorKind::resource, "Too many open files (errno 24)", hash);
  }
  std::filesystem::remove(dir.path() / "train_0.h5");
  expect(ErrorKind::missing, "No such file or directory (errno 2)", read);
  ::mkfifo((dir.path() / "train_0.h5").c_str(), 0600);
  expect(ErrorKind::data, "expected a plain file", read);
  expect(ErrorKind::data, "expected a plain file", hash);
}

TEST(Dataset, TheBlockCacheStaysWithinItsBudgetAndChangesNothing) {
  const TempDir dir;
  write_dataset(dir.path(), {random_lengths(300, 5), random_lengths(100, 6)});
  const Dataset small(dir.path(), {.block = 16, .cache_bytes = 1});
  const Dataset large(dir.path(), {.block = 64});
  Rng rng(1);
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t jet = rng.below(small.size());
    const auto a = small.locate(jet), b = large.locate(jet);
    EXPECT_EQ(a.block->id[a.row], jet);
    EXPECT_EQ(b.block->id[b.row], jet);
  }
}

}  // namespace
}  // namespace tessera
