// Rows between products: copies of those that lie apart, and sums over all of them.
#pragma once

#include <algorithm>

#include "cuda/execution.h"

namespace lsc::cuda {

// to[t * to_step + i] = (accumulate ? it : 0) + from[t * from_step + i], t < steps, i < count.
template <class T>
void copy_steps(const Execution& execution, Index steps, Index count, const T* from, Index from_step, bool accumulate,
                T* to, Index to_step);

// Rows that sum_slices should add up at once.
inline Index slice_of(Index rows) {
  constexpr Index kLeast = 256, kMostSlices = 1024;
  return std::max(kLeast, (rows + kMostSlices - 1) / kMostSlices);
}
inline Index slices_of(Index rows) { return (rows + slice_of(rows) - 1) / slice_of(rows); }

// Row i of target [slices_of(rows), n] = the sum of slice i of the rows of `source`, source_row apart.
template <class T>
void sum_slices(const Execution& execution, Index rows, Index n, const T* source, Index source_row, T* target);

// target [n] = the sum of all rows.
template <class T>
void sum_rows(const Execution& execution, Index rows, Index n, const T* source, Index source_row, T* target);

}  // namespace lsc::cuda
