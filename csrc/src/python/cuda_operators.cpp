#include "python/cuda_operators.h"

#include <memory>

#include "cuda/apply.h"
#include "python/step_arguments.h"

namespace lsc::python {

std::int64_t CudaOperator::apply(bool transpose, const OptionalBuffer& indices, Index count, const Buffer& v,
                                 const Buffer& out, const ExecutionArguments& execution) const {
  return visit([&](const auto& products) {
    using T = typename std::decay_t<decltype(products)>::Number;
    const Index in_size = transpose ? products.rows : products.columns;
    const Index out_size = transpose ? products.columns : products.rows;
    if (!indices && count > products.points)
      throw std::invalid_argument("count: expected at most " + std::to_string(products.points) +
                                  " without indices, got " + std::to_string(count));
    const std::int64_t* point = data<const std::int64_t>("indices", indices, checked_size("indices", {count}));
    const T* source = data<const T>("v", v, checked_size("v", {count, in_size}));
    T* target = data<T>("out", out, checked_size("out", {count, out_size}));
    return execute(execution,
                   [&](cuda::Execution& on) { cuda::apply(on, products, transpose, count, point, source, target); });
  });
}

std::int64_t CudaStepOperator::linearize(const ExecutionArguments& execution) const {
  return std::visit(
      [&](const auto& step) {
        return execute(execution, [&](cuda::Execution& on) {
          if (!on.workspace.counting()) step.linearize(on);
        });
      },
      held_);
}

std::int64_t CudaStepOperator::bilinear_gradient(const Buffer& indices, Index count, const Buffer& u, const Buffer& v,
                                                 const std::vector<OptionalBuffer>& gradient,
                                                 const std::vector<OptionalBuffer>& gradient_below,
                                                 const OptionalBuffer& states, const OptionalBuffer& input,
                                                 const OptionalBuffer& states_below, const OptionalBuffer& input_below,
                                                 const ExecutionArguments& execution) const {
  return std::visit(
      [&](const auto& step) {
        using T = typename std::decay_t<decltype(step.products())>::Number;
        const std::int64_t* point = data<const std::int64_t>("indices", indices, checked_size("indices", {count}));
        const T* left = data<const T>("u", u, checked_size("u", {count, rows()}));
        const T* right = data<const T>("v", v, checked_size("v", {count, columns()}));
        const bool diagonal = step.products().direction == Direction::diagonal;
        const BilinearGradients<T> to = bilinear_gradients<T>(cell_, shape_, layer_, diagonal, count, gradient,
                                                              gradient_below, states, input, states_below, input_below);
        return execute(execution, [&](cuda::Execution& on) {
          step.bilinear_gradient(on, count, point, left, right, to.own, to.below, to.states, to.input, to.states_below,
                                 to.input_below);
        });
      },
      held_);
}

namespace {

// `coefficients` and `slopes` are memory for what linearize() leaves, of the layer and, for the diagonal, of the one
// below.
std::unique_ptr<CudaStepOperator> step_operator(const std::string& cell_name, const std::string& dtype,
                                                const Sizes& sizes, const Buffer& x, const LayerBuffers& weights,
                                                const Buffer& states, const Buffer& gates, Index layer,
                                                const std::string& direction, const Buffer& t, const Buffer& b,
                                                Index count, const Buffer& coefficients, const Buffer& slopes,
                                                const Buffer& coefficients_below, const Buffer& slopes_below) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const StepArguments<T> given =
        step_arguments<T>(cell_name, sizes, x, weights, states, gates, layer, direction, t, b, count);
    const CellShape& cell = given.cell;
    const Index H = given.shape.H, below = given.direction == Direction::diagonal ? 1 : 0;
    const auto memory = [&](const Buffer& c, const Buffer& s, Index layers) {
      const Index arguments = cell.preactivations + cell.states + cell.unit_parameters;
      const Index others = cell.derived ? cell.states - 1 + cell.unit_parameters : 0;
      return cuda::LinearizationMemory<T>{
          data<T>("coefficients", c, checked_size("coefficients", {layers, count, cell.states, arguments, H})),
          data<T>("slopes", s, checked_size("slopes", {layers, count, others, H}))};
    };
    const cuda::StepOperator<T> held(cell, given.layers, given.trajectory, layer, given.direction,
                                     {given.t, given.b, count}, memory(coefficients, slopes, 1),
                                     memory(coefficients_below, slopes_below, below));
    return std::make_unique<CudaStepOperator>(held, cell, given.shape, layer);
  });
}

std::unique_ptr<CudaOperator> matrix_operator(const std::string& dtype, Index points, Index rows, Index columns,
                                              const Buffer& matrices) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* memory = data<const T>("matrices", matrices, checked_size("matrices", {points, rows, columns}));
    return std::make_unique<CudaOperator>(cuda::MatrixProducts<T>{points, rows, columns, memory});
  });
}

}  // namespace

void bind_cuda_operators(py::module_& module) {
  bind_result_buffers<CudaResultBuffers>(module);
  py::class_<CudaOperator>(module, "Operator", py::module_local())
      .def_property_readonly("points", &CudaOperator::points)
      .def_property_readonly("rows", &CudaOperator::rows)
      .def_property_readonly("columns", &CudaOperator::columns)
      .def("apply", &CudaOperator::apply, py::arg("transpose"), py::arg("indices"), py::arg("count"), py::arg("v"),
           py::arg("out"), py::arg("execution"))
      .def("radii", &CudaOperator::radii, py::arg("tol"), py::arg("max_matvecs"), py::arg("seed"), py::arg("indices"),
           py::arg("count"), py::arg("targets"), py::arg("transposed"), py::arg("out"), py::arg("execution"),
           py::arg("first") = 0);
  py::class_<CudaStepOperator, CudaOperator>(module, "StepOperator", py::module_local())
      .def("linearize", &CudaStepOperator::linearize, py::arg("execution"))
      .def("bilinear_gradient", &CudaStepOperator::bilinear_gradient, py::arg("indices"), py::arg("count"),
           py::arg("u"), py::arg("v"), py::arg("gradient"), py::arg("gradient_below"), py::arg("states"),
           py::arg("input"), py::arg("states_below"), py::arg("input_below"), py::arg("execution"));
  module.def("step_operator", &step_operator, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("layer"), py::arg("direction"),
             py::arg("t"), py::arg("b"), py::arg("count"), py::arg("coefficients"), py::arg("slopes"),
             py::arg("coefficients_below"), py::arg("slopes_below"));
  module.def("matrix_operator", &matrix_operator, py::arg("dtype"), py::arg("points"), py::arg("rows"),
             py::arg("columns"), py::arg("matrices"));
}

}  // namespace lsc::python
