// Where radii of a batch of points are written.
#pragma once

#include "python/buffers.h"

namespace lsc::python {

// For `count` points: radius, residual and condition [count] double, eigenvalue [count, 2] double, num_matvecs [count]
// int32, status [count] uint8, vectors [count, 2, n] of the operator's numbers.
struct ResultBuffers {
  ResultBuffers(const Buffer& radius_, const Buffer& eigenvalue_, const Buffer& residual_, const Buffer& condition_,
                const Buffer& num_matvecs_, const Buffer& status_, const OptionalBuffer& vectors_)
      : radius(radius_),
        eigenvalue(eigenvalue_),
        residual(residual_),
        condition(condition_),
        num_matvecs(num_matvecs_),
        status(status_),
        vectors(vectors_) {}

  Buffer radius, eigenvalue, residual, condition, num_matvecs, status;
  OptionalBuffer vectors;
};

template <class Buffers>
void bind_result_buffers(py::module_& module) {
  py::class_<Buffers>(module, "ResultBuffers", py::module_local())
      .def(py::init<Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, OptionalBuffer>(), py::arg("radius"),
           py::arg("eigenvalue"), py::arg("residual"), py::arg("condition"), py::arg("num_matvecs"), py::arg("status"),
           py::arg("vectors"));
}

}  // namespace lsc::python
