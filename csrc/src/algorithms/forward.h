// The forward pass of a stack: pre-activations by matrix products, then the cell's step, for every t and layer.
// Next stop: include/lsc/cells.
#pragma once

#include "algorithms/packed_matrix.h"
#include "algorithms/stack.h"

namespace lsc {

// How the workers of a pass share it out. Large batches are split by rows, and no worker waits for another. Of small
// ones, either all work on the units of one step and meet after each, where a step is long enough; or each worker takes
// whole layers, some time steps behind the layer below.
enum class Split { batch, layers, units };

// A step whose recurrent weights have fewer elements is over before the workers have met.
inline constexpr Index kUnitsWorthMeeting = 40000;
// With so many, a layer's weights no longer stay in one core's cache, and splitting units beats splitting layers.
inline constexpr Index kUnitsBeforeLayers = 100000;
// Rows from which a product runs at full speed.
inline constexpr Index kFullRows = 6;
// Rows that one product of a chunk of time steps should have.
inline constexpr Index kChunkRows = 48;

inline Split split_of(const CellShape& cell, const StackShape& shape, int threads, bool layers_overlap) {
  if (threads == 1 || shape.B >= kFullRows * threads) return Split::batch;
  const Index weights = cell.recurrent_blocks * shape.H * shape.H;
  if (layers_overlap && shape.L > 1 && weights < kUnitsBeforeLayers) return Split::layers;
  return weights >= kUnitsWorthMeeting ? Split::units : Split::batch;
}

template <class T>
class ForwardPass {
 public:
  // Fills trajectory.states from slot 0 on, and trajectory.gates where that is not null.
  ForwardPass(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
              const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory)
      : backend_(backend),
        cell_(cell),
        kernels_(kernels),
        layers_(layers),
        trajectory_(trajectory),
        shape_(trajectory.shape),
        H_(shape_.H),
        row_size_(cell.preactivations * shape_.H),
        biases_(shape_.L * row_size_),
        done_(std::size_t(shape_.L)) {
    for (Index l = 0; l < shape_.L; ++l) {
      const LayerParameters<const T>& layer = layers_[std::size_t(l)];
      input_weights_.emplace_back(backend.linear, cell.input_blocks, H_, shape_.input_size(l), layer.weight_ih, false);
      recurrent_weights_.emplace_back(backend.linear, cell.recurrent_blocks, H_, H_, layer.weight_hh, false);
      for (Index k = 0; k < cell.preactivations; ++k) {
        const Feed feed = cell.feeds[std::size_t(k)];
        for (Index u = 0; u < H_; ++u)
          biases_.data()[l * row_size_ + k * H_ + u] =
              (layer.bias_ih && feed.input != kNone ? layer.bias_ih[feed.input * H_ + u] : T(0)) +
              (layer.bias_hh && feed.recurrent != kNone ? layer.bias_hh[feed.recurrent * H_ + u] : T(0));
      }
    }
  }

  void run() {
    const double operations =
        2.0 * double(shape_.T * shape_.B * row_size_) * double(shape_.I + (2 * shape_.L - 1) * H_);
    run_team(useful_threads(backend_.threads, operations), backend_.poll, [&](Team& team) {
      for (Index l = 0; l < shape_.L; ++l) {
        input_weights_[std::size_t(l)].pack(team, backend_.linear.panel_width);
        recurrent_weights_[std::size_t(l)].pack(team, backend_.linear.panel_width);
      }
      team.meet();
      if (shape_.B == 0 || shape_.T == 0) return;
      const Split split = split_of(cell_, shape_, team.size(), true);
      const Range all_rows{0, shape_.B}, all_units{0, H_};
      if (split == Split::layers)
        run_layers(team);
      else if (split == Split::units)
        run_rows(team, all_rows, team.share(H_, backend_.linear.panel_width), true);
      else if (const Range rows = team.share(shape_.B); rows.size() > 0)
        run_rows(team, rows, all_units, false);
    });
  }

 private:
  // What a worker needs to take `steps` time steps of `rows` at once.
  struct Scratch {
    Index steps;
    Memory<T> fed, gates;
  };
  Scratch scratch(Index rows, Index steps) const {
    const Index count = rows * steps, widest = shape_.L > 1 ? std::max(shape_.I, H_) : shape_.I;
    return {steps, Memory<T>(count * widest), Memory<T>(trajectory_.gates ? 0 : count * row_size_)};
  }

  void run_rows(Team& team, Range rows, Range units, bool meet) {
    // Rows of one batch lie side by side for all time steps only where they are the whole batch.
    const Scratch own = scratch(rows.size(), rows.size() == shape_.B ? chunk(shape_.T) : 1);
    for (Index l = 0; l < shape_.L; ++l)
      for (Index t = 0; t < shape_.T; t += own.steps)
        advance(team, l, {t, std::min(t + own.steps, shape_.T)}, rows, units, own, meet);
  }

  // Chunks of time steps, in the order in which the layers can do them.
  void run_layers(Team& team) {
    const Scratch own = scratch(shape_.B, chunk((shape_.T + 7) / 8));
    const Index chunks = (shape_.T + own.steps - 1) / own.steps;
    for (Index turn = next_++, wave = 0, first = 0;; turn = next_++) {
      // Wave w holds chunk w - l of every layer l that has it.
      Index low = 0, count = 0;
      for (;; ++wave, first += count) {
        if (wave >= chunks + shape_.L - 1) return;
        low = std::max<Index>(0, wave - chunks + 1);
        count = std::min(wave, shape_.L - 1) - low + 1;
        if (turn < first + count) break;
      }
      const Index l = low + turn - first, c = wave - l;
      if (l > 0) team.wait(done_[std::size_t(l - 1)], c + 1);
      team.wait(done_[std::size_t(l)], c);
      advance(team, l, {c * own.steps, std::min((c + 1) * own.steps, shape_.T)}, {0, shape_.B}, {0, H_}, own, false);
      done_[std::size_t(l)].store(c + 1, std::memory_order_release);
    }
  }

  Index chunk(Index most) const { return std::max<Index>(1, std::min(most, kChunkRows / shape_.B)); }

  void advance(Team& team, Index l, Range steps, Range rows, Range units, const Scratch& own, bool meet) {
    const LayerParameters<const T>& layer = layers_[std::size_t(l)];
    const Index n = shape_.input_size(l), count = rows.size(), stride = trajectory_.state_stride();
    T* gates = trajectory_.gates ? trajectory_.gate(l, steps.begin, rows.begin) : own.gates.data();
    const T* fed = trajectory_.input(l, steps.begin, rows.begin);
    if (l > 0 && cell_.states > 1 && steps.size() > 1) {
      for (Index t = steps.begin; t < steps.end; ++t)
        std::copy_n(trajectory_.input(l, t, rows.begin), count * n, own.fed.data() + (t - steps.begin) * count * n);
      fed = own.fed.data();
    }
    const T* bias = biases_.data() + l * row_size_;
    for (Index k = 0; k < cell_.preactivations; ++k)
      if (const int block = cell_.feeds[std::size_t(k)].input; block != kNone)
        input_weights_[std::size_t(l)][block].multiply(steps.size() * count, fed, n, 1, bias + k * H_, 0,
                                                       gates + k * H_, row_size_, units);
    for (Index t = steps.begin; t < steps.end; ++t, gates += count * row_size_) {
      team.check();
      const T* s = trajectory_.state(l, t, rows.begin);
      T* next = trajectory_.state(l, t + 1, rows.begin);
      for (Index k = 0; k < cell_.preactivations; ++k) {
        const Feed feed = cell_.feeds[std::size_t(k)];
        if (feed.recurrent == kNone) continue;
        const bool begun = feed.input != kNone;
        recurrent_weights_[std::size_t(l)][feed.recurrent].multiply(
            count, s, H_, 1, (begun ? gates : bias) + k * H_, begun ? row_size_ : 0, gates + k * H_, row_size_, units);
      }
      for (Index row = 0, u = units.begin; row < count; ++row, u += H_)
        kernels_.step(units.size(), H_, gates + row * row_size_ + units.begin, s + u, stride,
                      layer.unit ? layer.unit + units.begin : nullptr, next + u, stride);
      if (meet) team.meet();
    }
  }

  const Backend<T>& backend_;
  const CellShape& cell_;
  const CellKernels<T>& kernels_;
  const std::vector<LayerParameters<const T>>& layers_;
  const Trajectory<T>& trajectory_;
  const StackShape& shape_;
  Index H_, row_size_;
  std::vector<PackedBlocks<T>> input_weights_, recurrent_weights_;
  Memory<T> biases_;                      // [L, P, H], what each pre-activation starts at
  std::atomic<Index> next_{0};            // which chunk comes next
  std::vector<std::atomic<Index>> done_;  // how many chunks of each layer are done
};

template <class T>
void forward(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
             const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory) {
  ForwardPass<T>(backend, cell, kernels, layers, trajectory).run();
}

}  // namespace lsc
