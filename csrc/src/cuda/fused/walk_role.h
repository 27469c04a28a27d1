// Blocks that walk: each computes its units of its layer step after step, a wavefront over layers and time.
//
// The state that a layer hands up and back is its own flag: a block waits for the numbers it multiplies with, and for
// nothing else. `walked` and `fed` count the steps of a slice for those who read whatever else a step leaves behind.
#pragma once

#include "cuda/cell_launches.h"
#include "cuda/fused/stack.h"
#include "cuda/ordering.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// Of every part, layer and slice: how many steps are done, and of how many what the input gives is in the gates.
struct WalkCounters {
  unsigned *walked, *fed;

  LSC_HD static Index count(const Sharing& sharing, Index layers) { return layers * sharing.parts * sharing.slices; }
};

// Counters are published after so many steps, since a fence takes longer than the way of a number.
inline constexpr Index kStepsAtOnce = 8;

LSC_DEVICE Index counter_of(const Sharing& sharing, Index layers, Index part, Index layer, int slice) {
  return (part * layers + layer) * sharing.slices + slice;
}

// All threads of a warp: all slices of a layer have done `steps` steps for sequence b.
template <class T>
LSC_DEVICE void await_layer(const FusedStack<T>& stack, const WalkCounters& counters, Index layer, Index steps,
                            Index b) {
  const Index first = counter_of(stack.sharing, stack.shape.L, b / stack.sharing.part_rows, layer, 0);
  for (int i = lane(); i < stack.sharing.slices; i += 32) await(counters.walked + first + i, unsigned(steps));
  warp_barrier();
}

// All threads of the grid, before a grid barrier: nothing is there yet.
template <class T>
LSC_DEVICE void prepare_walk(const FusedStack<T>& stack, const WalkCounters& counters) {
  const Index first = Index(block()) * threads() + thread(), all = Index(blocks()) * threads();
  const Index B = stack.shape.B, H = stack.shape.H, of_layer = stack.shape.T * B * H;
  for (Index i = first; i < stack.shape.L * of_layer; i += all) {
    const Index rest = i % of_layer;
    stack.states[stack.place_of_state(i / of_layer, 1 + rest / (B * H), 0) + rest % (B * H)] = absent<T>();
  }
  for (Index i = first; i < WalkCounters::count(stack.sharing, stack.shape.L); i += all)
    counters.walked[i] = counters.fed[i] = 0;
}

// What a pre-activation starts at.
template <class T>
LSC_DEVICE T start_of(const FusedStack<T>& stack, const LayerParameters<const T>& layer, int k, Index u) {
  const int by_input = stack.input_feed[k], by_state = stack.recurrent_feed[k];
  const T ih = layer.bias_ih && by_input != kNone ? layer.bias_ih[by_input * stack.shape.H + u] : T(0);
  const T hh = layer.bias_hh && by_state != kNone ? layer.bias_hh[by_state * stack.shape.H + u] : T(0);
  return ih + hh;
}

// One step of one unit of one sequence.
template <class T>
LSC_DEVICE void step_unit(const FusedStack<T>& stack, int l, Index t, Index b, Index u) {
  const Index H = stack.shape.H, part = stack.state_stride();
  const T *p = stack.gate(l, t, b), *s = stack.state(l, t, b), *w = stack.layers[l].unit;
  T* next = stack.state(l, t + 1, b) + u;
  EveryCell::call(stack.cell, [&](auto tag) {
    using Units = CellRows<typename decltype(tag)::Type, T>;
    const Place at = {0, u};
    T unit[Units::K], target[Units::S];
    Units::arguments(at, H, {p, H, {}}, {s, part, {}}, w, unit);
    Units::Unit::step(unit, target);
    for (int k = 1; k < Units::S; ++k) next[k * part] = target[k];
    publish_number(next, target[0]);
  });
}

// Adds up a product for all sequences of a block, a tile at a time.
template <class Format, class T>
struct WalkedProduct {
  const FusedStack<T>& stack;
  const Walker& own;
  ResidentRows<T> rows;
  Shared<typename Format::Word> resident, staged;

  // gates <- start(pre-activation, unit, sequence) + rows times the vectors of n numbers at `from`, for step t.
  template <class Start>
  LSC_DEVICE void add(Index t, const T* from, Index n, bool awaited, const Start& start) const {
    const Index row = stack.P * stack.shape.H;
    for (Index b = own.first_row; b < own.first_row + own.rows; b += kTile) {
      const Index left = own.first_row + own.rows - b;
      const int count = int(left < kTile ? left : kTile);
      T* gates = stack.gate(own.layer, t, b) + own.first;
      stage<Format>(rows, staged, FedVectors<T>{from + b * n, n, count, awaited}, [](int) { return Index(0); });
      barrier();
      multiply_rows<Format>(
          rows, resident, staged, count,
          [&](int g, int j, int i) { return start(rows.preactivation(g), j, gates + i * row); },
          [&](int g, int j, int i, T sum) { gates[i * row + rows.preactivation(g) * stack.shape.H + j] = sum; });
      barrier();
    }
  }
};

// All kTileThreads threads of a walking block.
template <class Format, class T>
LSC_DEVICE void walk(const FusedStack<T>& stack, const WalkCounters& counters) {
  using Word = typename Format::Word;
  const Walker own(stack.sharing, stack.shape, block());
  const Index H = stack.shape.H, row = stack.P * H;
  const LayerParameters<const T>& layer = stack.layers[own.layer];
  const ResidentRows<T> by_input = stack.rows_by_input(own.layer, own.first, own.units);
  const ResidentRows<T> by_state = stack.rows_by_state(own.layer, own.first, own.units);
  const Shared<Word> staged = dynamic_shared<Word>(0);
  const int most_staged = staged_words<Format>(by_input) > staged_words<Format>(by_state)
                              ? staged_words<Format>(by_input)
                              : staged_words<Format>(by_state);
  const Shared<Word> input_rows = staged + most_staged;
  const Shared<Word> state_rows = input_rows + (own.by_input ? resident_words<Format>(by_input) : 0);
  if (own.by_input) load_rows<Format>(by_input, input_rows);
  if (own.by_state) load_rows<Format>(by_state, state_rows);
  barrier();
  const WalkedProduct<Format, T> from_input = {stack, own, by_input, input_rows, staged};
  const WalkedProduct<Format, T> from_state = {stack, own, by_state, state_rows, staged};
  const Index counter = counter_of(stack.sharing, stack.shape.L, own.part, own.layer, own.slice);

  for (Index t = 0; t < stack.shape.T; ++t) {
    if (own.by_input) {
      const T* fed =
          own.layer == 0 ? stack.x + t * stack.shape.B * stack.shape.I : stack.state(own.layer - 1, t + 1, 0);
      from_input.add(t, fed, by_input.size, own.layer > 0,
                     [&](int k, int j, const T*) { return start_of(stack, layer, k, own.first + j); });
      for (int k = 0; k < stack.P; ++k)
        if (stack.input_feed[k] == kNone)
          for (int i = thread(); i < own.rows * own.units; i += threads())
            stack.gate(own.layer, t, own.first_row)[i / own.units * row + k * H + own.first + i % own.units] =
                start_of(stack, layer, k, own.first + i % own.units);
      barrier();
      if (!own.by_state && thread() == 0) publish(counters.fed + counter, unsigned(t + 1));
    }
    if (!own.by_state) continue;
    if (!own.by_input) {
      if (thread() == 0) await(counters.fed + counter, unsigned(t + 1));
      barrier();
    }
    from_state.add(t, stack.state(own.layer, t, 0), H, t > 0,
                   [&](int k, int j, const T* gates) { return gates[k * H + j]; });
    for (int i = thread(); i < own.rows * own.units; i += threads())
      step_unit(stack, own.layer, t, own.first_row + i / own.units, own.first + i % own.units);
    if ((t + 1) % kStepsAtOnce == 0 || t + 1 == stack.shape.T) {
      barrier();
      if (thread() == 0) publish(counters.walked + counter, unsigned(t + 1));
    }
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
