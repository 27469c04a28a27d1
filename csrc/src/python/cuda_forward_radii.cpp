#include "cuda/forward_radii.h"
#include "python/cuda.h"
#include "python/cuda_operators.h"
#include "python/step_arguments.h"

namespace lsc::python {
namespace {

std::string why_not_fused(const std::string& cell_name, const std::string& dtype, const Sizes& sizes,
                          const ExecutionArguments& given) {
  return dispatch(dtype, [&](auto zero) {
    const cuda::Execution execution{given.device, nullptr, given.precision, {nullptr, 0}};
    const cuda::DeviceGuard guard(given.device);
    return cuda::why_not_fused<decltype(zero)>(execution, cell_name, cpu::cell_shape(cell_name), stack_shape(sizes));
  });
}

std::int64_t run(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                 const LayerBuffers& weights, const Buffer& states, const Buffer& gates, const std::string& direction,
                 Index count, const std::vector<Buffer>& items, double tol, Index max_matvecs,
                 const CudaResultBuffers& out, const Buffer& barrier, const ExecutionArguments& execution) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const auto layers = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, layers);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, states, gates);
    constexpr const char* kItems[] = {"layer", "t", "b", "seed", "vector", "output"};
    if (items.size() != 6)
      throw std::invalid_argument("items: expected 6 buffers, got " + std::to_string(items.size()));
    const std::int64_t* each[6];
    for (std::size_t i = 0; i < 6; ++i) each[i] = data<const std::int64_t>(kItems[i], items[i], count);
    const cuda::FusedItems points = {count, each[0], each[1], each[2], each[3], each[4], each[5]};
    const Index n = (cell.derived ? cell.states - 1 : cell.states) * shape.H;
    const cuda::RadiusResults<T> results = cuda_results<T>(out, count, n);
    auto* state = reinterpret_cast<unsigned*>(data<std::int32_t>("barrier", barrier, 2));
    return execute(execution, [&](cuda::Execution& on) {
      cuda::forward_radii(on, cell_name, cell, layers, trajectory, direction_named(direction), points,
                          RadiusOptions{tol, max_matvecs, 0}, results, state);
    });
  });
}

}  // namespace

void bind_cuda_forward_radii(py::module_& module) {
  module.def("launches", &cuda::launches);
  module.def("why_not_fused", &why_not_fused, py::arg("cell"), py::arg("dtype"), py::arg("sizes"),
             py::arg("execution"));
  module.def("forward_radii", &run, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("direction"), py::arg("count"),
             py::arg("items"), py::arg("tol"), py::arg("max_matvecs"), py::arg("out"), py::arg("barrier"),
             py::arg("execution"));
}

}  // namespace lsc::python
