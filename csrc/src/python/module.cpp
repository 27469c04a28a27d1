// The compiled module `_C`: raw memory in, raw memory out. It allocates no tensor and links no torch.
#include <algorithm>
#include <memory>

#include "algorithms/backward.h"
#include "algorithms/forward.h"
#include "algorithms/roofline.h"
#include "algorithms/sensitivity_scan.h"
#include "python/buffers.h"
#include "python/impulse.h"
#include "python/operators.h"
#include "python/scans.h"
#if defined(LSC_HAVE_CUDA)
#include "cuda/devices.h"
#include "python/cuda.h"
#endif

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

// A list of addresses and counts, which pybind11 converts faster than anything nested; count 0 where there is nothing.
class MemoryList {
 public:
  MemoryList(const std::vector<std::int64_t>& numbers, std::size_t buffers) : numbers_(numbers) {
    if (numbers.size() != 2 * buffers)
      throw std::invalid_argument("memory: expected " + std::to_string(2 * buffers) + " numbers, got " +
                                  std::to_string(numbers.size()));
  }
  OptionalBuffer take() {
    const std::int64_t address = numbers_[next_++], elements = numbers_[next_++];
    if (elements == 0) return std::nullopt;
    return Buffer{static_cast<std::uintptr_t>(address), elements};
  }
  Buffer required() { return take().value_or(Buffer{0, 0}); }
  LayerBuffers layers(Index count) {
    LayerBuffers result{static_cast<std::size_t>(count)};
    for (auto& layer : result)
      for (std::size_t i = 0; i < kPerLayer; ++i) layer.push_back(take());
    return result;
  }

  static constexpr std::size_t kPerLayer = 5;

 private:
  const std::vector<std::int64_t>& numbers_;
  std::size_t next_ = 0;
};

// From zero states, into memory of the caller's choice: what the shortest way through Python needs. `memory` is x; the
// parameters of every layer; states and gates, absent where they are not wanted; the output [T, B, H]; the last of each
// of the S states, [L, B, H].
void run_from_zero(const std::string& cell_name, const std::string& dtype, const Sizes& sizes,
                   const std::vector<std::int64_t>& memory, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const std::size_t S = std::size_t(cell.states);
    MemoryList list(memory, MemoryList::kPerLayer * std::size_t(shape.L) + 4 + S);
    const Buffer x = list.required();
    const LayerBuffers weights = list.layers(shape.L);
    const OptionalBuffer states = list.take(), gates = list.take();
    const std::int64_t state_count = checked_size("states", {shape.L, shape.T + 1, cell.states, shape.B, shape.H});
    std::unique_ptr<T[]> own(states ? nullptr : new T[std::size_t(state_count)]);
    const Buffer kept = states ? *states : Buffer{reinterpret_cast<std::uintptr_t>(own.get()), state_count};
    T* output = data<T>("output", list.required(), checked_size("output", {shape.T, shape.B, shape.H}));
    std::vector<T*> last;
    for (int state = 0; state < cell.states; ++state)
      last.push_back(data<T>("last", list.required(), checked_size("last", {shape.L, shape.B, shape.H})));
    const auto parameters = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, parameters);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, kept, gates);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] {
      const Index row = shape.B * shape.H, slot = cell.states * row;
      for (Index l = 0; l < shape.L; ++l) std::fill_n(trajectory.state(l, 0, 0), slot, T(0));
      forward(backend, cell, cpu::cell_kernels<T>(cell_name), parameters, trajectory);
      for (Index t = 0; t < shape.T; ++t) std::copy_n(trajectory.state(shape.L - 1, t + 1, 0), row, output + t * row);
      for (Index s = 0; s < cell.states; ++s)
        for (Index l = 0; l < shape.L; ++l)
          std::copy_n(trajectory.state(l, shape.T, 0) + s * row, row, last[std::size_t(s)] + l * row);
    });
  });
}

// The gradient from those of the output and of the last states. `memory` is x; the parameters of every layer; states
// and gates; the gradients of the output [T, B, H] and of the last of each of the S states [L, B, H], absent where they
// are zero; then what is written: the gradients of x, of the parameters of every layer and of each initial state [L, B,
// H], absent where it is not wanted.
void run_backward_from_ends(const std::string& cell_name, const std::string& dtype, const Sizes& sizes,
                            const std::vector<std::int64_t>& memory, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CellShape& cell = cpu::cell_shape(cell_name);
    const StackShape shape = stack_shape(sizes);
    const std::size_t S = std::size_t(cell.states);
    MemoryList list(memory, 2 * MemoryList::kPerLayer * std::size_t(shape.L) + 5 + 2 * S);
    const Index row = shape.B * shape.H;
    const std::int64_t ends = checked_size("last", {shape.L, shape.B, shape.H});
    const Buffer x = list.required();
    const LayerBuffers weights = list.layers(shape.L);
    const Buffer states = list.required(), gates = list.required();
    const T* output =
        data<const T>("output gradient", list.take(), checked_size("output", {shape.T, shape.B, shape.H}));
    std::vector<const T*> last;
    for (std::size_t s = 0; s < S; ++s) last.push_back(data<const T>("last gradient", list.take(), ends));
    T* dx = data<T>("x_gradient", list.required(), checked_size("x_gradient", {shape.T, shape.B, shape.I}));
    const LayerBuffers gradients = list.layers(shape.L);
    std::vector<T*> initial;
    for (std::size_t s = 0; s < S; ++s) initial.push_back(data<T>("initial gradient", list.take(), ends));
    const auto layers = layer_parameters<const T>("weights", cell, shape, weights);
    require_weights(cell, layers);
    const auto targets = layer_parameters<T>("gradients", cell, shape, gradients);
    const Trajectory<T> trajectory = make_trajectory<T>(cell, shape, x, states, gates);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] {
      std::vector<T> flowing(std::size_t(shape.L * (shape.T + 1) * cell.states * row));
      Trajectory<T> gradient = trajectory;
      gradient.states = flowing.data();
      if (output)
        for (Index t = 0; t < shape.T; ++t) std::copy_n(output + t * row, row, gradient.state(shape.L - 1, t + 1, 0));
      for (std::size_t s = 0; s < S; ++s)
        for (Index l = 0; last[s] && l < shape.L; ++l) {
          T* target = gradient.state(l, shape.T, 0) + Index(s) * row;
          for (Index i = 0; i < row; ++i) target[i] += last[s][l * row + i];
        }
      backward(backend, cell, cpu::cell_kernels<T>(cell_name), layers, trajectory, flowing.data(), dx, targets);
      for (std::size_t s = 0; s < S; ++s)
        for (Index l = 0; initial[s] && l < shape.L; ++l)
          std::copy_n(gradient.state(l, 0, 0) + Index(s) * row, row, initial[s] + l * row);
    });
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

void run_scan(const std::string& dtype, const Sizes& sizes, const Buffer& transition, const Buffer& inputs,
              const OptionalBuffer& initial, const Buffer& states, bool constant, bool reverse, bool adjoint,
              int threads) {
  with_scan(
      dtype, sizes, transition, inputs, initial, states, constant, reverse, adjoint,
      [&](const ScanShape& shape, const auto* a, const auto* b, const auto* start, auto* h) {
        using T = std::decay_t<decltype(*h)>;
        const Backend<T> backend = make_backend<T>(threads);
        release_and_run([&] { DiagonalScan<T>(backend, *cpu::kernel_tables<T>().scan, shape, a, b, start, h).run(); });
      });
}

// In place: state and derivative [B, N] of the dtype, squares of each [B, N] or, of complex numbers, [B, N, 2]. States
// of all steps, which with_scan() asks for, there are none of: it gets the inputs, and nobody writes them.
void run_sensitivity_scan(const std::string& dtype, const Sizes& sizes, const Buffer& transition, const Buffer& inputs,
                          const Buffer& state, const Buffer& derivative, const Buffer& state_squares,
                          const Buffer& derivative_squares, int threads) {
  with_scan(dtype, sizes, transition, inputs, OptionalBuffer(state), inputs, true, false, false,
            [&](const ScanShape& shape, const auto* a, const auto* b, const auto*, auto*) {
              using T = std::decay_t<decltype(*b)>;
              const std::int64_t step = checked_size("sizes", {shape.B, shape.N});
              T* h = data<T>("state", state, step);
              T* s = data<T>("derivative", derivative, step);
              double* h_squares = data<double>("state_squares", state_squares, shape.row());
              double* s_squares = data<double>("derivative_squares", derivative_squares, shape.row());
              const Backend<T> backend = make_backend<T>(threads);
              release_and_run([&] {
                sensitivity_scan(backend, *cpu::kernel_tables<T>().scan, shape, a, b, h, s, h_squares, s_squares);
              });
            });
}

void run_block_scan(const std::string& dtype, const Sizes& sizes, const Buffer& blocks, const Buffer& inputs,
                    const OptionalBuffer& initial, const Buffer& states, bool reverse, int threads) {
  with_block_scan(
      dtype, sizes, blocks, inputs, initial, states, reverse,
      [&](const BlockScanShape& shape, const auto* a, const auto* b, const auto* start, auto* h) {
        using T = std::decay_t<decltype(*h)>;
        const Backend<T> backend = make_backend<T>(threads);
        release_and_run([&] { block_scan(backend, *cpu::kernel_tables<T>().blocks, shape, a, b, start, h); });
      });
}

void require_seconds(double seconds) {
  if (!(seconds > 0 && seconds <= 60))
    throw std::invalid_argument("seconds: expected more than 0 and at most 60, got " + std::to_string(seconds));
}

double run_fma_rate(const std::string& dtype, int threads, double seconds) {
  require_seconds(seconds);
  double rate = 0;
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] { rate = fma_rate(backend, *cpu::kernel_tables<T>().roofline, seconds); });
  });
  return rate;
}

double run_copy_rate(int threads, std::int64_t bytes, double seconds) {
  require_seconds(seconds);
  if (bytes < 1) throw std::invalid_argument("bytes: expected at least 1, got " + std::to_string(bytes));
  double rate = 0;
  const Backend<float> backend = make_backend<float>(threads);
  release_and_run([&] { rate = copy_rate(backend.threads, backend.poll, bytes, seconds); });
  return rate;
}

py::dict build_info() {
  py::dict info;
  info["version"] = LSC_VERSION;
  info["instruction_set"] = cpu::instruction_set().name;
  info["instruction_sets"] = cpu::compiled_instruction_sets();
  info["thread_runtime"] = cpu::thread_runtime();
  info["compiler"] = LSC_COMPILER;
#if defined(LSC_HAVE_CUDA)
  info["backends"] = std::vector<std::string>{"cpu", "cuda"};
  info["cuda_architectures"] = cuda::architectures();
  info["cuda_runtime"] = cuda::version_name(cuda::runtime_version());
  info["cuda_compiler"] = LSC_CUDA_COMPILER;
#else
  info["backends"] = std::vector<std::string>{"cpu"};
  info["cuda_architectures"] = std::vector<std::string>{};
  info["cuda_runtime"] = py::none();
  info["cuda_compiler"] = py::none();
#endif
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
  module.def("forward_from_zero", &run_from_zero, py::arg("cell"), py::arg("dtype"), py::arg("sizes"),
             py::arg("memory"), py::arg("threads"));
  module.def("backward_from_ends", &run_backward_from_ends, py::arg("cell"), py::arg("dtype"), py::arg("sizes"),
             py::arg("memory"), py::arg("threads"));
  module.def("backward", &run_backward, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("state_gradients"), py::arg("x_gradient"),
             py::arg("gradients"), py::arg("threads"));
  module.def("scan", &run_scan, py::arg("dtype"), py::arg("sizes"), py::arg("transition"), py::arg("inputs"),
             py::arg("initial"), py::arg("states"), py::arg("constant"), py::arg("reverse"), py::arg("adjoint"),
             py::arg("threads"));
  module.def("sensitivity_scan", &run_sensitivity_scan, py::arg("dtype"), py::arg("sizes"), py::arg("transition"),
             py::arg("inputs"), py::arg("state"), py::arg("derivative"), py::arg("state_squares"),
             py::arg("derivative_squares"), py::arg("threads"));
  module.def("block_scan", &run_block_scan, py::arg("dtype"), py::arg("sizes"), py::arg("blocks"), py::arg("inputs"),
             py::arg("initial"), py::arg("states"), py::arg("reverse"), py::arg("threads"));
  module.def("fma_rate", &run_fma_rate, py::arg("dtype"), py::arg("threads"), py::arg("seconds"));
  module.def("copy_rate", &run_copy_rate, py::arg("threads"), py::arg("bytes"), py::arg("seconds"));
  module.def("build_info", &build_info);
  module.def("cells", &cells);
  bind_operators(module);
  bind_impulse(module);
#if defined(LSC_HAVE_CUDA)
  pybind11::module_ cuda = module.def_submodule("cuda", "The CUDA backend.");
  bind_cuda(cuda);
#endif
}
