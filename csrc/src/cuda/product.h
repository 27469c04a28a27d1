// Dense products on the device, the work of a multiprocessor's tensor cores where the numbers allow it.
#pragma once

#include "cuda/execution.h"

namespace lsc::cuda {

inline constexpr int kMostParts = kMaxPreactivations;

// For every group g < groups,
//   C_g[i, j] = start_g[i, j] + sum over terms r < terms and k < K of A_gr[i, k] B_gr[k, j],  i < m, j < n,
// summed in the order of r, then k. A_gr[i, k] = a[a_offset[p] + i * a_row + k * a_column] with the part p = g * terms
// + r, and so for B. C_g[i, j] = c[c_offset[g] + i * c_row + j]; `start`, null for zeros, is laid out as C by start_row
// and start_column (a row for all: start_row = 0) with start_offset[g], and may be C itself. Row i of C depends on row
// i of A alone, bit for bit.
template <class T>
struct Product {
  Index m = 0, n = 0, k = 0;
  const T* a = nullptr;
  Index a_row = 0, a_column = 1;
  const T* b = nullptr;
  Index b_row = 0, b_column = 1;
  const T* start = nullptr;
  Index start_row = 0, start_column = 1;
  T* c = nullptr;
  Index c_row = 0;
  int groups = 1, terms = 1;  // groups * terms <= kMostParts
  Index a_offset[kMostParts] = {}, b_offset[kMostParts] = {}, c_offset[kMostParts] = {}, start_offset[kMostParts] = {};
};

template <class T>
void multiply(const Execution& execution, const Product<T>& product);

}  // namespace lsc::cuda
