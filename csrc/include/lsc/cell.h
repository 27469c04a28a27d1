// The contract of a gated cell: a per-unit function of pre-activations and states around two matrix products.
//
//   kName            the cell's name in every language
//   kStates          S, state variables per unit; state 0 is what the layer hands up and feeds back
//   kPreactivations  P, arguments of the step that come from matrix products
//   kFeeds[P]        which H-row block of weight_ih and of weight_hh (and their biases) is summed into each
//   step(p, s, next) p[P] pre-activations and s[S] states of one unit -> next[S] states
//
// `step` is written once, for T and for Dual<T>: forward, backward, Jacobian products and the second-order term of the
// radius gradient all come from it. State 0 is element 0. docs/howto/add-a-cell.md is the recipe.
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

template <class... Cells>
struct CellList {};

}  // namespace lsc
