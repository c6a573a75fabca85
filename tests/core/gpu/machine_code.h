// The machine code and PTX of kernels, read from the objects that nvcc wrote with
// --compress-mode=none: a cubin is an ELF64 file of machine 190, the PTX beside it is plain text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tessera {

/// The low 12 bits of a 16-byte instruction, as ptxas 13 encodes it for sm_80 and sm_90a: nine of
/// operation, three of operand form.
namespace opcode {
inline constexpr unsigned kHmma = 0x23c, kLdsm = 0x83b, kLdgsts = 0xfae, kLdgdepbar = 0x9af,
                          kLdg = 0x981, kStg = 0x986, kLdl = 0x983, kStl = 0x387, kMufu = 0x308;
/// Operations alone: max and min; DADD, DMUL, DFMA, DSETP.
inline constexpr unsigned kFmnmx = 0x009;
inline constexpr unsigned kDouble[] = {0x029, 0x028, 0x02b, 0x02a};
}  // namespace opcode

struct MachineCode {
  std::string kernel;                 ///< mangled
  int architecture = 0;               ///< 80, 90
  int instructions = 0;               ///< padding included
  std::map<unsigned, int> by_opcode;  ///< low 12 bits

  [[nodiscard]] int count(unsigned code) const;
  /// In any operand form.
  [[nodiscard]] int operations(unsigned operation) const;
  /// Instructions on doubles, any operand form.
  [[nodiscard]] int doubles() const;
};

struct Ptx {
  std::string kernel;  ///< mangled
  std::string target;  ///< "sm_80"
  std::string body;
  /// How often the word occurs.
  [[nodiscard]] int count(const std::string& word) const;
};

/// Of each kernel in an object file, for each architecture.
std::vector<MachineCode> machine_code_of(const std::string& object);
std::vector<Ptx> ptx_of(const std::string& object);

/// "forward_kernel<32>" of a mangled kernel name: no namespaces, no arguments.
std::string short_name(const std::string& mangled);

}  // namespace tessera
