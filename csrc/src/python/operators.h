// The Operator classes as Python sees them.
#pragma once

#include <pybind11/pybind11.h>

namespace lsc::python {

void bind_operators(pybind11::module_& module);

}  // namespace lsc::python
