// How Python hands memory over: (address, number of elements) pairs, checked here against the sizes they must have.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/backend.h"
#include "algorithms/stack.h"
#include "cpu/dispatch.h"
#include "lsc/sizes.h"

namespace lsc::python {

namespace py = pybind11;

using Buffer = std::pair<std::uintptr_t, std::int64_t>;
using OptionalBuffer = std::optional<Buffer>;

// The memory of `buffer`, which must hold exactly `expected` elements.
template <class T>
T* data(const char* name, const Buffer& buffer, std::int64_t expected) {
  if (buffer.second != expected)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(expected) + " elements, got " +
                                std::to_string(buffer.second));
  if (expected > 0 && buffer.first == 0) throw std::invalid_argument(std::string(name) + ": expected memory, got null");
  return reinterpret_cast<T*>(buffer.first);
}

template <class T>
T* data(const char* name, const OptionalBuffer& buffer, std::int64_t expected) {
  return buffer ? data<T>(name, *buffer, expected) : nullptr;
}

// Runs f(T{}) with the type that `dtype` names.
template <class F>
auto dispatch(const std::string& dtype, F&& f) {
  if (dtype == "float32") return f(float{});
  if (dtype == "float64") return f(double{});
  throw std::invalid_argument("dtype: expected 'float32' or 'float64', got '" + dtype + "'");
}

// Asks Python for pending signals, at most once in 20 ms: the answer needs the interpreter lock.
class SignalPoll {
 public:
  bool operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(20)) return false;
    last_ = now;
    const py::gil_scoped_acquire lock;
    return PyErr_CheckSignals() != 0;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

template <class T>
Backend<T> make_backend(int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
  return {cpu::linear_kernels<T>(), threads, SignalPoll{}};
}

// Runs work without the interpreter lock; Ctrl-C comes out as KeyboardInterrupt.
template <class Work>
void release_and_run(Work&& work) {
  try {
    const py::gil_scoped_release unlocked;
    work();
  } catch (const Interrupted&) {
    throw py::error_already_set();
  }
}

using Sizes = std::vector<std::int64_t>;  // T, B, I, H, L
// weight_ih, weight_hh, bias_ih, bias_hh, unit of each layer.
using LayerBuffers = std::vector<std::vector<OptionalBuffer>>;

StackShape stack_shape(const Sizes& sizes);

template <class P>
std::vector<LayerParameters<P>> layer_parameters(const char* name, const CellShape& cell, const StackShape& shape,
                                                 const LayerBuffers& buffers);

// A trajectory over checked memory; `gates` may be absent.
template <class T>
Trajectory<T> make_trajectory(const CellShape& cell, const StackShape& shape, const Buffer& x, const Buffer& states,
                              const OptionalBuffer& gates) {
  Trajectory<T> result;
  result.shape = shape;
  result.S = cell.states;
  result.P = cell.preactivations;
  result.x = data<const T>("x", x, checked_size("x", {shape.T, shape.B, shape.I}));
  result.states =
      data<T>("states", states, checked_size("states", {shape.L, shape.T + 1, cell.states, shape.B, shape.H}));
  result.gates =
      data<T>("gates", gates, checked_size("gates", {shape.L, shape.T, shape.B, cell.preactivations, shape.H}));
  return result;
}

inline StackShape stack_shape(const Sizes& sizes) {
  if (sizes.size() != 5)
    throw std::invalid_argument("sizes: expected (T, B, I, H, L), got " + std::to_string(sizes.size()) + " numbers");
  checked_size("sizes", {sizes[0]});  // so that T + 1 cannot overflow
  checked_size("sizes", {sizes[0] + 1, sizes[1], sizes[2], sizes[3], sizes[4]});
  if (sizes[4] < 1) throw std::invalid_argument("sizes: expected at least one layer, got " + std::to_string(sizes[4]));
  StackShape shape;
  shape.T = sizes[0];
  shape.B = sizes[1];
  shape.I = sizes[2];
  shape.H = sizes[3];
  shape.L = sizes[4];
  return shape;
}

template <class P>
std::vector<LayerParameters<P>> layer_parameters(const char* name, const CellShape& cell, const StackShape& shape,
                                                 const LayerBuffers& buffers) {
  if (Index(buffers.size()) != shape.L)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(shape.L) + " layers, got " +
                                std::to_string(buffers.size()));
  std::vector<LayerParameters<P>> layers;
  for (Index l = 0; l < shape.L; ++l) {
    const std::vector<OptionalBuffer>& layer = buffers[std::size_t(l)];
    if (layer.size() != 5)
      throw std::invalid_argument(std::string(name) + ": expected 5 buffers per layer, got " +
                                  std::to_string(layer.size()));
    LayerParameters<P> p;
    const std::int64_t input_rows = checked_size(name, {cell.input_blocks, shape.H});
    const std::int64_t recurrent_rows = checked_size(name, {cell.recurrent_blocks, shape.H});
    p.weight_ih = data<P>("weight_ih", layer[0], checked_size(name, {input_rows, shape.input_size(l)}));
    p.weight_hh = data<P>("weight_hh", layer[1], checked_size(name, {recurrent_rows, shape.H}));
    p.bias_ih = data<P>("bias_ih", layer[2], input_rows);
    p.bias_hh = data<P>("bias_hh", layer[3], recurrent_rows);
    p.unit = data<P>("unit", layer[4], checked_size(name, {cell.unit_parameters, shape.H}));
    layers.push_back(p);
  }
  return layers;
}

// Refuses layers without the weights that the cell multiplies with.
template <class P>
void require_weights(const CellShape& cell, const std::vector<LayerParameters<P>>& layers) {
  for (const LayerParameters<P>& layer : layers)
    if (!layer.weight_ih || (cell.recurrent_blocks > 0 && !layer.weight_hh) ||
        (cell.unit_parameters > 0 && !layer.unit))
      throw std::invalid_argument("weights: expected weight_ih, weight_hh and unit of every layer, got none");
}

}  // namespace lsc::python
