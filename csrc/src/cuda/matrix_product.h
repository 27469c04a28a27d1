// Products with dense matrices for a tile of points, by one block.
#pragma once

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/operator.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// As apply_tile of StepProducts (cuda/step_product.h), and without rounding of the operands: the time goes into reading
// the matrices. A warp takes an element of J v, a thread one of J' v.
template <Precision kPrecision, class T>
LSC_DEVICE void apply_tile(const MatrixProducts<T>& products, bool transposed, int count, const std::int64_t* point,
                           const T* v, T* out, T*) {
  const Index rows = products.rows, columns = products.columns;
  if (transposed) {
    for (Index i = thread(); i < count * columns; i += threads()) {
      const Index j = i / columns, column = i % columns;
      const T* matrix = products.matrices + Index(point[j]) * rows * columns + column;
      T sum = 0;
      for (Index row = 0; row < rows; ++row) sum += matrix[row * columns] * v[j * rows + row];
      out[i] = sum;
    }
  } else {
    for (Index i = warp(); i < count * rows; i += threads() / 32) {
      const Index j = i / rows, row = i % rows;
      const T* matrix = products.matrices + (Index(point[j]) * rows + row) * columns;
      T sum = 0;
      for (Index column = lane(); column < columns; column += 32) sum += matrix[column] * v[j * columns + column];
      for (int apart = 16; apart > 0; apart /= 2) sum += shuffle_xor(sum, apart);
      if (lane() == 0) out[i] = sum;
    }
  }
  barrier();
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
