// The pre-activations that one of a cell's two products feeds, each by a block of H rows of the weights.
#pragma once

#include "algorithms/backend.h"
#include "cuda/product.h"

namespace lsc::cuda {

struct FedBlocks {
  int count = 0;
  int preactivation[kMaxPreactivations] = {};
  int block[kMaxPreactivations] = {};
};

// By the input (&Feed::input) or the state (&Feed::recurrent).
inline FedBlocks fed_blocks(const CellShape& cell, int Feed::* by) {
  FedBlocks fed;
  for (int k = 0; k < cell.preactivations; ++k)
    if (const int block = cell.feeds[std::size_t(k)].*by; block != kNone) {
      fed.preactivation[fed.count] = k;
      fed.block[fed.count++] = block;
    }
  return fed;
}

// Pre-activations p [rows, P, H] = start + fed [rows, n] weight', a group for each block of weight [blocks * H, n].
// `start` as in Product, laid out as p with rows start_row apart.
template <class T>
void multiply_blocks(const Execution& execution, const FedBlocks& fed, Index rows, Index H, Index n, const T* source,
                     const T* weight, const T* start, Index start_row, T* p, Index p_row) {
  if (fed.count == 0) return;
  Product<T> product;
  product.m = rows, product.n = H, product.k = n;
  product.a = source, product.a_row = n;
  product.b = weight, product.b_row = 1, product.b_column = n;
  product.start = start, product.start_row = start_row;
  product.c = p, product.c_row = p_row;
  product.groups = fed.count;
  for (int g = 0; g < fed.count; ++g) {
    product.b_offset[g] = fed.block[g] * H * n;
    product.c_offset[g] = product.start_offset[g] = fed.preactivation[g] * H;
  }
  multiply(execution, product);
}

// The transpose: target [rows, n] = start + the sum over blocks of gradients [rows, P, H] weight.
template <class T>
void multiply_blocks_transposed(const Execution& execution, const FedBlocks& fed, Index rows, Index H, Index n,
                                const T* gradients, Index gradient_row, const T* weight, const T* start, T* target) {
  if (fed.count == 0) return;
  Product<T> product;
  product.m = rows, product.n = n, product.k = H;
  product.a = gradients, product.a_row = gradient_row;
  product.b = weight, product.b_row = n;
  product.start = start, product.start_row = n;
  product.c = target, product.c_row = n;
  product.terms = fed.count;
  for (int r = 0; r < fed.count; ++r) {
    product.a_offset[r] = fed.preactivation[r] * H;
    product.b_offset[r] = fed.block[r] * H * n;
  }
  multiply(execution, product);
}

// weight_gradient [blocks * H, n] = the sum over rows of the outer products of gradients [rows, P, H] and fed [rows,
// n].
template <class T>
void multiply_outer(const Execution& execution, const FedBlocks& fed, Index rows, Index H, Index n, const T* gradients,
                    Index gradient_row, const T* source, T* weight_gradient) {
  if (fed.count == 0) return;
  Product<T> product;
  product.m = H, product.n = n, product.k = rows;
  product.a = gradients, product.a_row = 1, product.a_column = gradient_row;
  product.b = source, product.b_row = n;
  product.c = weight_gradient, product.c_row = n;
  product.groups = fed.count;
  for (int g = 0; g < fed.count; ++g) {
    product.a_offset[g] = fed.preactivation[g] * H;
    product.c_offset[g] = fed.block[g] * H * n;
  }
  multiply(execution, product);
}

}  // namespace lsc::cuda
