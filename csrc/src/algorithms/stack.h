// A stack of recurrent layers and what a forward pass leaves behind.
//
// T time, B batch, L layers, I input size, H hidden size, S states, P pre-activations and Q parameters per unit.
#pragma once

#include <vector>

#include "algorithms/backend.h"

namespace lsc {

struct StackShape {
  Index T = 0, B = 0, I = 0, H = 0, L = 0;

  Index input_size(Index layer) const { return layer == 0 ? I : H; }
};

// Parameters of one layer in torch's layout; a null pointer means that the layer has none.
template <class P>
struct LayerParameters {
  P* weight_ih = nullptr;  // [input_blocks * H, input size]
  P* weight_hh = nullptr;  // [recurrent_blocks * H, H]
  P* bias_ih = nullptr;    // [input_blocks * H]
  P* bias_hh = nullptr;    // [recurrent_blocks * H]
  P* unit = nullptr;       // [Q, H]
};

// x [T, B, I]; states [L, T + 1, S, B, H] with the initial states in slot 0; gates [L, T, B, P, H] the pre-activations.
template <class V>
struct Trajectory {
  StackShape shape;
  int S = 0, P = 0;
  const V* x = nullptr;
  V* states = nullptr;
  V* gates = nullptr;

  // States of the layer before step t (so t + 1 is after it), batch row b: element [state * B * H + unit].
  V* state(Index layer, Index t, Index b) const {
    return states + (((layer * (shape.T + 1) + t) * S) * shape.B + b) * shape.H;
  }
  Index state_stride() const { return shape.B * shape.H; }

  V* gate(Index layer, Index t, Index b) const { return gates + (((layer * shape.T + t) * shape.B + b) * P) * shape.H; }
  // What the layer is fed at step t: a row of x, or state 0 of the layer below after step t.
  const V* input(Index layer, Index t, Index b) const {
    return layer == 0 ? x + (t * shape.B + b) * shape.I : state(layer - 1, t + 1, b);
  }
};

// Which states of a step a product is about.
struct StateRange {
  Index first = 0, count = 0;
};

// What a step's Jacobian of layer l is of, with n the size of the layer's input and s its V free states: all S of them
// or, where state 0 is derived, the others:
//   time      d s[t, l] / d s[t-1, l]           [V H, V H]
//   depth     d y[t, l] / d (input of l at t)   [H, n]
//   input     d s[t, l] / d (input of l at t)   [V H, n]
//   diagonal  d s[t, l] / d s[t-1, l-1]         [V H, V H]: the time step of layer l-1, seen through the input of l
enum class Direction { time, depth, diagonal, input };

}  // namespace lsc
