// Blocks that walk back: each has its units of its layer, from the last step to the first, with the columns of the
// weights that carry gradients to them. What the pre-activations get back is its own flag, as states are forward.
#pragma once

#include "cuda/cell_launches.h"
#include "cuda/fused/stack.h"
#include "cuda/ordering.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// Gradients: of states, where the stack has its states; of gates and of the units' parameters of every step.
template <class T>
struct FlowingBack {
  T* states;           // [L, T + 1, S, B, H]
  T* gates;            // [L, T, B, P, H]
  T* unit_parameters;  // [L, T, B, Q, H]
};

// All threads of the grid, before a grid barrier.
template <class T>
LSC_DEVICE void prepare_walk_back(const FusedStack<T>& stack, const FlowingBack<T>& flow) {
  const Index first = Index(block()) * threads() + thread(), all = Index(blocks()) * threads();
  for (Index i = first; i < stack.shape.L * stack.gate_layer; i += all) flow.gates[i] = absent<T>();
}

// The transposed Jacobian of one step of one unit of one sequence.
template <class T>
LSC_DEVICE void pull_unit(const FusedStack<T>& stack, const FlowingBack<T>& flow, int l, Index t, Index b, Index u) {
  const Index H = stack.shape.H, part = stack.state_stride();
  const T *p = stack.gate(l, t, b), *s = stack.state(l, t, b), *w = stack.layers[l].unit;
  const T* after = flow.states + stack.place_of_state(l, t + 1, b);
  T* before = flow.states + stack.place_of_state(l, t, b);
  T* gates = flow.gates + (stack.gate(l, t, b) - stack.gates) + u;
  T* parameters = flow.unit_parameters + ((l * stack.shape.T + t) * stack.shape.B + b) * stack.Q * H;
  EveryCell::call(stack.cell, [&](auto tag) {
    using Units = CellRows<typename decltype(tag)::Type, T>;
    const Place at = {0, u};
    T unit[Units::K], upstream[Units::S], held[Units::S], target[Units::K];
    Units::arguments(at, H, {p, H, {}}, {s, part, {}}, w, unit);
    load<Units::S>(UnitArray<const T>{after, part, {}}, at, upstream);
    load<Units::S>(UnitArray<const T>{before, part, {}}, at, held);
    Units::Unit::pull(unit, upstream, held, target);
    store<Units::S>(target + Units::P, at, UnitArray<T>{before, part, {}});
    store<Units::Q>(target + Units::P + Units::S, at, UnitArray<T>{parameters, H, {}});
    for (int k = 0; k < Units::P; ++k) publish_number(gates + k * H, target[k]);
  });
}

// All kTileThreads threads of a block.
template <class Format, class T>
LSC_DEVICE void walk_back(const FusedStack<T>& stack, const FlowingBack<T>& flow) {
  using Word = typename Format::Word;
  const Walker own(stack.sharing, stack.shape, block());
  const Index H = stack.shape.H, row = stack.P * H;
  const bool top = own.layer + 1 == stack.shape.L;
  const int upper = top ? own.layer : own.layer + 1;
  const ResidentRows<T> by_state = stack.rows_by_state(own.layer, own.first, own.units, true);
  const ResidentRows<T> from_above = stack.rows_by_input(upper, own.first, own.units, true);
  const Shared<Word> staged = dynamic_shared<Word>(0);
  const bool above_is_longer = !top && staged_words<Format>(from_above) > staged_words<Format>(by_state);
  const Shared<Word> state_rows =
      staged + (above_is_longer ? staged_words<Format>(from_above) : staged_words<Format>(by_state));
  const Shared<Word> above_rows = state_rows + resident_words<Format>(by_state);
  load_rows<Format>(by_state, state_rows);
  if (!top) load_rows<Format>(from_above, above_rows);
  barrier();

  // State 0 before step t gets what the gates of a layer give back at step `step`.
  const auto add = [&](const ResidentRows<T>& rows, Shared<Word> resident, int layer, Index step, Index t,
                       bool summed_apart) {
    for (Index b = own.first_row; b < own.first_row + own.rows; b += kTile) {
      const Index left = own.first_row + own.rows - b;
      const int count = int(left < kTile ? left : kTile);
      const T* gates = flow.gates + (stack.gate(layer, step, b) - stack.gates);
      T* to = flow.states + stack.place_of_state(own.layer, t, b) + own.first;
      stage<Format>(rows, staged, FedVectors<T>{gates, row, count, true},
                    [&](int piece) { return rows.preactivation(piece) * H; });
      barrier();
      multiply_rows<Format>(
          rows, resident, staged, count, [&](int, int j, int i) { return summed_apart ? T(0) : to[i * H + j]; },
          [&](int, int j, int i, T sum) { to[i * H + j] = summed_apart ? to[i * H + j] + sum : sum; });
      barrier();
    }
  };
  // The launches for every step add what comes from above to states that lie apart in a pass of its own.
  const auto add_from_above = [&](Index t) {
    if (!top && t > 0) add(from_above, above_rows, upper, t - 1, t, stack.S > 1);
  };

  add_from_above(stack.shape.T);
  for (Index t = stack.shape.T - 1; t >= 0; --t) {
    if (t + 1 < stack.shape.T) add(by_state, state_rows, own.layer, t + 1, t + 1, false);
    add_from_above(t);
    for (int i = thread(); i < own.rows * own.units; i += threads())
      pull_unit(stack, flow, own.layer, t, own.first_row + i / own.units, own.first + i % own.units);
    barrier();
  }
  add(by_state, state_rows, own.layer, 0, 0, false);
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
