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
  constexpr Index kGrain = 24;  // units between two looks at Ctrl-C
  const Index row_size = cell.preactivations * H, n = fed.columns();
  const Range share = team.share(H, kGrain / 2);
  for (int k = 0; k < cell.preactivations; ++k) {
    const int block = block_of(cell.feeds[std::size_t(k)]);
    if (block == kNone) continue;
    for (Index begin = share.begin; begin < share.end; begin += kGrain) {
      team.check();
      const Index units = std::min(kGrain, share.end - begin);
      const T* gradients = gate_gradients + k * H + begin;
      if (weight_gradient)
        fed.multiply(units, gradients, 1, row_size, weight_gradient + (block * H + begin) * n, n, accumulate);
      if (bias_gradient) {
        T* target = bias_gradient + block * H + begin;
        if (!accumulate) std::fill(target, target + units, T(0));
        for (Index row = 0; row < rows; ++row)
          for (Index u = 0; u < units; ++u) target[u] += gradients[row * row_size + u];
      }
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
