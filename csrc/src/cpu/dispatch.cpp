// Chooses the instruction set once, and keeps the table of cells.
#include "cpu/dispatch.h"

#include <cstdlib>
#include <map>
#include <stdexcept>

namespace lsc::cpu {

#define LSC_DECLARE(isa)                                                   \
  namespace isa {                                                          \
  void fill_linear_kernels(LinearKernels<float>&, LinearKernels<double>&); \
  }
LSC_DECLARE(portable)
#if defined(LSC_HAVE_X86)
LSC_DECLARE(avx2)
LSC_DECLARE(avx512)
#endif
#undef LSC_DECLARE

namespace {

InstructionSet make(const char* name, bool (*supported)(),
                    void (*fill)(LinearKernels<float>&, LinearKernels<double>&)) {
  InstructionSet set{name, supported, {}, {}};
  fill(set.linear_float, set.linear_double);
  return set;
}

// From the best to the one that always works.
const std::vector<InstructionSet>& sets() {
  static const std::vector<InstructionSet> all = {
#if defined(LSC_HAVE_X86)
      make(
          "avx512",
          [] {
            return bool(__builtin_cpu_supports("avx512f")) && bool(__builtin_cpu_supports("avx512vl")) &&
                   bool(__builtin_cpu_supports("avx512dq")) && bool(__builtin_cpu_supports("avx512bw"));
          },
          avx512::fill_linear_kernels),
      make(
          "avx2", [] { return bool(__builtin_cpu_supports("avx2")) && bool(__builtin_cpu_supports("fma")); },
          avx2::fill_linear_kernels),
#endif
      make(
          "portable", [] { return true; }, portable::fill_linear_kernels),
  };
  return all;
}

const InstructionSet& choose() {
  const char* wanted = std::getenv("LSC_INSTRUCTION_SET");
  std::string known;
  for (const InstructionSet& set : sets()) {
    known += std::string(known.empty() ? "" : ", ") + set.name;
    if (wanted ? std::string(wanted) == set.name : set.supported()) {
      if (set.supported()) return set;
      throw std::runtime_error(std::string("LSC_INSTRUCTION_SET: expected a set that this machine supports, got ") +
                               wanted);
    }
  }
  throw std::runtime_error("LSC_INSTRUCTION_SET: expected one of " + known + ", got " + wanted);
}

struct CellEntry {
  CellShape shape;
  std::map<std::string, CellKernels<float>> kernels_float;
  std::map<std::string, CellKernels<double>> kernels_double;
};

std::map<std::string, CellEntry>& cells() {
  static std::map<std::string, CellEntry> all;
  return all;
}

const CellEntry& entry(const std::string& name) {
  const auto found = cells().find(name);
  if (found != cells().end()) return found->second;
  std::string known;
  for (const auto& [key, value] : cells()) known += (known.empty() ? "" : ", ") + key;
  throw std::invalid_argument("cell: expected one of " + known + ", got '" + name + "'");
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet& chosen = choose();
  return chosen;
}

std::vector<std::string> compiled_instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : sets()) names.emplace_back(set.name);
  return names;
}

const CellShape& cell_shape(const std::string& name) { return entry(name).shape; }

std::vector<std::string> cell_names() {
  std::vector<std::string> names;
  for (const auto& [name, value] : cells()) names.push_back(name);
  return names;
}

template <>
const LinearKernels<float>& linear_kernels<float>() {
  return instruction_set().linear_float;
}
template <>
const LinearKernels<double>& linear_kernels<double>() {
  return instruction_set().linear_double;
}
template <>
const CellKernels<float>& cell_kernels<float>(const std::string& name) {
  return entry(name).kernels_float.at(instruction_set().name);
}
template <>
const CellKernels<double>& cell_kernels<double>(const std::string& name) {
  return entry(name).kernels_double.at(instruction_set().name);
}

void register_cell(const char* isa, const CellShape& shape, const CellKernels<float>& kernels_float,
                   const CellKernels<double>& kernels_double) {
  CellEntry& cell = cells()[shape.name];
  cell.shape = shape;
  cell.kernels_float[isa] = kernels_float;
  cell.kernels_double[isa] = kernels_double;
}

}  // namespace lsc::cpu
