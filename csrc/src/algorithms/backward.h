// The backward pass: the transposed local Jacobian of every step, from the last to the first, top layer first.
#pragma once

#include <algorithm>

#include "algorithms/packed_matrix.h"
#include "algorithms/stack.h"

namespace lsc {

// weight_gradient [blocks * H, n] and bias_gradient [blocks * H] (either may be null) of the blocks that `block_of`
// names, from gate_gradients [rows, P, H] and what the product was fed, fed [rows, n]. Overwrites, or adds where
// `accumulate`.
template <class T, class BlockOf>
void weight_gradients(const Backend<T>& backend, const CellShape& cell, Index rows, Index H, Index n,
                      const T* gate_gradients, const T* fed, BlockOf block_of, bool accumulate, T* weight_gradient,
                      T* bias_gradient) {
  const Index row_size = cell.preactivations * H;
  const PackedMatrix<T> packed(backend.linear, rows, n, fed, n, 1);
  const int threads = useful_threads(backend.threads, 2.0 * double(rows * n) * double(row_size));
  parallel_ranges(threads, H, backend.poll, [&](Index begin, Index end, const Poll&) {
    for (int k = 0; k < cell.preactivations; ++k) {
      const int block = block_of(cell.feeds[std::size_t(k)]);
      if (block == kNone) continue;
      const T* source = gate_gradients + k * H + begin;
      if (weight_gradient)
        packed.multiply(end - begin, source, 1, row_size, weight_gradient + (block * H + begin) * n, n, accumulate);
      if (bias_gradient) {
        T* target = bias_gradient + block * H + begin;
        if (!accumulate) std::fill(target, target + (end - begin), T(0));
        for (Index row = 0; row < rows; ++row)
          for (Index u = 0; u < end - begin; ++u) target[u] += source[row * row_size + u];
      }
    }
  });
}

// target [n] <- the sum of the rows of source [rows, n], or += where `accumulate`.
template <class T>
void sum_rows(const Backend<T>& backend, Index rows, Index n, const T* source, bool accumulate, T* target) {
  parallel_ranges(useful_threads(backend.threads, double(rows * n)), n, backend.poll,
                  [&](Index begin, Index end, const Poll&) {
                    if (!accumulate) std::fill(target + begin, target + end, T(0));
                    for (Index row = 0; row < rows; ++row)
                      for (Index u = begin; u < end; ++u) target[u] += source[row * n + u];
                  });
}

// Rows of `source(t, b)`, t-major, copied side by side.
template <class T, class Source>
std::vector<T> stacked_rows(const StackShape& shape, Index n, Source source) {
  std::vector<T> rows(std::size_t(shape.T * shape.B * n));
  T* target = rows.data();
  for (Index t = 0; t < shape.T; ++t)
    for (Index b = 0; b < shape.B; ++b, target += n) std::copy_n(source(t, b), n, target);
  return rows;
}

// state_gradients [L, T + 1, S, B, H] holds d loss / d states as the caller knows it and leaves complete, so that slot
// 0 is the gradient of the initial states. x_gradient [T, B, I]; gate_gradients [T, B, P, H] is scratch.
template <class T>
void backward(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
              const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, T* state_gradients,
              T* x_gradient, const std::vector<LayerParameters<T>>& gradients) {
  const StackShape& shape = trajectory.shape;
  const Index H = shape.H, P = cell.preactivations, Q = cell.unit_parameters;
  const Index row_size = P * H;
  const Index stride = trajectory.state_stride();
  Trajectory<T> flowing = trajectory;  // the same addresses, in the gradient's memory
  flowing.states = state_gradients;
  std::vector<T> gate_gradients(std::size_t(shape.T * shape.B * row_size));
  std::vector<T> unit_gradients(std::size_t(shape.T * shape.B * Q * H));

  for (Index l = shape.L - 1; l >= 0; --l) {
    const LayerParameters<const T>& layer = layers[std::size_t(l)];
    const LayerParameters<T>& gradient = gradients[std::size_t(l)];
    const Index n = shape.input_size(l);
    const BlockWeights<T> input_weights(backend.linear, cell.input_blocks, H, n, layer.weight_ih, true);
    const BlockWeights<T> recurrent_weights(backend.linear, cell.recurrent_blocks, H, H, layer.weight_hh, true);
    const int threads = useful_threads(backend.threads, 2.0 * double(shape.T * shape.B * row_size) * double(n + H));
    parallel_ranges(threads, shape.B, backend.poll, [&](Index begin, Index end, const Poll& poll) {
      const Index rows = end - begin;
      for (Index t = shape.T - 1; t >= 0; --t) {
        if (poll()) return;
        T* dp = gate_gradients.data() + (t * shape.B + begin) * row_size;
        T* below = l > 0 ? flowing.state(l - 1, t + 1, begin) : x_gradient + (t * shape.B + begin) * n;
        T* before = flowing.state(l, t, begin);
        const T* after = flowing.state(l, t + 1, begin);
        T* dw = unit_gradients.data() + (t * shape.B + begin) * Q * H;
        for (Index row = 0; row < rows; ++row)
          kernels.pull(H, H, trajectory.gate(l, t, begin + row), trajectory.state(l, t, begin + row), stride,
                       layer.unit, after + row * H, stride, dp + row * row_size, before + row * H, stride,
                       dw + row * Q * H);
        if (l == 0) std::fill(below, below + rows * n, T(0));
        for (Index k = 0; k < P; ++k) {
          const Feed feed = cell.feeds[std::size_t(k)];
          if (feed.recurrent != kNone)
            recurrent_weights.transposed[std::size_t(feed.recurrent)].multiply(rows, dp + k * H, row_size, 1, before, H,
                                                                               true);
          if (feed.input != kNone)
            input_weights.transposed[std::size_t(feed.input)].multiply(rows, dp + k * H, row_size, 1, below, n, true);
        }
      }
    });
    const Index rows = shape.T * shape.B;
    const std::vector<T> inputs =
        stacked_rows<T>(shape, n, [&](Index t, Index b) { return trajectory.input(l, t, b); });
    weight_gradients(
        backend, cell, rows, H, n, gate_gradients.data(), inputs.data(), [](const Feed& feed) { return feed.input; },
        false, gradient.weight_ih, gradient.bias_ih);
    const std::vector<T> h = stacked_rows<T>(shape, H, [&](Index t, Index b) { return trajectory.state(l, t, b); });
    weight_gradients(
        backend, cell, rows, H, H, gate_gradients.data(), h.data(), [](const Feed& feed) { return feed.recurrent; },
        false, gradient.weight_hh, gradient.bias_hh);
    if (gradient.unit) sum_rows(backend, rows, Q * H, unit_gradients.data(), false, gradient.unit);
  }
}

}  // namespace lsc
