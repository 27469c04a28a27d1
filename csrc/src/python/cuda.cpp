#include "python/cuda.h"

#include "cuda/devices.h"
#include "cuda/product.h"
#include "cuda/start_vectors.h"

namespace lsc::python {
namespace {

cuda::Precision precision_named(const std::string& name) {
  if (name == "fp32") return cuda::Precision::fp32;
  if (name == "tf32") return cuda::Precision::tf32;
  if (name == "fp16") return cuda::Precision::fp16;
  if (name == "bf16") return cuda::Precision::bf16;
  throw std::invalid_argument("precision: expected fp32, tf32, fp16 or bf16, got '" + name + "'");
}

std::int64_t start_vectors(const std::string& dtype, std::uint64_t seed, std::uint64_t first, Index count, Index n,
                           const Buffer& out, const ExecutionArguments& execution) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* v = data<T>("out", out, checked_size("out", {count, n}));
    return execute(execution, [&](cuda::Execution& on) {
      if (!on.workspace.counting()) cuda::start_vectors(on, seed, first, count, n, v);
    });
  });
}

py::dict device_info(int index) {
  const cuda::Device device = cuda::device_info(index);
  py::dict info;
  info["name"] = device.name;
  info["capability"] = py::make_tuple(device.major, device.minor);
  info["multiprocessors"] = device.multiprocessors;
  info["memory"] = device.memory;
  info["shared_memory_per_block_optin"] = device.shared_memory_per_block_optin;
  info["registers_per_multiprocessor"] = device.registers_per_multiprocessor;
  info["driver_version"] = cuda::version_name(cuda::driver_version());
  info["runtime_version"] = cuda::version_name(cuda::runtime_version());
  return info;
}

// For the tests of products: c [m, n] <- a [m, k] b [k, n], element (i, j) of `a` at i * a_row + j * a_column, so for
// b.
std::int64_t multiply(const std::string& dtype, Index m, Index n, Index k, const Buffer& a, Index a_row, Index a_column,
                      const Buffer& b, Index b_row, Index b_column, const Buffer& c,
                      const ExecutionArguments& execution) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto reach = [](const char* name, Index rows, Index row, Index columns, Index column) -> std::int64_t {
      if (checked_size(name, {rows, columns}) == 0) return 0;
      return checked_size(name, {rows - 1, row}) + checked_size(name, {columns - 1, column}) + 1;
    };
    cuda::Product<T> product;
    product.m = m;
    product.n = n;
    product.k = k;
    product.a = data<const T>("a", a, reach("a", m, a_row, k, a_column));
    product.a_row = a_row;
    product.a_column = a_column;
    product.b = data<const T>("b", b, reach("b", k, b_row, n, b_column));
    product.b_row = b_row;
    product.b_column = b_column;
    product.c = data<T>("c", c, checked_size("c", {m, n}));
    product.c_row = n;
    return execute(execution, [&](cuda::Execution& on) {
      if (!on.workspace.counting()) cuda::multiply(on, product);
    });
  });
}

}  // namespace

void bind_cuda(py::module_& module) {
  py::class_<ExecutionArguments>(module, "Execution")
      .def(py::init([](int device, std::uintptr_t stream, const std::string& precision, const OptionalBuffer& workspace,
                       const std::optional<std::uintptr_t>& barrier) {
             return ExecutionArguments{device, stream, precision_named(precision), workspace, barrier};
           }),
           py::arg("device"), py::arg("stream"), py::arg("precision"), py::arg("workspace"), py::arg("barrier"));
  module.def("start_vectors", &start_vectors, py::arg("dtype"), py::arg("seed"), py::arg("first"), py::arg("count"),
             py::arg("n"), py::arg("out"), py::arg("execution"));
  module.def("device_count", &cuda::device_count);
  module.def("why_no_device", &cuda::why_no_device);
  module.def("device_info", &device_info, py::arg("index"));
  module.def("architectures", &cuda::architectures);
  module.def("multiply", &multiply, py::arg("dtype"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("a"),
             py::arg("a_row"), py::arg("a_column"), py::arg("b"), py::arg("b_row"), py::arg("b_column"), py::arg("c"),
             py::arg("execution"));
  bind_cuda_recurrence(module);
  bind_cuda_operators(module);
  bind_cuda_scans(module);
  bind_cuda_forward_radii(module);
}

}  // namespace lsc::python
