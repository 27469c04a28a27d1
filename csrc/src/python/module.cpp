// The compiled module `_C`: raw memory in, raw memory out. It allocates no tensor and links no torch.
#include "algorithms/backward.h"
#include "algorithms/forward.h"
#include "python/buffers.h"
#include "python/operators.h"

namespace lsc::python {
namespace {

void run_forward(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                 const LayerBuffers& weights, const Buffer& states, const OptionalBuffer& gates, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const auto layers = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, layers);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, states, gates);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] { forward(backend, cell, cpu::cell_kernels<T>(cell_name), layers, trajectory); });
  });
}

void run_backward(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                  const LayerBuffers& weights, const Buffer& states, const Buffer& gates, const Buffer& state_gradients,
                  const Buffer& x_gradient, const LayerBuffers& gradients, int threads) {
  dispatch(dtype, [&](auto zero) {
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
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run(
        [&] { backward(backend, cell, cpu::cell_kernels<T>(cell_name), layers, trajectory, flowing, dx, targets); });
  });
}

py::dict build_info() {
  py::dict info;
  info["version"] = LSC_VERSION;
  info["backends"] = std::vector<std::string>{"cpu"};
  info["instruction_set"] = cpu::instruction_set().name;
  info["instruction_sets"] = cpu::compiled_instruction_sets();
  info["thread_runtime"] = cpu::thread_runtime();
  info["cuda_architectures"] = std::vector<std::string>{};
  info["compiler"] = LSC_COMPILER;
  return info;
}

py::dict cells() {
  py::dict table;
  for (const std::string& name : cpu::cell_names()) {
    const CellShape& shape = cpu::cell_shape(name);
    py::dict entry;
    entry["states"] = shape.states;
    entry["preactivations"] = shape.preactivations;
    entry["unit_parameters"] = shape.unit_parameters;
    entry["derived"] = int(shape.derived);
    entry["input_blocks"] = shape.input_blocks;
    entry["recurrent_blocks"] = shape.recurrent_blocks;
    table[name.c_str()] = entry;
  }
  return table;
}

}  // namespace
}  // namespace lsc::python

PYBIND11_MODULE(_C, module) {
  using namespace lsc::python;
  module.doc() = "Compiled kernels of lsc_ext. Private: use the Python functions.";
  module.def("forward", &run_forward, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("threads"));
  module.def("backward", &run_backward, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("state_gradients"), py::arg("x_gradient"),
             py::arg("gradients"), py::arg("threads"));
  module.def("build_info", &build_info);
  module.def("cells", &cells);
  bind_operators(module);
}
