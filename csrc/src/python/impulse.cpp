// Responses of linear networks to an impulse, for Python. Sizes are (T, K, m, I, O).
#include "algorithms/impulse.h"

#include "python/impulse.h"
#include "python/scans.h"

namespace lsc::python {
namespace {

ImpulseShape impulse_shape(const Sizes& sizes) {
  require_sizes(sizes, 5, "(T, K, m, I, O)");
  ImpulseShape shape;
  shape.T = sizes[0], shape.K = sizes[1], shape.m = sizes[2], shape.I = sizes[3], shape.O = sizes[4];
  for (const Index size : {shape.T, shape.K, shape.m})
    if (size < 1) throw std::invalid_argument("sizes: expected T, K and m of at least 1, got " + std::to_string(size));
  for (const Index size : {shape.T, shape.K, shape.m, shape.I, shape.O}) checked_size("sizes", {size});
  // What is allocated here is padded, to 16 numbers at most.
  checked_size("sizes", {sizeof(double), shape.I, shape.T, shape.K + 16, shape.m + 16});
  checked_size("sizes", {sizeof(double), shape.I + 1, shape.K + 16, shape.m + 16, shape.m});
  checked_size("sizes", {sizeof(double), shape.I + 1, shape.O, shape.K + 16, shape.m + 16});
  return shape;
}

std::int64_t states_size(const std::string& dtype, const Sizes& sizes) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    return std::int64_t(ImpulseResponse<T>::states_size(*cpu::kernel_tables<T>().blocks, impulse_shape(sizes)));
  });
}

// The memory of every argument, checked.
template <class T>
struct ImpulseMemory {
  ImpulseShape shape;
  std::int64_t states_count;

  explicit ImpulseMemory(const Sizes& sizes)
      : shape(impulse_shape(sizes)),
        states_count(ImpulseResponse<T>::states_size(*cpu::kernel_tables<T>().blocks, shape)) {}

  template <class P>
  P* A(const char* name, const Buffer& buffer) const {
    return data<P>(name, buffer, checked_size(name, {shape.K, shape.m, shape.m}));
  }
  template <class P>
  P* B(const char* name, const Buffer& buffer) const {
    return data<P>(name, buffer, checked_size(name, {shape.K, shape.m, shape.I}));
  }
  template <class P>
  P* C(const char* name, const Buffer& buffer) const {
    return data<P>(name, buffer, checked_size(name, {shape.O, shape.K, shape.m}));
  }
  template <class P>
  P* states(const Buffer& buffer) const {
    return data<P>("states", buffer, states_count);
  }
  template <class P>
  P* response(const char* name, const Buffer& buffer) const {
    return data<P>(name, buffer, checked_size(name, {shape.T, shape.O, shape.I}));
  }
};

void run_response(const std::string& dtype, const Sizes& sizes, const Buffer& A, const Buffer& B, const Buffer& C,
                  const Buffer& states, const Buffer& response, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const ImpulseMemory<T> memory(sizes);
    const T* a = memory.template A<const T>("A", A);
    const T* b = memory.template B<const T>("B", B);
    const T* c = memory.template C<const T>("C", C);
    T* x = memory.template states<T>(states);
    T* g = memory.template response<T>("response", response);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run(
        [&] { ImpulseResponse<T>(backend, *cpu::kernel_tables<T>().blocks, memory.shape, a, c).run(b, x, g); });
  });
}

void run_push(const std::string& dtype, const Sizes& sizes, const Buffer& A, const Buffer& C, const Buffer& A_change,
              const Buffer& B_change, const Buffer& C_change, const Buffer& states, const Buffer& change, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const ImpulseMemory<T> memory(sizes);
    const T* a = memory.template A<const T>("A", A);
    const T* c = memory.template C<const T>("C", C);
    const T* da = memory.template A<const T>("A_change", A_change);
    const T* db = memory.template B<const T>("B_change", B_change);
    const T* dc = memory.template C<const T>("C_change", C_change);
    const T* x = memory.template states<const T>(states);
    T* dg = memory.template response<T>("change", change);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] {
      ImpulseResponse<T>(backend, *cpu::kernel_tables<T>().blocks, memory.shape, a, c).push(da, db, dc, x, dg);
    });
  });
}

void run_pull(const std::string& dtype, const Sizes& sizes, const Buffer& A, const Buffer& C, const Buffer& slope,
              const Buffer& states, const Buffer& A_gradient, const Buffer& B_gradient, const Buffer& C_gradient,
              int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const ImpulseMemory<T> memory(sizes);
    const T* a = memory.template A<const T>("A", A);
    const T* c = memory.template C<const T>("C", C);
    const T* s = memory.template response<const T>("slope", slope);
    const T* x = memory.template states<const T>(states);
    T* da = memory.template A<T>("A_gradient", A_gradient);
    T* db = memory.template B<T>("B_gradient", B_gradient);
    T* dc = memory.template C<T>("C_gradient", C_gradient);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] {
      ImpulseResponse<T>(backend, *cpu::kernel_tables<T>().blocks, memory.shape, a, c).pull(s, x, da, db, dc);
    });
  });
}

}  // namespace

void bind_impulse(py::module_& module) {
  module.def("impulse_states_size", &states_size, py::arg("dtype"), py::arg("sizes"));
  module.def("impulse_response", &run_response, py::arg("dtype"), py::arg("sizes"), py::arg("A"), py::arg("B"),
             py::arg("C"), py::arg("states"), py::arg("response"), py::arg("threads"));
  module.def("impulse_push", &run_push, py::arg("dtype"), py::arg("sizes"), py::arg("A"), py::arg("C"),
             py::arg("A_change"), py::arg("B_change"), py::arg("C_change"), py::arg("states"), py::arg("change"),
             py::arg("threads"));
  module.def("impulse_pull", &run_pull, py::arg("dtype"), py::arg("sizes"), py::arg("A"), py::arg("C"),
             py::arg("slope"), py::arg("states"), py::arg("A_gradient"), py::arg("B_gradient"), py::arg("C_gradient"),
             py::arg("threads"));
}

}  // namespace lsc::python
