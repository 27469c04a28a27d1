// The backward pass: the transposed local Jacobian of every step, from the last to the first, top layer first.
#pragma once

#include "algorithms/forward.h"
#include "algorithms/weight_gradients.h"

namespace lsc {

template <class T>
class BackwardPass {
 public:
  // state_gradients [L, T + 1, S, B, H] holds d loss / d states as the caller knows it and leaves complete, so that
  // slot 0 is the gradient of the initial states. x_gradient [T, B, I].
  BackwardPass(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
               const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, T* state_gradients,
               T* x_gradient, const std::vector<LayerParameters<T>>& gradients)
      : backend_(backend),
        cell_(cell),
        kernels_(kernels),
        layers_(layers),
        trajectory_(trajectory),
        flowing_(trajectory),
        x_gradient_(x_gradient),
        gradients_(gradients),
        shape_(trajectory.shape),
        H_(shape_.H),
        row_size_(cell.preactivations * H_),
        unit_size_(cell.unit_parameters * H_),
        rows_(shape_.T * shape_.B),
        gate_gradients_(rows_ * row_size_),
        unit_gradients_(rows_ * unit_size_) {
    flowing_.states = state_gradients;  // the same addresses, in the gradient's memory
  }

  void run() {
    const double operations = 4.0 * double(rows_ * row_size_) * double(shape_.I + (2 * shape_.L - 1) * H_);
    run_team(useful_threads(backend_.threads, operations), backend_.poll, [&](Team& team) {
      for (Index l = shape_.L - 1; l >= 0; --l) layer(team, l);
    });
  }

 private:
  // What the team works with at one layer; worker 0 makes it, all fill it.
  struct Layer {
    PackedBlocks<T> input_weights, recurrent_weights;
    Memory<T> fed_rows, h_rows;  // where they do not lie side by side already
    PackedMatrix<T> fed, h;
  };

  void layer(Team& team, Index l) {
    const LayerParameters<const T>& weights = layers_[std::size_t(l)];
    const LayerParameters<T>& gradient = gradients_[std::size_t(l)];
    const Index n = shape_.input_size(l), width = backend_.linear.panel_width;
    const bool scattered = cell_.states > 1;
    if (team.number() == 0) {
      const LinearKernels<T>& linear = backend_.linear;
      layer_.reset(new Layer{{linear, cell_.input_blocks, H_, n, weights.weight_ih, true},
                             {linear, cell_.recurrent_blocks, H_, H_, weights.weight_hh, true},
                             Memory<T>(scattered && l > 0 ? rows_ * n : 0),
                             Memory<T>(scattered ? rows_ * H_ : 0),
                             {linear, rows_, n},
                             {linear, rows_, H_}});
    }
    team.meet();
    Layer& own = *layer_;
    own.input_weights.pack(team, width);
    own.recurrent_weights.pack(team, width);
    const T* fed = l == 0 ? trajectory_.x : side_by_side(team, l - 1, 1, own.fed_rows);
    const T* h = side_by_side(team, l, 0, own.h_rows);
    team.meet();
    own.fed.pack(fed, n, 1, team.share(n, width));
    own.h.pack(h, H_, 1, team.share(H_, width));

    const Split split = split_of(cell_, shape_, team.size(), false);
    if (split == Split::units)
      sweep(team, l, {0, shape_.B}, team.share(H_, width), true);
    else if (const Range rows = team.share(shape_.B); rows.size() > 0)
      sweep(team, l, rows, {0, H_}, false);
    team.meet();

    input_gradient(team, l);
    weight_gradients(
        team, cell_, rows_, H_, gate_gradients_.data(), own.fed, [](const Feed& feed) { return feed.input; }, false,
        gradient.weight_ih, gradient.bias_ih);
    weight_gradients(
        team, cell_, rows_, H_, gate_gradients_.data(), own.h, [](const Feed& feed) { return feed.recurrent; }, false,
        gradient.weight_hh, gradient.bias_hh);
    if (gradient.unit) sum_rows(team, rows_, unit_size_, unit_gradients_.data(), false, gradient.unit);
    team.meet();
  }

  // State 0 of layer l at (t + shift, b), rows t-major. This worker copies its share where that is needed.
  const T* side_by_side(const Team& team, Index l, Index shift, const Memory<T>& copies) const {
    if (cell_.states == 1) return trajectory_.state(l, shift, 0);
    const Range steps = team.share(shape_.T);
    for (Index t = steps.begin; t < steps.end; ++t)
      std::copy_n(trajectory_.state(l, t + shift, 0), shape_.B * H_, copies.data() + t * shape_.B * H_);
    return copies.data();
  }

  // gate_gradients, unit_gradients and the flow along time, for some rows of the batch or some units.
  void sweep(Team& team, Index l, Range rows, Range units, bool meet) {
    const Index count = rows.size(), stride = trajectory_.state_stride();
    const T* unit = layers_[std::size_t(l)].unit;
    for (Index t = shape_.T - 1; t >= 0; --t) {
      team.check();
      T* dp = gate_gradients_.data() + (t * shape_.B + rows.begin) * row_size_;
      T* dw = unit_gradients_.data() + (t * shape_.B + rows.begin) * unit_size_;
      const T* gates = trajectory_.gate(l, t, rows.begin);
      const T* s = trajectory_.state(l, t, rows.begin);
      T* before = flowing_.state(l, t, rows.begin);
      const T* after = flowing_.state(l, t + 1, rows.begin);
      for (Index row = 0, u = units.begin; row < count; ++row, u += H_)
        kernels_.pull(units.size(), H_, gates + row * row_size_ + units.begin, s + u, stride,
                      unit ? unit + units.begin : nullptr, after + u, stride, dp + row * row_size_ + units.begin,
                      before + u, stride, dw + row * unit_size_ + units.begin);
      if (meet) team.meet();
      for (Index k = 0; k < cell_.preactivations; ++k)
        if (const int block = cell_.feeds[std::size_t(k)].recurrent; block != kNone)
          layer_->recurrent_weights[block].multiply(count, dp + k * H_, row_size_, 1, before, H_, before, H_, units);
    }
  }

  // What the layer was fed: x_gradient, or an addition to the flow of the layer below.
  void input_gradient(Team& team, Index l) {
    const Index n = shape_.input_size(l);
    const Range rows = team.share(rows_, kChunkRows);
    const Memory<T> scratch(l > 0 && cell_.states > 1 ? kChunkRows * n : 0);
    for (Index begin = rows.begin; begin < rows.end; begin += kChunkRows) {
      team.check();
      const Index count = std::min(kChunkRows, rows.end - begin);
      T* target = l == 0              ? x_gradient_ + begin * n
                  : cell_.states == 1 ? flowing_.state(l - 1, 1, 0) + begin * n
                                      : scratch.data();
      if (l == 0 || cell_.states > 1) std::fill(target, target + count * n, T(0));
      for (Index k = 0; k < cell_.preactivations; ++k)
        if (const int block = cell_.feeds[std::size_t(k)].input; block != kNone)
          layer_->input_weights[block].multiply(count, gate_gradients_.data() + begin * row_size_ + k * H_, row_size_,
                                                1, target, n, true);
      if (target != scratch.data()) continue;
      for (Index row = 0; row < count; ++row) {
        T* below = flowing_.state(l - 1, (begin + row) / shape_.B + 1, (begin + row) % shape_.B);
        for (Index u = 0; u < n; ++u) below[u] += target[row * n + u];
      }
    }
  }

  const Backend<T>& backend_;
  const CellShape& cell_;
  const CellKernels<T>& kernels_;
  const std::vector<LayerParameters<const T>>& layers_;
  const Trajectory<T>& trajectory_;
  Trajectory<T> flowing_;
  T* x_gradient_;
  const std::vector<LayerParameters<T>>& gradients_;
  const StackShape& shape_;
  Index H_, row_size_, unit_size_, rows_;
  Memory<T> gate_gradients_;  // [T, B, P, H]
  Memory<T> unit_gradients_;  // [T, B, Q, H]
  std::unique_ptr<Layer> layer_;
};

template <class T>
void backward(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
              const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, T* state_gradients,
              T* x_gradient, const std::vector<LayerParameters<T>>& gradients) {
  BackwardPass<T>(backend, cell, kernels, layers, trajectory, state_gradients, x_gradient, gradients).run();
}

}  // namespace lsc
