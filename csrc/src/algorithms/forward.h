// The forward pass of a stack: pre-activations by matrix products, then the cell's step, for every t and layer.
// Next stop: include/lsc/cells.
#pragma once

#include "algorithms/packed_matrix.h"
#include "algorithms/stack.h"

namespace lsc {

// gates rows [rows, P, H] <- biases + W_ih input + W_hh h, each block summed where the cell's feeds say.
// Rows of input and of h are input_row and h_row apart.
template <class T>
void pre_activations(const CellShape& cell, Index rows, Index H, const LayerParameters<const T>& layer,
                     const BlockWeights<T>& input_weights, const BlockWeights<T>& recurrent_weights, const T* input,
                     Index input_row, const T* h, Index h_row, T* gates) {
  const Index P = cell.preactivations, row_size = P * H;
  for (Index k = 0; k < P; ++k) {
    const Feed feed = cell.feeds[std::size_t(k)];
    const T* bias_ih = layer.bias_ih && feed.input != kNone ? layer.bias_ih + feed.input * H : nullptr;
    const T* bias_hh = layer.bias_hh && feed.recurrent != kNone ? layer.bias_hh + feed.recurrent * H : nullptr;
    for (Index row = 0; row < rows; ++row) {
      T* gate = gates + row * row_size + k * H;
      for (Index u = 0; u < H; ++u) gate[u] = (bias_ih ? bias_ih[u] : T(0)) + (bias_hh ? bias_hh[u] : T(0));
    }
    T* target = gates + k * H;
    if (feed.input != kNone)
      input_weights.forward[std::size_t(feed.input)].multiply(rows, input, input_row, 1, target, row_size, true);
    if (feed.recurrent != kNone)
      recurrent_weights.forward[std::size_t(feed.recurrent)].multiply(rows, h, h_row, 1, target, row_size, true);
  }
}

// Fills trajectory.states from slot 0 on, and trajectory.gates where that is not null. Batch rows are independent, so
// workers split the batch and never wait for each other.
template <class T>
void forward(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
             const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory) {
  const StackShape& shape = trajectory.shape;
  const Index H = shape.H, row_size = cell.preactivations * H;
  std::vector<BlockWeights<T>> input_weights, recurrent_weights;
  for (Index l = 0; l < shape.L; ++l) {
    const LayerParameters<const T>& layer = layers[std::size_t(l)];
    input_weights.emplace_back(backend.linear, cell.input_blocks, H, shape.input_size(l), layer.weight_ih, false);
    recurrent_weights.emplace_back(backend.linear, cell.recurrent_blocks, H, H, layer.weight_hh, false);
  }
  const double operations = 2.0 * double(shape.T * shape.B * row_size) * double(shape.I + (2 * shape.L - 1) * H);
  parallel_ranges(useful_threads(backend.threads, operations), shape.B, backend.poll,
                  [&](Index begin, Index end, const Poll& poll) {
                    const Index rows = end - begin;
                    std::vector<T> scratch(trajectory.gates ? 0 : std::size_t(rows * row_size));
                    for (Index l = 0; l < shape.L; ++l)
                      for (Index t = 0; t < shape.T; ++t) {
                        if (poll()) return;
                        T* gates = trajectory.gates ? trajectory.gate(l, t, begin) : scratch.data();
                        const T* s = trajectory.state(l, t, begin);
                        T* next = trajectory.state(l, t + 1, begin);
                        pre_activations(cell, rows, H, layers[std::size_t(l)], input_weights[std::size_t(l)],
                                        recurrent_weights[std::size_t(l)], trajectory.input(l, t, begin),
                                        shape.input_size(l), s, H, gates);
                        for (Index row = 0; row < rows; ++row)
                          kernels.step(H, H, gates + row * row_size, s + row * H, trajectory.state_stride(),
                                       layers[std::size_t(l)].unit, next + row * H, trajectory.state_stride());
                      }
                  });
}

}  // namespace lsc
