// Attributes of the root group, of groups and of datasets.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "train/hdf5_file.h"

namespace tessera {

using hdf5::Id;
using hdf5::library_message;
using hdf5::Session;

void H5File::Impl::fail_attribute(std::string_view attribute, std::string_view what) const {
  TESSERA_FAIL(ErrorKind::data, "{}: attribute '{}': {}", path.string(), attribute, what);
}

namespace {

constexpr std::size_t kMostText = std::size_t{64} << 20U;  // bytes of an attribute

Id open_attribute(H5File::Impl& f, std::string_view attribute_name, std::string_view object_name) {
  const Id owner = f.object(object_name);
  const std::string text(attribute_name);
  if (!owner.valid() || H5Aexists(owner, text.c_str()) <= 0) {
    f.fail_attribute(attribute_name, "expected it to exist, got nothing");
  }
  Id id(H5Aopen(owner, text.c_str(), H5P_DEFAULT));
  if (!id.valid()) {
    f.fail_attribute(attribute_name, "cannot open: " + library_message());
  }
  return id;
}

void store_attribute(H5File::Impl& f, std::string_view attribute_name, std::string_view object_name,
                     hid_t type, hid_t memory, hid_t space, const void* value) {
  const Id owner = f.object(object_name);
  const std::string text(attribute_name);
  if (H5Aexists(owner, text.c_str()) > 0) {
    H5Adelete(owner, text.c_str());
  }
  const Id id(H5Acreate2(owner, text.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
  if (!id.valid() || H5Awrite(id, memory, value) < 0) {
    TESSERA_FAIL(ErrorKind::resource, "{}: cannot write attribute '{}': {}", f.path.string(),
                 attribute_name, library_message());
  }
}

Id fixed_string(std::size_t bytes) {
  Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, bytes);
  H5Tset_strpad(type, H5T_STR_NULLTERM);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

herr_t visit_attribute(hid_t, const char* name, const H5A_info_t*, void* out) {
  static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  return 0;
}

}  // namespace

void H5File::write_attribute(std::string_view attribute, std::string_view value,
                             std::string_view object) {
  const Session session;
  const std::string text(value);
  const Id type = fixed_string(text.size() + 1), space(H5Screate(H5S_SCALAR));
  store_attribute(*impl_, attribute, object, type, type, space, text.c_str());
}

void H5File::write_attribute(std::string_view attribute, double value, std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  store_attribute(*impl_, attribute, object, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, space, &value);
}

void H5File::write_attribute(std::string_view attribute, std::uint32_t value,
                             std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  store_attribute(*impl_, attribute, object, H5T_STD_U32LE, H5T_NATIVE_UINT32, space, &value);
}

void H5File::write_attribute(std::string_view attribute, std::int64_t value,
                             std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  store_attribute(*impl_, attribute, object, H5T_STD_I64LE, H5T_NATIVE_INT64, space, &value);
}

void H5File::write_attribute(std::string_view attribute, const std::vector<std::string>& values,
                             std::string_view object) {
  const Session session;
  std::size_t bytes = 1;
  for (const std::string& value : values) {
    bytes = std::max(bytes, value.size() + 1);
  }
  std::vector<char> packed(bytes * values.size() + 1, '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::memcpy(packed.data() + i * bytes, values[i].data(), values[i].size());
  }
  const hsize_t count = values.size();
  const Id type = fixed_string(bytes), space(H5Screate_simple(1, &count, nullptr));
  store_attribute(*impl_, attribute, object, type, type, space, packed.data());
}

bool H5File::has_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id owner = impl_->object(object);
  return owner.valid() && H5Aexists(owner, std::string(attribute).c_str()) > 0;
}

std::vector<std::string> H5File::attributes(std::string_view object) const {
  const Session session;
  const Id owner = impl_->object(object);
  std::vector<std::string> names;
  H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit_attribute, &names);
  return names;
}

template <>
std::vector<std::string> H5File::read_attribute(std::string_view attribute,
                                                std::string_view object) const {
  const Session session;
  const Id id = open_attribute(*impl_, attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if (H5Tget_class(type) != H5T_STRING || count < 0 || count > 65536) {
    impl_->fail_attribute(attribute, "expected a string or a list of strings, got another type");
  }
  std::vector<std::string> result;
  if (H5Tis_variable_str(type) > 0) {
    std::vector<char*> texts(static_cast<std::size_t>(count), nullptr);
    if (H5Aread(id, type, texts.data()) < 0) {
      impl_->fail_attribute(attribute, "cannot read: " + library_message());
    }
    for (const char* text : texts) {
      result.emplace_back(text == nullptr ? "" : text);
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, texts.data());
    return result;
  }
  const std::size_t bytes = H5Tget_size(type);
  if (bytes == 0 || bytes > kMostText / std::max<std::size_t>(static_cast<std::size_t>(count), 1)) {
    impl_->fail_attribute(attribute, fmt::format("expected at most {} bytes of text, got {} texts "
                                                 "of {} bytes",
                                                 kMostText, count, bytes));
  }
  std::vector<char> packed(bytes * static_cast<std::size_t>(count) + 1, '\0');
  if (H5Aread(id, type, packed.data()) < 0) {
    impl_->fail_attribute(attribute, "cannot read: " + library_message());
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const char* text = packed.data() + i * bytes;
    result.emplace_back(text, strnlen(text, bytes));
  }
  return result;
}

template <>
std::string H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const auto values = read_attribute<std::vector<std::string>>(attribute, object);
  if (values.size() != 1) {
    impl_->fail_attribute(attribute,
                          fmt::format("expected one string, got a list of {}", values.size()));
  }
  return values[0];
}

template <>
double H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id id = open_attribute(*impl_, attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  double value = 0;
  const H5T_class_t kind = H5Tget_class(type);
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(id, H5T_NATIVE_DOUBLE, &value) < 0) {
    impl_->fail_attribute(attribute, "expected one number, got another type or extent");
  }
  return value;
}

template <>
std::int64_t H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id id = open_attribute(*impl_, attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  std::int64_t value = 0;
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(id, H5T_NATIVE_INT64, &value) < 0) {
    impl_->fail_attribute(attribute, "expected one integer, got another type or extent");
  }
  return value;
}

}  // namespace tessera
