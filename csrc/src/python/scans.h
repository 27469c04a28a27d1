// What Python hands to a linear recurrence, checked: the same for every backend.
#pragma once

#include <string>

#include "algorithms/scan.h"
#include "python/buffers.h"

namespace lsc::python {

// As `dispatch`, for complex numbers too: f(T{}, is_complex).
template <class F>
auto dispatch_complex(const std::string& dtype, F&& f) {
  if (dtype == "complex64") return f(float{}, true);
  if (dtype == "complex128") return f(double{}, true);
  if (dtype == "float32") return f(float{}, false);
  if (dtype == "float64") return f(double{}, false);
  throw std::invalid_argument("dtype: expected 'float32', 'float64', 'complex64' or 'complex128', got '" + dtype + "'");
}

inline void require_sizes(const Sizes& sizes, std::size_t count, const char* names) {
  if (sizes.size() != count)
    throw std::invalid_argument(std::string("sizes: expected ") + names + ", got " + std::to_string(sizes.size()) +
                                " numbers");
}

// f(shape, transition, inputs, initial, states) over checked memory of the dtype.
template <class F>
auto with_scan(const std::string& dtype, const Sizes& sizes, const Buffer& transition, const Buffer& inputs,
               const OptionalBuffer& initial, const Buffer& states, bool constant, bool reverse, bool adjoint, F&& f) {
  require_sizes(sizes, 3, "(T, B, N)");
  checked_size("sizes", {2, sizes[0], sizes[1], sizes[2]});
  if (adjoint && initial) throw std::invalid_argument("initial: expected none for the adjoint, got memory");
  return dispatch_complex(dtype, [&](auto zero, bool is_complex) {
    using T = decltype(zero);
    ScanShape shape;
    shape.T = sizes[0], shape.B = sizes[1], shape.N = sizes[2];
    shape.complex = is_complex, shape.reverse = reverse, shape.constant = constant, shape.adjoint = adjoint;
    const std::int64_t step = checked_size("sizes", {2, shape.B, shape.N}) / 2;
    const std::int64_t all = checked_size("sizes", {shape.T, step});
    const T* a = data<const T>("transition", transition, constant ? checked_size("transition", {shape.N}) : all);
    const T* b = data<const T>("inputs", inputs, all);
    const T* start = data<const T>("initial", initial, step);
    return f(shape, a, b, start, data<T>("states", states, all));
  });
}

// f(shape, blocks, inputs, initial, states), alike.
template <class F>
auto with_block_scan(const std::string& dtype, const Sizes& sizes, const Buffer& blocks, const Buffer& inputs,
                     const OptionalBuffer& initial, const Buffer& states, bool reverse, F&& f) {
  require_sizes(sizes, 4, "(T, B, K, m)");
  checked_size("sizes", {2, sizes[0], sizes[1], sizes[2], sizes[3]});
  return dispatch_complex(dtype, [&](auto zero, bool is_complex) {
    using T = decltype(zero);
    BlockScanShape shape;
    shape.T = sizes[0], shape.B = sizes[1], shape.K = sizes[2], shape.m = sizes[3];
    shape.complex = is_complex, shape.reverse = reverse;
    const std::int64_t step = checked_size("sizes", {2, shape.B, shape.K, shape.m}) / 2;
    const std::int64_t all = checked_size("sizes", {shape.T, step});
    checked_size("blocks", {4, shape.K, shape.m, shape.m});
    const T* a = data<const T>("blocks", blocks, shape.K * shape.m * shape.m);
    const T* b = data<const T>("inputs", inputs, all);
    const T* start = data<const T>("initial", initial, step);
    return f(shape, a, b, start, data<T>("states", states, all));
  });
}

}  // namespace lsc::python
