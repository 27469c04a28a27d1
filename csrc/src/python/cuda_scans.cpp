#include "python/cuda.h"

namespace lsc::python {

void bind_cuda_scans(py::module_&) {}

}  // namespace lsc::python
