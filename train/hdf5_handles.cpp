#include "train/hdf5_handles.h"

namespace tessera::hdf5 {
namespace {

constexpr ColumnType kTypes[] = {ColumnType::i8,  ColumnType::u8,  ColumnType::i16, ColumnType::u16,
                                 ColumnType::i32, ColumnType::u32, ColumnType::i64, ColumnType::u64,
                                 ColumnType::f32, ColumnType::f64};

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

herr_t keep_first(unsigned, const H5E_error2_t* error, void* out) {
  auto& text = *static_cast<std::string*>(out);
  if (text.empty() && error->desc != nullptr) {
    text = error->desc;
  }
  return 0;
}

}  // namespace

Session::Session() : lock_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

std::string library_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no further detail" : text;
}

hid_t memory_type(ColumnType type) {
  const hid_t types[] = {H5T_NATIVE_INT8,  H5T_NATIVE_UINT8,  H5T_NATIVE_INT16, H5T_NATIVE_UINT16,
                         H5T_NATIVE_INT32, H5T_NATIVE_UINT32, H5T_NATIVE_INT64, H5T_NATIVE_UINT64,
                         H5T_NATIVE_FLOAT, H5T_NATIVE_DOUBLE};
  return types[static_cast<std::size_t>(type)];
}

hid_t file_type(ColumnType type) {
  const hid_t types[] = {H5T_STD_I8LE,   H5T_STD_U8LE,  H5T_STD_I16LE, H5T_STD_U16LE,
                         H5T_STD_I32LE,  H5T_STD_U32LE, H5T_STD_I64LE, H5T_STD_U64LE,
                         H5T_IEEE_F32LE, H5T_IEEE_F64LE};
  return types[static_cast<std::size_t>(type)];
}

std::optional<ColumnType> stored_type(hid_t type) {
  const Id native(H5Tget_native_type(type, H5T_DIR_ASCEND));
  if (!native.valid()) {
    return std::nullopt;
  }
  const std::size_t stored_bytes = H5Tget_size(type);
  for (const ColumnType t : kTypes) {
    // The native type widens f16 and odd integers; equal sizes keep those out.
    if (H5Tequal(native, memory_type(t)) > 0 && stored_bytes == width(t)) {
      return t;
    }
  }
  return std::nullopt;
}

}  // namespace tessera::hdf5
