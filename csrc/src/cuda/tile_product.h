// A matrix times the vectors of a tile of points: what one block multiplies with between two of their steps.
#pragma once

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/tile.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// out[j * out_row + i] = (accumulate ? it : 0) + sum over k < K of A[i, k] v[j * v_row + k], i < m, j < count <= kTile,
// A[i, k] = a[i * a_row + k * a_column], all in global memory. All threads of the block take part; what they read must
// be seen by all before, and what they wrote is not until the next barrier. Row j of the result depends on row j of v
// alone, bit for bit.
template <Precision kPrecision, class T>
LSC_DEVICE void tile_product(Index m, Index k, const T* a, Index a_row, Index a_column, int count, const T* v,
                             Index v_row, bool accumulate, T* out, Index out_row) {
  for (Index i = thread(); i < m * count; i += threads()) {
    const Index row = i % m, j = i / m;
    T sum = accumulate ? out[j * out_row + row] : T(0);
    for (Index l = 0; l < k; ++l) sum += a[row * a_row + l * a_column] * v[j * v_row + l];
    out[j * out_row + row] = sum;
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
