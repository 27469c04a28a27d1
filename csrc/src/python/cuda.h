// The functions of the CUDA backend as Python sees them. Each takes what its namesake of the CPU takes, with an
// Execution for the number of threads, and returns how many bytes of workspace it used; without a workspace it does
// nothing but count them.
#pragma once

#include "cuda/execution.h"
#include "python/buffers.h"

namespace lsc::python {

// (device, stream, precision, workspace, barrier) as Python holds it.
struct ExecutionArguments {
  int device;
  std::uintptr_t stream;
  cuda::Precision precision;
  OptionalBuffer workspace;
  std::optional<std::uintptr_t> barrier;
};

// Runs work(execution) on its device without the interpreter lock; returns the bytes of workspace taken.
template <class Work>
std::int64_t execute(const ExecutionArguments& given, Work&& work) {
  cuda::Execution execution{given.device,
                            reinterpret_cast<void*>(given.stream),
                            given.precision,
                            {given.workspace ? reinterpret_cast<void*>(given.workspace->first) : nullptr,
                             given.workspace ? std::size_t(given.workspace->second) : 0},
                            reinterpret_cast<unsigned*>(given.barrier.value_or(0))};
  const py::gil_scoped_release unlocked;
  const cuda::DeviceGuard guard(given.device);
  work(execution);
  return std::int64_t(execution.workspace.taken());
}

void bind_cuda(py::module_& module);
void bind_cuda_recurrence(py::module_& module);
void bind_cuda_operators(py::module_& module);
void bind_cuda_scans(py::module_& module);
void bind_cuda_forward_radii(py::module_& module);

}  // namespace lsc::python
