#include "cuda/fused/forward_radii.h"
#include "cuda/fused/walk.h"
#include "cuda/fused/walk_back.h"
#include "python/cuda.h"
#include "python/cuda_operators.h"
#include "python/step_arguments.h"

namespace lsc::python {
namespace {

// What runs, of "forward", "backward" and "forward_radii", and how it is shared out over blocks.
py::dict plan(const std::string& what, const std::string& cell_name, const std::string& dtype, const Sizes& sizes,
              const ExecutionArguments& given) {
  const CellShape& cell = cpu::cell_shape(cell_name);
  const StackShape shape = stack_shape(sizes);
  cuda::Plan found;
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    return execute(given, [&](cuda::Execution& on) {
      if (what == "forward")
        found = cuda::plan_walk<T>(on, cell_name, cell, shape);
      else if (what == "backward")
        found = cuda::plan_walk_back<T>(on, cell_name, cell, shape);
      else if (what == "forward_radii")
        found = cuda::plan_forward_radii<T>(on, cell_name, cell, shape);
      else
        throw std::invalid_argument("what: expected forward, backward or forward_radii, got '" + what + "'");
    });
  });
  py::dict result;
  result["reason"] = found.reason;
  result["pays"] = found.pays;
  result["units"] = found.sharing.units;
  result["slices"] = found.sharing.slices;
  result["parts"] = found.sharing.parts;
  result["apart"] = found.sharing.apart;
  result["blocks"] = found.blocks;
  result["walking"] = found.sharing.walking(shape.L);
  result["shared_bytes"] = found.shared_bytes;
  return result;
}

std::int64_t run(const std::string& cell_name, const std::string& dtype, const Sizes& sizes, const Buffer& x,
                 const LayerBuffers& weights, const Buffer& states, const Buffer& gates, const std::string& direction,
                 Index count, const std::vector<Buffer>& items, double tol, Index max_matvecs,
                 const CudaResultBuffers& out, const std::optional<CudaResultBuffers>& left,
                 const ExecutionArguments& execution) {
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
    const Direction along = direction_named(direction);
    const Index columns = along == Direction::depth ? 1 : cell.derived ? cell.states - 1 : cell.states;
    const Index n = columns * shape.H;
    const cuda::RadiusResults<T> results = cuda_results<T>(out, count, n);
    const cuda::RadiusResults<T> lefts = left ? cuda_results<T>(*left, count, n) : cuda::RadiusResults<T>{};
    return execute(execution, [&](cuda::Execution& on) {
      cuda::forward_radii(on, cell_name, cell, layers, trajectory, along, points, RadiusOptions{tol, max_matvecs, 0},
                          results, lefts);
    });
  });
}

}  // namespace

void bind_cuda_forward_radii(py::module_& module) {
  module.def("launches", &cuda::launches);
  module.def("plan", &plan, py::arg("what"), py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("execution"));
  module.def("forward_radii", &run, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("direction"), py::arg("count"),
             py::arg("items"), py::arg("tol"), py::arg("max_matvecs"), py::arg("out"), py::arg("left"),
             py::arg("execution"));
}

}  // namespace lsc::python
