// The tables of functions that are compiled once per instruction set. Only these cross from one set to another: nothing
// inline with external linkage is shared between units of different sets (docs/design/0003).
#pragma once

#include "algorithms/backend.h"

namespace lsc::cpu {

// y[i] = f(x[i]), i < n, as cells evaluate f.
template <class T>
struct PointwiseKernels {
  void (*exp)(Index n, const T* x, T* y);
  void (*tanh)(Index n, const T* x, T* y);
  void (*sigmoid)(Index n, const T* x, T* y);
};

// What one instruction set offers for one number format.
template <class T>
struct KernelTables {
  const LinearKernels<T>* linear;
  const ScanKernels<T>* scan;
  const BlockKernels<T>* blocks;
  const PointwiseKernels<T>* pointwise;
  const RooflineKernels<T>* roofline;
};

struct InstructionSet {
  const char* name;
  bool (*supported)();
  KernelTables<float> of_float;
  KernelTables<double> of_double;
};

// A cell as one instruction set compiled it. Constant-initialised: a unit may hold instructions that this machine
// lacks, so none of its code runs before its set is chosen, not even to register itself.
struct CompiledCell {
  const char* name;
  int states;
  int preactivations;
  int unit_parameters;
  bool derived;
  const Feed* feeds;
  CellKernels<float> kernels_float;
  CellKernels<double> kernels_double;
};

struct CompiledCells {
  const CompiledCell* cells;
  int count;
};

struct CellUnit {
  const char* instruction_set;
  const CompiledCells* compiled;
};

// Every unit of cells in the build; written by CMake.
std::vector<CellUnit> cell_units();

// The set in use: the best that the machine supports, or the one that LSC_INSTRUCTION_SET names.
const InstructionSet& instruction_set();
std::vector<std::string> compiled_instruction_sets();

// Every compiled cell, by name; an unknown name throws std::invalid_argument that lists the known ones.
const CellShape& cell_shape(const std::string& name);
std::vector<std::string> cell_names();

// Those of the set in use.
template <class T>
const KernelTables<T>& kernel_tables();
template <class T>
const LinearKernels<T>& linear_kernels() {
  return *kernel_tables<T>().linear;
}
template <class T>
const CellKernels<T>& cell_kernels(const std::string& name);

// "openmp" or "serial".
const char* thread_runtime();

}  // namespace lsc::cpu
