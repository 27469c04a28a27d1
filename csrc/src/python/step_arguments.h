// What Python hands over for the operators of a layer's step, on any device.
#pragma once

#include "python/buffers.h"

namespace lsc::python {

inline Direction direction_named(const std::string& name) {
  if (name == "time") return Direction::time;
  if (name == "depth") return Direction::depth;
  if (name == "diagonal") return Direction::diagonal;
  if (name == "input") return Direction::input;
  throw std::invalid_argument("direction: expected time, depth, diagonal or input, got '" + name + "'");
}

// One layer of a trajectory and N points (t, b) of it.
template <class T>
struct StepArguments {
  CellShape cell;
  StackShape shape;
  std::vector<LayerParameters<const T>> layers;
  Trajectory<T> trajectory;
  Index layer;
  Direction direction;
  const std::int64_t* t;
  const std::int64_t* b;
  Index count;
};

template <class T>
StepArguments<T> step_arguments(const std::string& cell_name, const Sizes& sizes, const Buffer& x,
                                const LayerBuffers& weights, const Buffer& states, const Buffer& gates, Index layer,
                                const std::string& direction, const Buffer& t, const Buffer& b, Index count) {
  StepArguments<T> result;
  result.cell = cpu::cell_shape(cell_name);
  result.shape = stack_shape(sizes);
  result.direction = direction_named(direction);
  result.layers = layer_parameters<const T>("weights", result.cell, result.shape, weights);
  require_weights(result.cell, result.layers);
  result.trajectory = make_trajectory<T>(result.cell, result.shape, x, states, gates);
  const Index lowest = result.direction == Direction::diagonal ? 1 : 0;
  if (layer < lowest || layer >= result.shape.L)
    throw std::invalid_argument("layer: expected " + std::to_string(lowest) + " .. " +
                                std::to_string(result.shape.L - 1) + ", got " + std::to_string(layer));
  result.layer = layer;
  result.t = data<const std::int64_t>("t", t, checked_size("t", {count}));
  result.b = data<const std::int64_t>("b", b, count);
  result.count = count;
  return result;
}

// Where a bilinear form of `count` pairs with J of `layer` leaves its gradients; a null pointer means that one is not
// wanted. `below` is of the layer below, for the diagonal alone.
template <class T>
struct BilinearGradients {
  LayerParameters<T> own, below;
  T *states, *input, *states_below, *input_below;  // per pair: [count, S, H] and [count, input size]
};

template <class T>
BilinearGradients<T> bilinear_gradients(const CellShape& cell, const StackShape& shape, Index layer, bool diagonal,
                                        Index count, const std::vector<OptionalBuffer>& gradient,
                                        const std::vector<OptionalBuffer>& gradient_below, const OptionalBuffer& states,
                                        const OptionalBuffer& input, const OptionalBuffer& states_below,
                                        const OptionalBuffer& input_below) {
  const auto of_layer = [&](const std::vector<OptionalBuffer>& buffers, Index l) {
    StackShape one = shape;
    one.I = shape.input_size(l);
    one.L = 1;
    return layer_parameters<T>("gradient", cell, one, {buffers})[0];
  };
  const std::int64_t state_size = checked_size("states", {count, cell.states, shape.H});
  BilinearGradients<T> result;
  result.own = of_layer(gradient, layer);
  if (diagonal) result.below = of_layer(gradient_below, layer - 1);
  result.states = data<T>("states", states, state_size);
  result.input = data<T>("input", input, checked_size("input", {count, shape.input_size(layer)}));
  result.states_below = data<T>("states_below", states_below, state_size);
  result.input_below = data<T>("input_below", input_below,
                               checked_size("input_below", {count, layer > 0 ? shape.input_size(layer - 1) : 0}));
  return result;
}

}  // namespace lsc::python
