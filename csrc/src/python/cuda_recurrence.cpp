#include "cuda/backward.h"
#include "cuda/forward.h"
#include "python/cuda.h"

namespace lsc::python {
namespace {

std::int64_t run_forward(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                         const LayerBuffers& weights, const Buffer& states, const OptionalBuffer& gates,
                         const ExecutionArguments& execution) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const auto layers = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, layers);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, states, gates);
    return execute(execution, [&](cuda::Execution& on) { cuda::forward(on, cell_name, cell, layers, trajectory); });
  });
}

std::int64_t run_backward(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                          const LayerBuffers& weights, const Buffer& states, const Buffer& gates,
                          const Buffer& state_gradients, const Buffer& x_gradient, const LayerBuffers& gradients,
                          const ExecutionArguments& execution) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const auto layers = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, layers);
    const auto targets = layer_parameters<T>("gradients", cell, shape, gradients);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, states, gates);
    T* flowing = data<T>("state_gradients", state_gradients,
                         checked_size("state_gradients", {shape.L, shape.T + 1, cell.states, shape.B, shape.H}));
    T* dx = data<T>("x_gradient", x_gradient, checked_size("x_gradient", {shape.T, shape.B, shape.I}));
    return execute(execution, [&](cuda::Execution& on) {
      cuda::backward(on, cell_name, cell, layers, trajectory, flowing, dx, targets);
    });
  });
}

}  // namespace

void bind_cuda_recurrence(py::module_& module) {
  module.def("forward", &run_forward, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("execution"));
  module.def("backward", &run_backward, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("state_gradients"), py::arg("x_gradient"),
             py::arg("gradients"), py::arg("execution"));
}

}  // namespace lsc::python
