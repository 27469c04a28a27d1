#include "cuda/radius.h"
#include "python/cuda_operators.h"

namespace lsc::python {

std::int64_t CudaOperator::radii(double tol, Index max_matvecs, std::uint64_t seed, const OptionalBuffer& indices,
                                 Index count, const OptionalBuffer& targets, bool transposed,
                                 const CudaResultBuffers& out, const ExecutionArguments& execution,
                                 std::uint64_t first) const {
  return visit([&](const auto& products) {
    using T = typename std::decay_t<decltype(products)>::Number;
    if (!indices && count != products.points)
      throw std::invalid_argument("count: expected " + std::to_string(products.points) + " without indices, got " +
                                  std::to_string(count));
    const auto pairs = [](double* numbers) { return reinterpret_cast<Eigenvalue*>(numbers); };
    cuda::RadiusTargets goals;
    goals.point = data<const std::int64_t>("indices", indices, checked_size("indices", {count}));
    goals.eigenvalue = pairs(data<double>("targets", targets, checked_size("targets", {count, 2})));
    goals.transposed = transposed;
    goals.first = first;
    const cuda::RadiusResults<T> results = cuda_results<T>(out, count, products.rows);
    const RadiusOptions options{tol, max_matvecs, seed};
    return execute(execution,
                   [&](cuda::Execution& on) { cuda::estimate_radii(on, products, options, count, goals, results); });
  });
}

}  // namespace lsc::python
