#include "cuda/scan.h"
#include "python/cuda.h"
#include "python/scans.h"

namespace lsc::python {
namespace {

std::int64_t run_scan(const std::string& dtype, const Sizes& sizes, const Buffer& transition, const Buffer& inputs,
                      const OptionalBuffer& initial, const Buffer& states, bool constant, bool reverse, bool adjoint,
                      const ExecutionArguments& execution) {
  return with_scan(dtype, sizes, transition, inputs, initial, states, constant, reverse, adjoint,
                   [&](const ScanShape& shape, const auto* a, const auto* b, const auto* start, auto* h) {
                     return execute(execution, [&](cuda::Execution& on) { cuda::scan(on, shape, a, b, start, h); });
                   });
}

std::int64_t run_block_scan(const std::string& dtype, const Sizes& sizes, const Buffer& blocks, const Buffer& inputs,
                            const OptionalBuffer& initial, const Buffer& states, bool reverse,
                            const ExecutionArguments& execution) {
  return with_block_scan(dtype, sizes, blocks, inputs, initial, states, reverse,
                         [&](const BlockScanShape& shape, const auto* a, const auto* b, const auto* start, auto* h) {
                           return execute(execution,
                                          [&](cuda::Execution& on) { cuda::block_scan(on, shape, a, b, start, h); });
                         });
}

}  // namespace

void bind_cuda_scans(py::module_& module) {
  module.def("scan", &run_scan, py::arg("dtype"), py::arg("sizes"), py::arg("transition"), py::arg("inputs"),
             py::arg("initial"), py::arg("states"), py::arg("constant"), py::arg("reverse"), py::arg("adjoint"),
             py::arg("execution"));
  module.def("block_scan", &run_block_scan, py::arg("dtype"), py::arg("sizes"), py::arg("blocks"), py::arg("inputs"),
             py::arg("initial"), py::arg("states"), py::arg("reverse"), py::arg("execution"));
}

}  // namespace lsc::python
