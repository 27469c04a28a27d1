// The operators of the CUDA backend as Python sees them. They hold addresses of the device's memory, which their owner
// in Python keeps alive.
#pragma once

#include <variant>

#include "cuda/operator.h"
#include "cuda/radius.h"
#include "cuda/step_operator.h"
#include "python/cuda.h"
#include "python/result_buffers.h"

namespace lsc::python {

// A type of their own: Python knows one C++ type by one name in one module.
struct CudaResultBuffers : ResultBuffers {
  using ResultBuffers::ResultBuffers;
};

class CudaOperator {
 public:
  // What kernels take by value.
  using Products = std::variant<cuda::StepProducts<float>, cuda::StepProducts<double>, cuda::MatrixProducts<float>,
                                cuda::MatrixProducts<double>>;

  explicit CudaOperator(const Products& products) : products_(products) {}

  // f(products); their number type is Number.
  template <class F>
  auto visit(F&& f) const {
    return std::visit(std::forward<F>(f), products_);
  }

  Index points() const {
    return visit([](const auto& products) { return products.points; });
  }
  Index rows() const {
    return visit([](const auto& products) { return products.rows; });
  }
  Index columns() const {
    return visit([](const auto& products) { return products.columns; });
  }

  // Values of `indices` are not looked at: they are on the device.
  std::int64_t apply(bool transpose, const OptionalBuffer& indices, Index count, const Buffer& v, const Buffer& out,
                     const ExecutionArguments& execution) const;

  // Values of `indices` are not looked at, either.
  std::int64_t radii(double tol, Index max_matvecs, std::uint64_t seed, const OptionalBuffer& indices, Index count,
                     const OptionalBuffer& targets, bool transposed, const CudaResultBuffers& out,
                     const ExecutionArguments& execution, std::uint64_t first) const;

 private:
  Products products_;
};

class CudaStepOperator : public CudaOperator {
 public:
  template <class T>
  CudaStepOperator(const cuda::StepOperator<T>& held, const CellShape& cell, const StackShape& shape, Index layer)
      : CudaOperator(held.products()), held_(held), cell_(cell), shape_(shape), layer_(layer) {}

  // Fills the memory that the operator was made with; to be called before all else.
  std::int64_t linearize(const ExecutionArguments& execution) const;

  // As of the CPU's StepOperator.
  std::int64_t bilinear_gradient(const Buffer& indices, Index count, const Buffer& u, const Buffer& v,
                                 const std::vector<OptionalBuffer>& gradient,
                                 const std::vector<OptionalBuffer>& gradient_below, const OptionalBuffer& states,
                                 const OptionalBuffer& input, const OptionalBuffer& states_below,
                                 const OptionalBuffer& input_below, const ExecutionArguments& execution) const;

 private:
  std::variant<cuda::StepOperator<float>, cuda::StepOperator<double>> held_;
  CellShape cell_;
  StackShape shape_;
  Index layer_;
};

// Results of `count` points of n numbers, checked.
template <class T>
cuda::RadiusResults<T> cuda_results(const CudaResultBuffers& out, Index count, Index n) {
  cuda::RadiusResults<T> results;
  results.radius = data<double>("radius", out.radius, count);
  results.eigenvalue =
      reinterpret_cast<Eigenvalue*>(data<double>("eigenvalue", out.eigenvalue, checked_size("eigenvalue", {count, 2})));
  results.residual = data<double>("residual", out.residual, count);
  results.condition = data<double>("condition", out.condition, count);
  results.num_matvecs = data<std::int32_t>("num_matvecs", out.num_matvecs, count);
  results.status = data<std::uint8_t>("status", out.status, count);
  results.vectors = data<T>("vectors", out.vectors, checked_size("vectors", {count, 2, n}));
  return results;
}

}  // namespace lsc::python
