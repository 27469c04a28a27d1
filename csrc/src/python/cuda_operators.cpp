#include "python/cuda.h"

namespace lsc::python {

void bind_cuda_operators(py::module_&) {}

}  // namespace lsc::python
