// The contract of a gated cell: a per-unit function of pre-activations and states around two matrix products.
//
//   kName                the cell's name in every language
//   kStates              S, state variables per unit; state 0 is what the layer hands up and feeds back
//   kPreactivations      P, arguments of the step that come from matrix products
//   kFeeds[P]            which H-row block of weight_ih and of weight_hh (and their biases) is summed into each
//   kUnitParameters      Q, parameters that each unit has of its own
//   kDerived             whether state 0 is a function of the others; then the Jacobians' state is the others alone
//   step(p, s, w, next)  p[P] pre-activations, s[S] states, w[Q] parameters of one unit -> next[S] states
//   derive(s, w)         with kDerived: state 0 from s[1], .., s[S-1]; step must agree with it
//
// `step` and `derive` are written once, for T and for Dual<T>: forward, backward, Jacobian products and the
// second-order term of the radius gradient all come from them. State 0 is element 0. docs/howto/add-a-cell.md is the
// recipe.
#pragma once

#include "lsc/math.h"

namespace lsc {

// Block numbers; kNone where the product does not feed the pre-activation.
struct Feed {
  int input;
  int recurrent;
};
inline constexpr int kNone = -1;

inline constexpr int kMaxStates = 4;
inline constexpr int kMaxPreactivations = 8;
inline constexpr int kMaxUnitParameters = 8;

// What most cells are; a cell inherits this and says what differs.
struct GatedCell {
  static constexpr int kUnitParameters = 0;
  static constexpr bool kDerived = false;
};

template <class... Cells>
struct CellList {};

}  // namespace lsc
