// Files that no writer of ours would make: what the reader does with them.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <fstream>
#include <functional>

#include "core/check.h"
#include "core/rng.h"
#include "support/temp_dir.h"
#include "train/hdf5.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

// Makes a file with the C API; `fill` gets the file id.
void make(const fs::path& path, const std::function<void(hid_t)>& fill) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  fill(file);
  H5Fclose(file);
}

// A dataset "x" with the values' memory type and the given file type.
void add(hid_t file, hid_t file_type, hid_t memory_type, const void* values,
         std::vector<hsize_t> shape, hid_t properties = H5P_DEFAULT) {
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t id = H5Dcreate2(file, "x", file_type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(id, 0);
  if (values != nullptr) {
    ASSERT_GE(H5Dwrite(id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
  }
  H5Dclose(id);
  H5Sclose(space);
}

// The message of reading "x" as f32, "" if it was read.
std::string refusal(const fs::path& path) {
  try {
    (void)H5File::open(path).read_column<float>("x");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find(path.string()), std::string::npos);
    return e.message();
  }
  return "";
}

void expect_refused(const fs::path& path, const std::string& reason) {
  EXPECT_NE(refusal(path).find(reason), std::string::npos) << "got: " << refusal(path);
}

const float kValues[] = {1.5F, -2.0F, 3.25F, 1e30F};

TEST(Hdf5Hostile, LinksThatAreNotHardAreRefused) {
  const TempDir dir;
  make(dir.path() / "target.h5",
       [](hid_t f) { add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, kValues, {4}); });
  make(dir.path() / "soft.h5", [](hid_t f) {
    add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, kValues, {4});
    H5Lmove(f, "x", f, "y", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/y", f, "x", H5P_DEFAULT, H5P_DEFAULT);
  });
  make(dir.path() / "external.h5", [&](hid_t f) {
    H5Lcreate_external((dir.path() / "target.h5").c_str(), "x", f, "x", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused(dir.path() / "soft.h5", "expected a hard link");
  expect_refused(dir.path() / "external.h5", "expected a hard link");
  EXPECT_THROW((void)H5File::open(dir.path() / "external.h5").columns(), Error);
  EXPECT_EQ(refusal(dir.path() / "target.h5"), "");
}

TEST(Hdf5Hostile, AGroupBehindASoftLinkIsRefused) {
  const TempDir dir;
  make(dir.path() / "a.h5", [](hid_t f) {
    H5Gclose(H5Gcreate2(f, "real", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_soft("/real", f, "pf", H5P_DEFAULT, H5P_DEFAULT);
    const hid_t group = H5Gopen2(f, "real", H5P_DEFAULT);
    add(group, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, kValues, {4});
    H5Gclose(group);
  });
  const auto f = H5File::open(dir.path() / "a.h5");
  EXPECT_THROW((void)f.read_column<float>("pf/x"), Error);
  EXPECT_EQ(f.read_column<float>("real/x").size(), 4U);
}

TEST(Hdf5Hostile, ExternalAndVirtualStorageIsRefused) {
  const TempDir dir;
  std::ofstream(dir.path() / "raw.bin") << std::string(16, 'a');
  make(dir.path() / "external.h5", [&](hid_t f) {
    const hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(p, (dir.path() / "raw.bin").c_str(), 0, 16);
    add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, {4}, p);
    H5Pclose(p);
  });
  make(dir.path() / "virtual.h5", [&](hid_t f) {
    const hsize_t n = 4;
    const hid_t space = H5Screate_simple(1, &n, nullptr), p = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(p, space, (dir.path() / "external.h5").c_str(), "x", space);
    add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, {4}, p);
    H5Pclose(p);
    H5Sclose(space);
  });
  expect_refused(dir.path() / "external.h5", "virtual or external");
  expect_refused(dir.path() / "virtual.h5", "virtual or external");
}

TEST(Hdf5Hostile, AnExtentThatTheFileCannotFillIsRefusedBeforeAllocation) {
  const TempDir dir;
  make(dir.path() / "sparse.h5", [](hid_t f) {
    const hsize_t chunk = 1024;
    const hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(p, 1, &chunk);
    add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, {hsize_t{1} << 40}, p);
    H5Pclose(p);
  });
  expect_refused(dir.path() / "sparse.h5", "extent asks for");
}

// Filter 32001 is Blosc, which stock HDF5 lacks: one line that names it and the way out.
TEST(Hdf5Hostile, AFilterOutsideTheListIsRefusedByName) {
  const TempDir dir;
  const auto copy = [](unsigned, std::size_t, const unsigned*, std::size_t n, std::size_t*,
                       void**) { return n; };
  const H5Z_class2_t blosc{H5Z_CLASS_T_VERS, 32001, 1, 1, "blosc", nullptr, nullptr, copy};
  ASSERT_GE(H5Zregister(&blosc), 0);
  for (const bool present : {true, false}) {
    make(dir.path() / "blosc.h5", [](hid_t f) {
      const hsize_t chunk = 4;
      const hid_t p = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_chunk(p, 1, &chunk);
      H5Pset_filter(p, 32001, H5Z_FLAG_OPTIONAL, 0, nullptr);
      add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, kValues, {4}, p);
      H5Pclose(p);
    });
    if (!present) {
      ASSERT_GE(H5Zunregister(32001), 0);
    }
    expect_refused(dir.path() / "blosc.h5", "filter 32001 'blosc' is not one of deflate");
    expect_refused(dir.path() / "blosc.h5", "h5repack or convert");
  }
}

// Where the chunks of "x" lie in the file, and which rows they hold.
struct StoredChunk {
  hsize_t row;
  haddr_t address;
  hsize_t bytes;
};

std::vector<StoredChunk> stored_chunks(const fs::path& path) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t id = H5Dopen2(file, "x", H5P_DEFAULT), space = H5Dget_space(id);
  hsize_t count = 0;
  H5Dget_num_chunks(id, space, &count);
  std::vector<StoredChunk> chunks(count);
  for (hsize_t i = 0; i < count; ++i) {
    unsigned filters = 0;
    H5Dget_chunk_info(id, space, i, &chunks[i].row, &filters, &chunks[i].address, &chunks[i].bytes);
  }
  H5Sclose(space);
  H5Dclose(id);
  H5Fclose(file);
  return chunks;
}

void flip_bit(const fs::path& path, std::uint64_t at, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int old = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(old ^ (1 << bit)));
}

TEST(Hdf5Hostile, EveryFlippedBitOfAStoredChunkIsNoticedAndTheChunkNamed) {
  const TempDir dir;
  std::vector<float> values(5000);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i) * 0.123F;
  }
  Rng rng(9);
  for (const int deflate : {0, 1}) {
    const fs::path path = dir.path() / "x.h5";
    H5File made = H5File::create(path);
    made.write_column("x", values, {.chunk = 1024, .deflate = deflate});
    made.close();
    const auto chunks = stored_chunks(path);
    ASSERT_EQ(chunks.size(), 5U);
    for (int trial = 0; trial < 2000; ++trial) {
      const StoredChunk& c = chunks[rng.below(chunks.size())];
      const std::uint64_t at = c.address + rng.below(c.bytes);
      const int bit = static_cast<int>(rng.below(8));
      flip_bit(path, at, bit);
      const std::string rows =
          fmt::format("'x': rows {} to {}:", c.row, std::min<std::uint64_t>(c.row + 1024, 5000));
      EXPECT_NE(refusal(path).find(rows), std::string::npos) << refusal(path);
      flip_bit(path, at, bit);
    }
    EXPECT_EQ(refusal(path), "");
  }
}

TEST(Hdf5Hostile, BothByteOrdersGiveTheSameValues) {
  const TempDir dir;
  const std::int64_t integers[] = {1, -2, 300};
  make(dir.path() / "f.h5",
       [](hid_t f) { add(f, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, kValues, {4}); });
  make(dir.path() / "d.h5",
       [](hid_t f) { add(f, H5T_IEEE_F64BE, H5T_NATIVE_FLOAT, kValues, {4}); });
  make(dir.path() / "i.h5",
       [&](hid_t f) { add(f, H5T_STD_I16BE, H5T_NATIVE_INT64, integers, {3}); });
  const std::vector<float> want(std::begin(kValues), std::end(kValues));
  EXPECT_EQ(H5File::open(dir.path() / "f.h5").read_column<float>("x"), want);
  EXPECT_EQ(H5File::open(dir.path() / "d.h5").read_column<float>("x"), want);
  EXPECT_EQ(H5File::open(dir.path() / "i.h5").read_column<std::int64_t>("x"),
            (std::vector<std::int64_t>{1, -2, 300}));
}

TEST(Hdf5Hostile, OtherTypesAndRanksAreRefused) {
  const TempDir dir;
  const auto refused_type = [&](hid_t type) {
    make(dir.path() / "t.h5", [&](hid_t f) { add(f, type, type, nullptr, {0}); });
    expect_refused(dir.path() / "t.h5", "expected integers of 8 to 64 bits, f32 or f64");
  };
  const hid_t fixed = H5Tcopy(H5T_C_S1), variable = H5Tcopy(H5T_C_S1);
  H5Tset_size(fixed, 8);
  H5Tset_size(variable, H5T_VARIABLE);
  refused_type(fixed);
  refused_type(variable);
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 8);
  H5Tinsert(compound, "a", 0, H5T_NATIVE_FLOAT);
  refused_type(compound);
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  refused_type(half);
  refused_type(H5Tvlen_create(H5T_NATIVE_FLOAT));
  for (const std::vector<hsize_t>& shape : {std::vector<hsize_t>{2, 2}, {4, 1}, {}}) {
    make(dir.path() / "r.h5",
         [&](hid_t f) { add(f, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, kValues, shape); });
    expect_refused(dir.path() / "r.h5", "expected rank 1");
  }
}

// The type rule over all pairs of stored and wanted types, on values at the edge of each.
template <class From, class To>
void check_pair(const fs::path& path, From value) {
  {
    auto f = H5File::create(path);
    f.write_column("x", std::vector<From>{0, value});
    f.close();
  }
  bool preserved = false;
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    preserved = false;
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
    preserved = std::in_range<To>(value);
  } else if constexpr (std::is_integral_v<From>) {
    preserved = std::numeric_limits<From>::digits <= std::numeric_limits<To>::digits;
  } else {
    preserved = sizeof(To) >= sizeof(From) || std::abs(value) <= std::numeric_limits<To>::max();
  }
  try {
    const auto got = H5File::open(path).read_column<To>("x");
    EXPECT_TRUE(preserved);
    EXPECT_EQ(got[1], static_cast<To>(value));
  } catch (const Error&) {
    EXPECT_FALSE(preserved);
  }
}

template <class From, class... To>
void check_row(const fs::path& path) {
  using L = std::numeric_limits<From>;
  for (const From value : {L::lowest(), L::max(), From{1}}) {
    (check_pair<From, To>(path, value), ...);
  }
}

template <class... T>
void check_matrix(const fs::path& path) {
  (check_row<T, T...>(path), ...);
}

TEST(Hdf5Hostile, EveryPairOfTypesConvertsExactlyOrIsRefused) {
  const TempDir dir;
  check_matrix<std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
               std::int64_t, std::uint64_t, float, double>(dir.path() / "x.h5");
}

}  // namespace
}  // namespace tessera
