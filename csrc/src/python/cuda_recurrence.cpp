#include "python/cuda.h"

namespace lsc::python {

void bind_cuda_recurrence(py::module_&) {}

}  // namespace lsc::python
