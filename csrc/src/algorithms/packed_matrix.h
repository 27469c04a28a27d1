// A matrix laid out for LinearKernels::multiply.
#pragma once

#include <vector>

#include "algorithms/backend.h"

namespace lsc {

template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;

  // Packs B [k, n], B[i, j] = b[i * row_stride + j * column_stride].
  PackedMatrix(const LinearKernels<T>& linear, Index k, Index n, const T* b, Index row_stride, Index column_stride)
      : linear_(&linear), k_(k), n_(n) {
    const Index width = linear.panel_width;
    data_.resize(std::size_t(k * ((n + width - 1) / width * width)));
    linear.pack(k, n, b, row_stride, column_stride, data_.data());
  }

  // C [m, n] (+)= A [m, k] B, A[i, l] = a[i * a_row + l * a_column].
  void multiply(Index m, const T* a, Index a_row, Index a_column, T* c, Index c_row, bool accumulate) const {
    linear_->multiply(m, n_, k_, a, a_row, a_column, data_.data(), c, c_row, accumulate);
  }

 private:
  const LinearKernels<T>* linear_ = nullptr;
  Index k_ = 0, n_ = 0;
  std::vector<T> data_;
};

// A stack of square-ish blocks, weight [blocks * H, n], ready for products with each block and with its transpose.
template <class T>
struct BlockWeights {
  std::vector<PackedMatrix<T>> forward;     // per block: x [., n] -> [., H]
  std::vector<PackedMatrix<T>> transposed;  // per block: g [., H] -> [., n]

  BlockWeights() = default;
  BlockWeights(const LinearKernels<T>& linear, int blocks, Index H, Index n, const T* weight, bool with_transposed) {
    for (int block = 0; block < blocks; ++block) {
      const T* rows = weight + block * H * n;
      forward.emplace_back(linear, n, H, rows, 1, n);
      if (with_transposed) transposed.emplace_back(linear, H, n, rows, n, 1);
    }
  }
};

}  // namespace lsc
