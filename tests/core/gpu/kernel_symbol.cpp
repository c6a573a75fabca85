#include "tests/core/gpu/kernel_symbol.h"

#include <elf.h>
#include <link.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "tests/core/gpu/machine_code.h"

namespace tessera {
namespace {

std::uintptr_t load_address() {
  std::uintptr_t base = 0;  // of the program itself, which comes first
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<std::uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &base);
  return base;
}

template <class T>
T at(const std::string& bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// Functions by address. Local symbols follow the name of their source file; kernels are local.
std::map<std::uintptr_t, KernelSymbol> read_symbols() {
  std::ifstream in("/proc/self/exe", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const auto header = at<Elf64_Ehdr>(bytes, 0);
  const auto section = [&](std::size_t i) {
    return at<Elf64_Shdr>(bytes, header.e_shoff + i * sizeof(Elf64_Shdr));
  };
  std::map<std::uintptr_t, KernelSymbol> symbols;
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr table = section(i);
    if (table.sh_type != SHT_SYMTAB) {
      continue;
    }
    const std::size_t names = section(table.sh_link).sh_offset;
    std::string file;
    for (std::size_t s = 0; s < table.sh_size / sizeof(Elf64_Sym); ++s) {
      const auto symbol = at<Elf64_Sym>(bytes, table.sh_offset + s * sizeof(Elf64_Sym));
      const std::string name = bytes.c_str() + names + symbol.st_name;
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FILE) {
        file = name.substr(0, name.find("_cuda."));
      } else if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && name.find("_kernel") < name.size()) {
        symbols[symbol.st_value] = {file, short_name(name)};
      }
    }
  }
  return symbols;
}

}  // namespace

KernelSymbol kernel_symbol(const void* entry) {
  static const auto symbols = read_symbols();
  const auto found = symbols.find(reinterpret_cast<std::uintptr_t>(entry) - load_address());
  return found == symbols.end() ? KernelSymbol{} : found->second;
}

}  // namespace tessera
