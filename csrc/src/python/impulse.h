#pragma once

#include <pybind11/pybind11.h>

namespace lsc::python {

void bind_impulse(pybind11::module_& module);

}  // namespace lsc::python
