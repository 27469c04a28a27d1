// The module that the tests run the device code with: the CUDA backend on the host.
#include "emulator/executor.h"
#include "emulator/mma.h"
#include "python/cuda.h"

PYBIND11_MODULE(_emulated, module) {
  lsc::python::bind_cuda(module);
  module.def("set_seed", &lsc::emulator::set_seed, pybind11::arg("seed"));
  module.def(
      "set_mishaps", [](int stalled, std::int64_t lost) { lsc::emulator::set_mishaps({stalled, lost}); },
      pybind11::arg("stalled"), pybind11::arg("lost"));
  module.def("set_tensor_cores", &lsc::emulator::set_tensor_cores, pybind11::arg("present"));
}
