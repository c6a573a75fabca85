#include "train/hdf5_handles.h"

#include <algorithm>
#include <cstring>
#include <new>

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

// The four ways in which the library handles the memory of such a file. No exception may pass it.
void* resize_image(void*, std::size_t bytes, H5FD_file_image_op_t, void* image) {
  auto& bytes_of_file = *static_cast<Image*>(image);
  try {
    bytes_of_file.resize(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return bytes_of_file.data();
}
void* allocate_image(std::size_t bytes, H5FD_file_image_op_t op, void* image) {
  return resize_image(nullptr, bytes, op, image);
}
void* copy_image(void* to, const void* from, std::size_t bytes, H5FD_file_image_op_t, void*) {
  return std::memcpy(to, from, bytes);
}
herr_t keep_image(void*, H5FD_file_image_op_t, void*) { return 0; }

void* same_image(void* image) { return image; }
herr_t free_nothing(void*) { return 0; }

}  // namespace

bool write_into(hid_t access, Image& image) {
  H5FD_file_image_callbacks_t callbacks{.image_malloc = allocate_image,
                                        .image_memcpy = copy_image,
                                        .image_realloc = resize_image,
                                        .image_free = keep_image,
                                        .udata_copy = same_image,
                                        .udata_free = free_nothing,
                                        .udata = &image};
  // It grows to the byte: the vector has room ahead of it.
  constexpr std::size_t kIncrement = 1;
  return H5Pset_fapl_core(access, kIncrement, /*backing_store=*/false) >= 0 &&
         H5Pset_file_image_callbacks(access, &callbacks) >= 0;
}

std::string_view content(const Image& image) {
  // Signature (8), version, widths of offsets and lengths, flags, base and extension address (8
  // each); then the address of the end of the file, little-endian.
  constexpr std::size_t kPlace = 28;
  std::size_t end = 0;
  for (std::size_t i = 8; i > 0 && image.size() >= kPlace + 8; --i) {
    end = end << 8U | std::to_integer<std::size_t>(image[kPlace + i - 1]);
  }
  return {reinterpret_cast<const char*>(image.data()), std::min(end, image.size())};
}

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
