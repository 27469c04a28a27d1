// Chooses the instruction set once, and keeps the table of cells.
#include "cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <stdexcept>

namespace lsc::cpu {
#define LSC_DECLARE(isa, T)                                                                                \
  namespace isa {                                                                                          \
  extern const LinearKernels<T> linear_##T;                                                                \
  extern const ScanKernels<T> scan_##T;                                                                    \
  extern const BlockKernels<T> blocks_##T;                                                                 \
  extern const PointwiseKernels<T> pointwise_##T;                                                          \
  extern const RooflineKernels<T> roofline_##T;                                                            \
  constexpr KernelTables<T> of_##T = {&linear_##T, &scan_##T, &blocks_##T, &pointwise_##T, &roofline_##T}; \
  }
#if defined(LSC_HAVE_NEON)
LSC_DECLARE(neon, float)
LSC_DECLARE(neon, double)
#else
LSC_DECLARE(portable, float)
LSC_DECLARE(portable, double)
#endif
#if defined(LSC_HAVE_X86)
LSC_DECLARE(avx2, float)
LSC_DECLARE(avx2, double)
LSC_DECLARE(avx512, float)
LSC_DECLARE(avx512, double)
#endif
#undef LSC_DECLARE

namespace {

// From the best to the one that always works.
const std::vector<InstructionSet>& sets() {
  static const std::vector<InstructionSet> all = {
#if defined(LSC_HAVE_X86)
      {"avx512",
       [] {
         return bool(__builtin_cpu_supports("avx512f")) && bool(__builtin_cpu_supports("avx512vl")) &&
                bool(__builtin_cpu_supports("avx512dq")) && bool(__builtin_cpu_supports("avx512bw"));
       },
       avx512::of_float, avx512::of_double},
      {"avx2", [] { return bool(__builtin_cpu_supports("avx2")) && bool(__builtin_cpu_supports("fma")); },
       avx2::of_float, avx2::of_double},
#endif
#if defined(LSC_HAVE_NEON)
      {"neon", [] { return true; }, neon::of_float, neon::of_double},
#else
      {"portable", [] { return true; }, portable::of_float, portable::of_double},
#endif
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
  std::map<std::string, const CompiledCell*> compiled;  // by instruction set
};

CellShape shape_of(const CompiledCell& cell) {
  CellShape shape;
  shape.name = cell.name;
  shape.states = cell.states;
  shape.preactivations = cell.preactivations;
  shape.unit_parameters = cell.unit_parameters;
  shape.derived = cell.derived;
  for (int k = 0; k < cell.preactivations; ++k) {
    shape.feeds.push_back(cell.feeds[k]);
    shape.input_blocks = std::max(shape.input_blocks, cell.feeds[k].input + 1);
    shape.recurrent_blocks = std::max(shape.recurrent_blocks, cell.feeds[k].recurrent + 1);
  }
  return shape;
}

const std::map<std::string, CellEntry>& cells() {
  static const std::map<std::string, CellEntry> all = [] {
    std::map<std::string, CellEntry> table;
    for (const CellUnit& unit : cell_units())
      for (int i = 0; i < unit.compiled->count; ++i) {
        const CompiledCell& cell = unit.compiled->cells[i];
        CellEntry& found = table[cell.name];
        found.shape = shape_of(cell);
        found.compiled[unit.instruction_set] = &cell;
      }
    return table;
  }();
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
const KernelTables<float>& kernel_tables<float>() {
  return instruction_set().of_float;
}
template <>
const KernelTables<double>& kernel_tables<double>() {
  return instruction_set().of_double;
}
template <>
const CellKernels<float>& cell_kernels<float>(const std::string& name) {
  return entry(name).compiled.at(instruction_set().name)->kernels_float;
}
template <>
const CellKernels<double>& cell_kernels<double>(const std::string& name) {
  return entry(name).compiled.at(instruction_set().name)->kernels_double;
}

}  // namespace lsc::cpu
