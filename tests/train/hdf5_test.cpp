#include "train/hdf5.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <limits>
#include <thread>

#include "core/check.h"
#include "support/temp_dir.h"

namespace tessera {
namespace {

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

TEST(Hdf5, ColumnsOfEveryTypeAndRaggedSizeComeBackEqual) {
  const TempDir dir;
  for (const std::size_t n : {0, 1, 31, 32, 33, 257}) {
    std::vector<float> f(n);
    std::vector<std::int8_t> i(n);
    std::vector<std::uint64_t> u(n);
    for (std::size_t k = 0; k < n; ++k) {
      f[k] = 0.37F * static_cast<float>(k);
      i[k] = static_cast<std::int8_t>(k);
      u[k] = 0x9E3779B97F4A7C15U * k;
    }
    auto out = H5File::create(dir.path() / "x.h5");
    out.write_column("pf/px", f, {.chunk = 7});
    out.write_column("pf/charge", i, {.chunk = 64, .deflate = 0});
    out.write_column("id", u);
    out.close();
    const auto in = H5File::open(dir.path() / "x.h5");
    EXPECT_EQ(in.read_column<float>("pf/px"), f);
    EXPECT_EQ(in.read_column<std::int8_t>("pf/charge"), i);
    EXPECT_EQ(in.read_column<std::uint64_t>("id"), u);
    EXPECT_EQ(in.columns(), (std::vector<std::string>{"id", "pf/charge", "pf/px"}));
    EXPECT_TRUE(in.info("pf/px").checksummed);
    if (n > 3) {
      EXPECT_EQ(in.read_range<float>("pf/px", 2, n - 3),
                std::vector<float>(f.begin() + 2, f.end() - 1));
    }
  }
}

TEST(Hdf5, AppendingInPiecesGivesTheSameColumnAsOneWrite) {
  const TempDir dir;
  auto out = H5File::create(dir.path() / "x.h5");
  out.create_column<float>("x", {.chunk = 8});
  std::vector<float> all;
  for (int piece = 0; piece < 5; ++piece) {
    const std::vector<float> part(static_cast<std::size_t>(piece * 3), static_cast<float>(piece));
    out.append(std::string_view("x"), std::span<const float>(part));
    all.insert(all.end(), part.begin(), part.end());
  }
  EXPECT_EQ(out.read_column<float>("x"), all);
}

TEST(Hdf5, SameContentGivesTheSameBytesAtAnotherTime) {
  const TempDir dir;
  for (const char* file : {"a.h5", "b.h5"}) {
    auto out = H5File::create(dir.path() / file);
    out.write_column("pf/px", std::vector<float>(1000, 1.5F));
    out.write_attribute("kind", "jets");
    out.close();
    std::this_thread::sleep_for(std::chrono::milliseconds(1010));  // time stamps have seconds
  }
  EXPECT_EQ(bytes_of(dir.path() / "a.h5"), bytes_of(dir.path() / "b.h5"));
}

TEST(Hdf5, AttributesComeBackEqual) {
  const TempDir dir;
  const std::string text(100000, 'x');  // beyond the 64 KiB of compact attributes
  {
    auto out = H5File::create(dir.path() / "x.h5");
    out.write_column("label/class", std::vector<std::uint8_t>{0, 1});
    out.write_attribute("kind", "jets");
    out.write_attribute("empty", "");
    out.write_attribute("settings", text);
    out.write_attribute("format_version", std::uint32_t{1});
    out.write_attribute("n", 2);
    out.write_attribute("field", 3.8);
    out.write_attribute("classes", std::vector<std::string>{"QCD", "Hbb"}, "label/class");
    out.close();
  }
  const auto in = H5File::open(dir.path() / "x.h5");
  EXPECT_EQ(in.read_attribute<std::string>("kind"), "jets");
  EXPECT_EQ(in.read_attribute<std::string>("empty"), "");
  EXPECT_EQ(in.read_attribute<std::string>("settings"), text);
  EXPECT_EQ(in.read_attribute<std::int64_t>("format_version"), 1);
  EXPECT_EQ(in.read_attribute<std::int64_t>("n"), 2);
  EXPECT_EQ(in.read_attribute<double>("field"), 3.8);
  EXPECT_EQ(in.read_attribute<std::vector<std::string>>("classes", "label/class"),
            (std::vector<std::string>{"QCD", "Hbb"}));
  EXPECT_FALSE(in.has_attribute("absent"));
  EXPECT_NE(error_of([&] { (void)in.read_attribute<std::int64_t>("kind"); }), "");
}

TEST(Hdf5, ValuesAreConvertedOnlyWhereTheyArePreserved) {
  const TempDir dir;
  auto f = H5File::create(dir.path() / "x.h5");
  f.write_column("i64", std::vector<std::int64_t>{0, 3, 255});
  f.write_column("minus", std::vector<std::int32_t>{4, -1});
  f.write_column("f64", std::vector<double>{1.5, -2.0});
  f.write_column("huge", std::vector<double>{1.0, 1e39});
  f.write_column("inf", std::vector<double>{std::numeric_limits<double>::infinity()});
  f.write_column("u64", std::vector<std::uint64_t>{1});
  f.write_column("f32", std::vector<float>{0.5F});
  EXPECT_EQ(f.read_column<std::uint8_t>("i64"), (std::vector<std::uint8_t>{0, 3, 255}));
  EXPECT_EQ(f.read_column<float>("f64"), (std::vector<float>{1.5F, -2.0F}));
  EXPECT_EQ(f.read_column<float>("inf")[0], std::numeric_limits<float>::infinity());
  EXPECT_NE(error_of([&] {
              (void)f.read_column<std::int8_t>("i64");
            }).find("row 2: expected a value within i8, got 255"),
            std::string::npos);
  EXPECT_NE(error_of([&] { (void)f.read_column<std::uint32_t>("minus"); }).find("row 1"),
            std::string::npos);
  EXPECT_NE(error_of([&] { (void)f.read_column<float>("huge"); }).find("row 1"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)f.read_column<double>("u64"); }), "");
  EXPECT_NE(error_of([&] { (void)f.read_column<std::int32_t>("f32"); }), "");
  EXPECT_NE(error_of([&] { (void)f.read_column<float>("absent"); }), "");
  EXPECT_NE(error_of([&] { (void)f.read_range<float>("f64", 1, 2); }), "");
}

TEST(Hdf5, MissingAndForeignFilesAreTypedErrors) {
  const TempDir dir;
  try {
    H5File::open(dir.path() / "absent.h5");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::missing);
  }
  std::ofstream(dir.path() / "text.h5") << "not HDF5 at all";
  try {
    H5File::open(dir.path() / "text.h5");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
  }
}

TEST(Hdf5, AFlippedBitInAChunkIsAnError) {
  const TempDir dir;
  std::vector<float> values(5000);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i) * 0.123F;
  }
  {
    auto out = H5File::create(dir.path() / "x.h5");
    out.write_column("x", values, {.chunk = 1024, .deflate = 0});
    out.close();
  }
  const std::string good = bytes_of(dir.path() / "x.h5");
  int wrong = 0, caught = 0;
  for (std::size_t at = good.size() / 2; at < good.size() / 2 + 2000; at += 97) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    std::ofstream(dir.path() / "y.h5", std::ios::binary) << bad;
    try {
      wrong += H5File::open(dir.path() / "y.h5").read_column<float>("x") != values;
    } catch (const Error&) {
      ++caught;
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(caught, 15);
}

// Writes x.h5 on a disk that takes nothing from the k-th step on; whether that was an error.
bool fails_on_a_full_disk(const std::filesystem::path& path, int k) {
  int call = 0;
  FileIo io;
  io.before_call = [&](const IoCall&) { return ++call >= k ? ENOSPC : 0; };
  auto out = H5File::create(path, io);
  out.write_column("x", std::vector<float>(100000, 1.5F));
  try {
    out.close();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_NE(e.message().find(path.parent_path().string()), std::string::npos) << e.message();
    return true;
  }
  return false;
}

TEST(Hdf5, AFullDiskLeavesTheOldFileOrTheWholeNewOne) {
  const TempDir dir(memory_directory());
  const auto path = dir.path() / "x.h5";
  ASSERT_FALSE(fails_on_a_full_disk(path, 1000));
  const std::string whole = bytes_of(path);
  for (const std::string& old : {std::string(), std::string("old")}) {
    int k = 1;
    for (bool failed = true; failed; ++k) {
      std::filesystem::remove(path);
      if (!old.empty()) {
        std::ofstream(path) << old;
      }
      failed = fails_on_a_full_disk(path, k);
      const std::string left = std::filesystem::exists(path) ? bytes_of(path) : "";
      EXPECT_TRUE(left == whole || (failed && left == old)) << "step " << k;
    }
    EXPECT_GT(k, 5) << "create, write, sync and rename at least";
  }
}

TEST(Hdf5, AFileThatIsNotClosedIsNeverSeen) {
  const TempDir dir;
  {
    auto out = H5File::create(dir.path() / "x.h5");
    out.write_column("x", std::vector<float>{1.5F});
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace tessera
