// Every column of the native format stored in every way that HDF5 has: the reader gives exactly the
// values or one line that names file, dataset, row, expected and got.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>

#include "core/check.h"
#include "support/jet_files.h"
#include "support/temp_dir.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

enum class Kind { integer, floating };

// A column of the format and its values in the base file, small enough for every number type.
struct Column {
  const char* path;
  Kind kind;
  bool required;
  std::vector<double> values;
};

std::vector<Column> columns() {
  const Kind i = Kind::integer, f = Kind::floating;
  return {{"offsets", i, true, {0, 1, 1, 3}},    {"pf/px", f, true, {1, 2, 3}},
          {"pf/py", f, true, {4, 5, 6}},         {"pf/pz", f, true, {7, 8, 9}},
          {"pf/energy", f, true, {20, 21, 22}},  {"pf/mass", f, false, {1, 0, 1}},
          {"pf/charge", i, true, {1, 0, 1}},     {"pf/pid", i, true, {1, 3, 5}},
          {"pf/d0", f, false, {1, 2, 3}},        {"pf/d0err", f, false, {1, 1, 2}},
          {"pf/dz", f, false, {4, 5, 6}},        {"pf/dzerr", f, false, {2, 1, 1}},
          {"id", i, true, {10, 11, 12}},         {"weight", f, false, {1, 2, 1}},
          {"jet/pt", f, true, {30, 0, 50}},      {"jet/eta", f, true, {1, 2, 0}},
          {"jet/phi", f, true, {3, 2, 1}},       {"jet/energy", f, true, {60, 0, 80}},
          {"label/class", i, false, {0, 1, 2}},  {"label/tau_dm", i, false, {0, 1, 10}},
          {"truth/vis_px", f, false, {1, 2, 3}}, {"truth/vis_py", f, false, {2, 3, 4}},
          {"truth/vis_pz", f, false, {3, 4, 5}}, {"truth/vis_energy", f, false, {9, 9, 9}}};
}

template <class T>
std::vector<T> values_of(const char* path) {
  const auto all = columns();
  const auto c =
      std::ranges::find_if(all, [&](const Column& x) { return x.path == std::string_view(path); });
  return {c->values.begin(), c->values.end()};
}

JetBlock base_jets() {
  const auto f = values_of<float>;
  const auto i8 = values_of<std::int8_t>;
  return {.offsets = values_of<std::int64_t>("offsets"),
          .px = f("pf/px"),
          .py = f("pf/py"),
          .pz = f("pf/pz"),
          .energy = f("pf/energy"),
          .mass = f("pf/mass"),
          .charge = i8("pf/charge"),
          .pid = i8("pf/pid"),
          .d0 = f("pf/d0"),
          .d0err = f("pf/d0err"),
          .dz = f("pf/dz"),
          .dzerr = f("pf/dzerr"),
          .id = values_of<std::uint64_t>("id"),
          .weight = f("weight"),
          .jet_pt = f("jet/pt"),
          .jet_eta = f("jet/eta"),
          .jet_phi = f("jet/phi"),
          .jet_energy = f("jet/energy"),
          .label_class = values_of<std::uint8_t>("label/class"),
          .tau_dm = i8("label/tau_dm"),
          .vis_px = f("truth/vis_px"),
          .vis_py = f("truth/vis_py"),
          .vis_pz = f("truth/vis_pz"),
          .vis_energy = f("truth/vis_energy")};
}

// How a column is stored instead.
struct Stored {
  hid_t type;
  std::vector<hsize_t> shape;
  std::vector<double> values = {};  // converted by HDF5 on writing; none: left as zeros
  bool chunked = true, checksum = true;
  const char* unit = nullptr;
};

// A text attribute, or a list of texts.
void put_texts(hid_t object, const char* name, std::vector<const char*> texts) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  const hsize_t n = texts.size();
  const hid_t space = n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, nullptr);
  const hid_t id = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  EXPECT_GE(H5Awrite(id, type, texts.data()), 0);
  H5Aclose(id);
  H5Sclose(space);
  H5Tclose(type);
}

void put(hid_t file, const char* path, const Stored& how) {
  const hid_t p = H5Pcreate(H5P_DATASET_CREATE);
  if (how.chunked && !how.shape.empty()) {
    const std::vector<hsize_t> chunk(how.shape.size(), 2);
    H5Pset_chunk(p, static_cast<int>(chunk.size()), chunk.data());
    if (how.checksum) {
      H5Pset_fletcher32(p);
    }
  }
  const std::vector<hsize_t> unlimited(how.shape.size(), H5S_UNLIMITED);
  const hid_t space = how.shape.empty()
                          ? H5Screate(H5S_SCALAR)
                          : H5Screate_simple(static_cast<int>(how.shape.size()), how.shape.data(),
                                             how.chunked ? unlimited.data() : nullptr);
  const hid_t id = H5Dcreate2(file, path, how.type, space, H5P_DEFAULT, p, H5P_DEFAULT);
  ASSERT_GE(id, 0) << path;
  if (!how.values.empty()) {
    ASSERT_GE(H5Dwrite(id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, how.values.data()), 0);
  }
  if (path == std::string_view("label/class")) {
    put_texts(id, "classes", {"QCD", "Hbb", "Tbqq"});
  }
  if (how.unit != nullptr) {
    put_texts(id, "unit", {how.unit});
  }
  H5Dclose(id);
  H5Sclose(space);
  H5Pclose(p);
}

/// The base file with one column replaced or removed, and what the reader makes of it.
class SchemaMatrix : public ::testing::Test {
 protected:
  void SetUp() override {
    write_jets(base_, base_jets());
    ASSERT_EQ(refusal_of(base_), "");
  }

  // The message of the refusal; "" when the file was read with the values of the base file.
  std::string refusal_of(const fs::path& path) {
    ++cases_;
    try {
      const NativeFile file(path);
      EXPECT_TRUE(file.read(0, file.jets()) == expected_) << "other values";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data) << e.message();
      EXPECT_NE(e.message().find(path.string()), std::string::npos) << e.message();
      EXPECT_EQ(e.message().find('\n'), std::string::npos) << e.message();
      return e.message();
    }
    return "";
  }

  std::string refusal(const char* column, const std::optional<Stored>& how) {
    const fs::path path = dir_.path() / "changed.h5";
    fs::copy_file(base_, path, fs::copy_options::overwrite_existing);
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, column, H5P_DEFAULT);
    if (how) {
      put(file, column, *how);
    }
    H5Fclose(file);
    return refusal_of(path);
  }

  void expect_refused(const char* column, const std::optional<Stored>& how, const std::string& part,
                      const std::string& what) {
    const std::string got = refusal(column, how);
    EXPECT_NE(got.find(part), std::string::npos)
        << column << ", " << what << ": expected '" << part << "', got '" << got << "'";
    EXPECT_NE(got.find(fmt::format("'{}'", column)), std::string::npos) << what << ": " << got;
    EXPECT_NE(got.find("expected"), std::string::npos) << what << ": " << got;
  }

  // One value of a column, stored as f64 or i64.
  void expect_row_refused(const char* path, std::size_t row, double value, bool as_float) {
    std::vector<double> values = values_of<double>(path);
    values.at(row) = value;
    expect_refused(path, Stored{as_float ? H5T_IEEE_F64LE : H5T_STD_I64LE, {values.size()}, values},
                   fmt::format("row {}", row), fmt::format("{}", value));
  }

  TempDir dir_;
  fs::path base_ = dir_.path() / "base.h5";
  JetBlock expected_ = base_jets();
  int cases_ = 0;
};

struct NumberType {
  const char* name;
  hid_t type;
  Kind kind;
  int bits;  // of exact integers
};

std::vector<NumberType> number_types() {
  const Kind i = Kind::integer, f = Kind::floating;
  return {{"i8", H5T_STD_I8LE, i, 7},
          {"u8", H5T_STD_U8LE, i, 8},
          {"i16", H5T_STD_I16LE, i, 15},
          {"u16", H5T_STD_U16LE, i, 16},
          {"i32", H5T_STD_I32LE, i, 31},
          {"u32", H5T_STD_U32LE, i, 32},
          {"i64", H5T_STD_I64LE, i, 63},
          {"u64", H5T_STD_U64LE, i, 64},
          {"i16 big-endian", H5T_STD_I16BE, i, 15},
          {"u16 big-endian", H5T_STD_U16BE, i, 16},
          {"i32 big-endian", H5T_STD_I32BE, i, 31},
          {"u32 big-endian", H5T_STD_U32BE, i, 32},
          {"i64 big-endian", H5T_STD_I64BE, i, 63},
          {"u64 big-endian", H5T_STD_U64BE, i, 64},
          {"f32", H5T_IEEE_F32LE, f, 24},
          {"f64", H5T_IEEE_F64LE, f, 53},
          {"f32 big-endian", H5T_IEEE_F32BE, f, 24},
          {"f64 big-endian", H5T_IEEE_F64BE, f, 53}};
}

TEST_F(SchemaMatrix, EveryNumberTypeIsReadExactlyOrRefused) {
  for (const Column& c : columns()) {
    for (const NumberType& t : number_types()) {
      const Stored how{t.type, {c.values.size()}, c.values};
      const bool preserved = c.kind == Kind::integer ? t.kind == Kind::integer
                                                     : t.kind == Kind::floating || t.bits <= 24;
      if (preserved) {
        EXPECT_EQ(refusal(c.path, how), "") << c.path << " as " << t.name;
      } else {
        expect_refused(c.path, how, "or a type that it holds exactly, got", t.name);
      }
    }
  }
  EXPECT_GE(cases_, 400);
}

TEST_F(SchemaMatrix, TypesThatAreNoPlainNumberAreRefused) {
  const hid_t text = H5Tcopy(H5T_C_S1), texts = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, 8);
  H5Tset_size(texts, H5T_VARIABLE);
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  const hid_t boolean = H5Tenum_create(H5T_STD_I8LE);  // as h5py stores numpy's bool
  const std::int8_t no = 0, yes = 1;
  H5Tenum_insert(boolean, "FALSE", &no);
  H5Tenum_insert(boolean, "TRUE", &yes);
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 8);
  H5Tinsert(compound, "r", 0, H5T_IEEE_F32LE);
  const hsize_t two = 2;
  const hid_t array = H5Tarray_create2(H5T_IEEE_F32LE, 1, &two);
  const hid_t ragged = H5Tvlen_create(H5T_IEEE_F32LE);
  for (const Column& c : columns()) {
    for (const hid_t type : {text, texts, half, boolean, compound, array, ragged}) {
      const bool fixed = type != texts && type != ragged;  // others cannot be filtered
      expect_refused(c.path, Stored{type, {c.values.size()}, {}, true, fixed},
                     "expected integers of 8 to 64 bits, f32 or f64", "foreign type");
    }
  }
  EXPECT_GE(cases_, 150);
}

TEST_F(SchemaMatrix, EveryOtherShapeIsRefused) {
  for (const Column& c : columns()) {
    const hid_t type = c.kind == Kind::integer ? H5T_STD_I64LE : H5T_IEEE_F32LE;
    const hsize_t n = c.values.size();
    expect_refused(c.path, Stored{type, {}, {c.values[0]}}, "expected rank 1, got rank 0",
                   "a scalar");
    expect_refused(c.path, Stored{type, {n, 1}, c.values}, "expected rank 1, got rank 2",
                   "a column vector");
    expect_refused(c.path, Stored{type, {1, n}, c.values}, "expected rank 1, got rank 2",
                   "transposed");
    if (c.path == std::string_view("offsets")) {
      continue;  // its extent decides that of the others
    }
    for (const hsize_t rows : {hsize_t{0}, n - 1, n + 1}) {
      std::vector<double> values = c.values;
      values.resize(rows);
      expect_refused(c.path, Stored{type, {rows}, values},
                     fmt::format("expected {} rows, got {}", n, rows), "other length");
    }
    const Stored contiguous{type, {n}, c.values, false};
    const Stored unchecked{type, {n}, c.values, true, false};
    expect_refused(c.path, contiguous, "expected the fletcher32 filter", "contiguous");
    expect_refused(c.path, unchecked, "expected the fletcher32 filter", "no checksum");
  }
  EXPECT_GE(cases_, 180);
}

TEST_F(SchemaMatrix, AMissingColumnIsNamedUnlessItIsOptional) {
  for (const Column& c : columns()) {
    if (c.required) {
      expect_refused(c.path, std::nullopt, "expected a dataset, got none", "missing");
    }
  }
  expected_.mass.clear();
  EXPECT_EQ(refusal("pf/mass", std::nullopt), "");
}

TEST_F(SchemaMatrix, OffsetsOfAnotherLengthAreRefused) {
  const auto with = [&](std::vector<double> offsets, const std::string& part) {
    const std::string got = refusal("offsets", Stored{H5T_STD_I64LE, {offsets.size()}, offsets});
    EXPECT_NE(got.find(part), std::string::npos) << part << ", got: " << got;
  };
  with({}, "'offsets': expected N + 1 entries");
  with({0, 1, 3}, "'id': expected 2 rows, got 3");
  with({0, 1, 1, 3, 3}, "'id': expected 4 rows, got 3");
  with({0, 1, 1, 2}, "'pf/px': expected 2 rows, got 3");
  with({0, 1, 1, 4}, "'pf/px': expected 4 rows, got 3");
  with({1, 1, 1, 3}, "'offsets', row 0: expected 0, got 1");
  with({-1, 1, 1, 3}, "'offsets', row 0: expected 0, got -1");
  with({0, 2, 1, 3}, "'offsets', row 2: expected 2 to");
  with({0, -5, 1, 3}, "'offsets', row 1: expected 0 to");
  with({0, 1, 1, 9e18}, "'offsets', row 3: expected 1 to");
  with({0, 2'000'000, 2'000'001, 2'000'002}, "'offsets', row 1: expected 0 to 1048575");
}

TEST_F(SchemaMatrix, ValuesThatMeanNothingAreRefusedWithTheirRow) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const Column& c : columns()) {
    if (c.kind == Kind::integer) {
      continue;
    }
    const bool track = std::string_view(c.path).starts_with("pf/d");
    for (std::size_t row = 0; row < c.values.size(); ++row) {
      for (const double value : {inf, -inf, 1e39, -1e300}) {
        expect_row_refused(c.path, row, value, true);
      }
      if (!track) {
        expect_row_refused(c.path, row, std::nan(""), true);
      }
    }
  }
  expect_row_refused("pf/energy", 1, -1e-3, true);
  for (const double label : {-1.0, 3.0, 255.0, 256.0, 1e12}) {
    expect_row_refused("label/class", 2, label, false);
  }
  for (const double mode : {-2.0, 17.0, 127.0, 128.0, -129.0}) {
    expect_row_refused("label/tau_dm", 1, mode, false);
  }
  for (const double pid : {-1.0, 6.0, 211.0}) {
    expect_row_refused("pf/pid", 0, pid, false);
  }
  expect_row_refused("pf/charge", 2, 128, false);
  expect_row_refused("id", 0, -1, false);
  EXPECT_GE(cases_, 200);
}

TEST_F(SchemaMatrix, ExtremeButFiniteValuesAreReadExactly) {
  const auto check = [&](const char* column, std::vector<float>& member, double value) {
    std::vector<double> values = values_of<double>(column);
    values[1] = value;
    member[1] = static_cast<float>(value);
    EXPECT_EQ(refusal(column, Stored{H5T_IEEE_F64LE, {values.size()}, values}), "") << column;
  };
  for (const double value : {1e38, -1e38, 1e-40, 0.0, 3.4028234663852886e38}) {
    check("pf/px", expected_.px, value);
    expected_ = base_jets();
    check("jet/pt", expected_.jet_pt, value);
    expected_ = base_jets();
  }
}

TEST_F(SchemaMatrix, AUnitOtherThanOursIsRefusedAndOursIsRead) {
  const auto in_unit = [](const Column& c, const char* unit) {
    const hid_t type = c.kind == Kind::integer ? H5T_STD_I64LE : H5T_IEEE_F32LE;
    return Stored{type, {c.values.size()}, c.values, true, true, unit};
  };
  for (const Column& c : columns()) {
    if (c.path != std::string_view("offsets")) {
      expect_refused(c.path, in_unit(c, "MeV"), "attribute 'unit': expected '", "MeV");
    }
  }
  for (const Column& c : columns()) {
    const std::string_view path = c.path;
    if (path == "pf/px" || path == "jet/energy" || path == "truth/vis_energy") {
      EXPECT_EQ(refusal(c.path, in_unit(c, "GeV")), "") << path;
    } else if (path == "pf/d0" || path == "pf/dzerr") {
      EXPECT_EQ(refusal(c.path, in_unit(c, "mm")), "") << path;
    }
  }
}

TEST_F(SchemaMatrix, MoreThanTwoToThe31ElementsThatNobodyWroteAreRefusedBeforeAllocation) {
  for (const Column& c : columns()) {
    const hid_t type = c.kind == Kind::integer ? H5T_STD_I64LE : H5T_IEEE_F32LE;
    const auto got = refusal(c.path, Stored{type, {hsize_t{1} << 32}});
    EXPECT_NE(got.find(fmt::format("'{}': extent asks for", c.path)), std::string::npos) << got;
  }
}

}  // namespace
}  // namespace tessera
