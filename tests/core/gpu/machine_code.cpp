#include "tests/core/gpu/machine_code.h"

#include <cxxabi.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>

#include "core/check.h"

namespace tessera {
namespace {

constexpr int kCudaMachine = 190;

std::string content(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  TESSERA_CHECK_KIND(ErrorKind::missing, in.good(), "machine code: expected an object at {}", file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A T at an offset; outside the file it is an error, never a stray read.
template <class T>
T at(const std::string& bytes, std::size_t offset) {
  TESSERA_CHECK_KIND(ErrorKind::data, offset + sizeof(T) <= bytes.size(),
                     "machine code: offset {} lies past the {} bytes", offset, bytes.size());
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

MachineCode histogram(const std::string& bytes, std::size_t begin, std::size_t size) {
  MachineCode code;
  for (std::size_t i = begin; i + 16 <= begin + size; i += 16) {
    ++code.by_opcode[at<std::uint16_t>(bytes, i) & 0xfffU];
    ++code.instructions;
  }
  return code;
}

void read_cubin(const std::string& bytes, std::size_t start, std::vector<MachineCode>& out) {
  const auto header = at<Elf64_Ehdr>(bytes, start);
  const auto section = [&](std::size_t i) {
    return at<Elf64_Shdr>(bytes, start + header.e_shoff + i * sizeof(Elf64_Shdr));
  };
  const std::size_t names = start + section(header.e_shstrndx).sh_offset;
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    const std::string name = bytes.c_str() + names + s.sh_name;
    if (name.rfind(".text.", 0) == 0) {
      MachineCode code = histogram(bytes, start + s.sh_offset, s.sh_size);
      code.kernel = name.substr(6);
      code.architecture = static_cast<int>(header.e_flags >> 8 & 0xffU);
      out.push_back(std::move(code));
    }
  }
}

int occurrences(const std::string& text, const std::string& word) {
  int n = 0;
  for (std::size_t i = text.find(word); i != std::string::npos; i = text.find(word, i + 1)) {
    ++n;
  }
  return n;
}

// The word behind the first `mark`.
std::string word_after(const std::string& text, const std::string& mark) {
  const std::size_t begin = text.find(mark);
  if (begin == std::string::npos) {
    return "";
  }
  const std::size_t word = begin + mark.size();
  return text.substr(word, text.find_first_of(" ,\r\n", word) - word);
}

// From the first brace after `begin` to its partner.
std::string braces(const std::string& text, std::size_t begin) {
  const std::size_t open = text.find('{', begin);
  int depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    depth += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
    if (depth == 0) {
      return text.substr(open, i - open);
    }
  }
  return "";
}

}  // namespace

int MachineCode::count(unsigned code) const {
  const auto found = by_opcode.find(code);
  return found == by_opcode.end() ? 0 : found->second;
}

int MachineCode::operations(unsigned operation) const {
  int n = 0;
  for (const auto& [code, times] : by_opcode) {
    n += (code & 0x1ffU) == operation ? times : 0;
  }
  return n;
}

int MachineCode::doubles() const {
  int n = 0;
  for (const unsigned operation : opcode::kDouble) {
    n += operations(operation);
  }
  return n;
}

int Ptx::count(const std::string& word) const { return occurrences(body, word); }

std::vector<MachineCode> machine_code_of(const std::string& object) {
  const std::string bytes = content(object);
  std::vector<MachineCode> out;
  const std::string magic =
      "\x7f"
      "ELF";
  for (std::size_t i = bytes.find(magic); i != std::string::npos; i = bytes.find(magic, i + 4)) {
    if (i + sizeof(Elf64_Ehdr) <= bytes.size() &&
        at<Elf64_Ehdr>(bytes, i).e_machine == kCudaMachine) {
      read_cubin(bytes, i, out);
    }
  }
  return out;
}

// The PTX ends with a zero byte. Line information holds a second copy, with a zero after each line:
// there no kernel has a body.
std::vector<Ptx> ptx_of(const std::string& object) {
  const std::string bytes = content(object);
  std::vector<Ptx> out;
  for (std::size_t v = bytes.find(".version "); v != std::string::npos;
       v = bytes.find(".version ", v + 1)) {
    const std::string text = bytes.c_str() + v;
    const std::string mark = ".entry ", target = word_after(text, ".target ");
    for (std::size_t i = text.find(mark); i != std::string::npos; i = text.find(mark, i + 1)) {
      const std::size_t name = i + mark.size();
      const std::size_t open = text.find('(', name);
      out.push_back({text.substr(name, open - name), target, braces(text, open)});
    }
  }
  return out;
}

std::string short_name(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? plain.get() : mangled;
  for (const char* word : {"(anonymous namespace)::", "(bool)", "(int)", " "}) {
    for (std::size_t i = name.find(word); i != std::string::npos; i = name.find(word)) {
      name.erase(i, std::strlen(word));
    }
  }
  std::smatch found;
  static const std::regex kLast(R"(([A-Za-z0-9_]+(<[^(]*>)?)\()");
  return std::regex_search(name, found, kLast) ? found[1].str() : name;
}

}  // namespace tessera
