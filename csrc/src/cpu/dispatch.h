// The tables of functions that are compiled once per instruction set. Only these cross from one set to another: nothing
// inline with external linkage is shared between units of different sets (docs/design/0003).
#pragma once

#include "algorithms/backend.h"

namespace lsc::cpu {

struct InstructionSet {
  const char* name;
  bool (*supported)();
  LinearKernels<float> linear_float;
  LinearKernels<double> linear_double;
};

// The set in use: the best that the machine supports, or the one that LSC_INSTRUCTION_SET names.
const InstructionSet& instruction_set();
std::vector<std::string> compiled_instruction_sets();

// Every compiled cell, by name; an unknown name throws std::invalid_argument that lists the known ones.
const CellShape& cell_shape(const std::string& name);
std::vector<std::string> cell_names();

template <class T>
const LinearKernels<T>& linear_kernels();
template <class T>
const CellKernels<T>& cell_kernels(const std::string& name);

// Called by each instantiated cell while the module loads.
void register_cell(const char* instruction_set, const CellShape& shape, const CellKernels<float>& kernels_float,
                   const CellKernels<double>& kernels_double);

// "openmp" or "serial".
const char* thread_runtime();

}  // namespace lsc::cpu
