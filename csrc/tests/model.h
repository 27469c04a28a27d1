// A small random stack with its memory, for tests that run it forward and back. Whatever the library writes is NaN
// before.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "algorithms/forward.h"
#include "algorithms/stack.h"
#include "check.h"
#include "lsc/philox.h"

namespace lsc::test {

template <class T>
inline constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

template <class T>
std::vector<T> nan_filled(Index size) {
  return std::vector<T>(std::size_t(size), kNan<T>);
}

template <class T>
std::vector<T> normal(std::uint64_t seed, Index size) {
  std::vector<T> values(static_cast<std::size_t>(size));
  fill_normal(seed, 0, 0, size, values.data());
  return values;
}

template <class T>
Backend<T> backend(int threads = 1, Poll poll = {}) {
  return {cpu::linear_kernels<T>(), threads, std::move(poll)};
}

// Cells whose derivatives are those of the step itself. A spike's derivative is a surrogate, which no difference shows:
// the Python tests hold those cells to torch's autograd with the same surrogate.
inline std::vector<std::string> smooth_cells() {
  std::vector<std::string> names;
  for (const std::string& name : cpu::cell_names())
    if (!cpu::cell_shape(name).derived) names.push_back(name);
  return names;
}

// The arrays of one layer, in the order of LayerParameters.
inline constexpr int kArrays = 5;

template <class T>
struct LayerMemory {
  std::vector<T> array[kArrays];

  template <class P = const T>
  LayerParameters<P> view() {
    return {array[0].data(), array[1].data(), array[2].data(), array[3].data(), array[4].data()};
  }
};

template <class T>
struct Model {
  CellShape cell;
  const CellKernels<T>& kernels;
  StackShape shape;
  std::vector<LayerMemory<T>> layers;
  std::vector<T> x, states, gates;

  Model(const std::string& name, const StackShape& size)
      : cell(cpu::cell_shape(name)), kernels(cpu::cell_kernels<T>(name)), shape(size) {
    std::uint64_t seed = 1;
    for (Index l = 0; l < shape.L; ++l) {
      LayerMemory<T> layer;
      for (int which = 0; which < kArrays; ++which) {
        layer.array[which] = normal<T>(seed++, sizes(l)[std::size_t(which)]);
        for (T& value : layer.array[which]) value *= T(0.5);
      }
      layers.push_back(layer);
    }
    x = normal<T>(seed++, shape.T * shape.B * shape.I);
    states = nan_filled<T>(shape.L * (shape.T + 1) * cell.states * shape.B * shape.H);
    gates = nan_filled<T>(shape.L * shape.T * shape.B * cell.preactivations * shape.H);
    const Index initial = cell.states * shape.B * shape.H;
    for (Index l = 0; l < shape.L; ++l) {
      const std::vector<T> values = normal<T>(seed++, initial);
      std::copy(values.begin(), values.end(), trajectory().state(l, 0, 0));
    }
  }

  // Elements of weight_ih, weight_hh, bias_ih, bias_hh, unit.
  std::vector<Index> sizes(Index l) const {
    const Index input = cell.input_blocks * shape.H, recurrent = cell.recurrent_blocks * shape.H;
    return {input * shape.input_size(l), recurrent * shape.H, input, recurrent, cell.unit_parameters * shape.H};
  }

  Trajectory<T> trajectory() {
    return {shape, cell.states, cell.preactivations, x.data(), states.data(), gates.data()};
  }

  std::vector<LayerParameters<const T>> parameters() {
    std::vector<LayerParameters<const T>> views;
    for (LayerMemory<T>& layer : layers) views.push_back(layer.view());
    return views;
  }

  void run(int threads = 1) { forward(backend<T>(threads), cell, kernels, parameters(), trajectory()); }
};

// d value() / d each element of `argument`, by central differences.
inline std::vector<double> central_differences(std::vector<double>& argument, const std::function<double()>& value) {
  constexpr double kStep = 1e-6;
  std::vector<double> slopes;
  for (double& element : argument) {
    const double kept = element;
    element = kept + kStep;
    const double above = value();
    element = kept - kStep;
    const double below = value();
    element = kept;
    slopes.push_back((above - below) / (2 * kStep));
  }
  return slopes;
}

inline void check_near(const std::vector<double>& value, const std::vector<double>& expected, double tol,
                       const std::string& what) {
  report(value.size() == expected.size(), what.c_str(), 0, "sizes differ");
  for (std::size_t i = 0; i < value.size() && i < expected.size(); ++i)
    report_near(value[i], expected[i], tol, what.c_str(), int(i), "element");
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace lsc::test
