// Products with dense matrices for a tile of points, by one block.
#pragma once

#include "cuda/operator.h"
#include "cuda/tile_product.h"
#include "cuda/warp_sum.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// As apply_tile of StepProducts. Every point has its matrix to itself, so the time is that of reading it: nothing is
// won by rounding, and float32 stays float32 in every precision. J v has one warp for each row of a matrix, J' v one
// thread for each column.
template <class Choice, class T>
LSC_DEVICE void apply_tile(Choice, const MatrixProducts<T>& products, bool transposed, int count,
                           const std::int64_t* point, const T* v, T* out, T*) {
  const Index rows = products.rows, columns = products.columns;
  if (transposed) {
    for (Index i = thread(); i < count * columns; i += threads()) {
      const Index j = i / columns;
      const T* entry = products.matrices + point[j] * rows * columns + i % columns;
      T sum = 0;
      for (Index r = 0; r < rows; ++r) sum += entry[r * columns] * v[j * rows + r];
      out[i] = sum;
    }
  } else {
    for (Index i = warp(); i < count * rows; i += threads() / 32) {
      const Index j = i / rows;
      const T* row = products.matrices + (point[j] * rows + i % rows) * columns;
      T sum = 0;
      for (Index c = lane(); c < columns; c += 32) sum += row[c] * v[j * columns + c];
      sum = warp_sum(sum);
      if (lane() == 0) out[i] = sum;
    }
  }
  barrier();
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
