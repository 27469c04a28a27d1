// Gradients of weights: sums over points of outer products.
#pragma once

#include <algorithm>

#include "algorithms/packed_matrix.h"
#include "algorithms/stack.h"

namespace lsc {

// weight_gradient [blocks * H, n] and bias_gradient [blocks * H] (either may be null) of the blocks that `block_of`
// names, from gate_gradients [rows, P, H] and what the product was fed, `fed` [rows, n]. Overwrites, or adds where
// `accumulate`. The team shares the units out.
template <class T, class BlockOf>
void weight_gradients(Team& team, const CellShape& cell, Index rows, Index H, const T* gate_gradients,
                      const PackedMatrix<T>& fed, BlockOf block_of, bool accumulate, T* weight_gradient,
                      T* bias_gradient) {
  constexpr Index kGrain = 12;
  const Index row_size = cell.preactivations * H, n = fed.columns();
  const Range units = team.share(H, kGrain);
  for (int k = 0; k < cell.preactivations; ++k) {
    const int block = block_of(cell.feeds[std::size_t(k)]);
    if (block == kNone) continue;
    team.check();
    if (weight_gradient)
      fed.multiply(units.size(), gate_gradients + k * H + units.begin, 1, row_size,
                   weight_gradient + (block * H + units.begin) * n, n, accumulate);
    if (bias_gradient) {
      T* target = bias_gradient + block * H;
      if (!accumulate) std::fill(target + units.begin, target + units.end, T(0));
      for (Index row = 0; row < rows; ++row)
        for (Index u = units.begin; u < units.end; ++u) target[u] += gate_gradients[row * row_size + k * H + u];
    }
  }
}

// target [n] <- the sum of the rows of source [rows, n], or += where `accumulate`.
template <class T>
void sum_rows(Team& team, Index rows, Index n, const T* source, bool accumulate, T* target) {
  const Range columns = team.share(n);
  if (!accumulate) std::fill(target + columns.begin, target + columns.end, T(0));
  for (Index row = 0; row < rows; ++row)
    for (Index u = columns.begin; u < columns.end; ++u) target[u] += source[row * n + u];
}

}  // namespace lsc
