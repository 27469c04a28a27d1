// Block diagonal matrices times vectors for one instruction set; CMake compiles this file once for each.
#include "cpu/vector.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

// Vector registers that hold sums: of so many rows of one block, or so many columns and rows of a sum of products.
constexpr int kRowVectors = 8, kProductColumns = 4, kProductVectors = 2;

template <class T>
using Vector = typename VectorOf<T>::type;

// y += block x for `Vectors` vectors of rows.
template <class T, int Vectors>
inline void multiply_rows(Index m, Index rows, const T* block, const T* x, T* y) {
  constexpr int lanes = VectorOf<T>::kLanes;
  Vector<T> sums[Vectors];
  for (int v = 0; v < Vectors; ++v) sums[v] = load(y + v * lanes);
  for (Index c = 0; c < m; ++c)
    for (int v = 0; v < Vectors; ++v) sums[v] += load(block + c * rows + v * lanes) * x[c];
  for (int v = 0; v < Vectors; ++v) store(y + v * lanes, sums[v]);
}

template <class T>
void multiply_add(Index m, Index rows, Index width, const T* blocks, const T* x, T* y) {
  constexpr Index lanes = VectorOf<T>::kLanes;
  if (width == 1) {
    Index r = 0;
    for (; r + kRowVectors * lanes <= rows; r += kRowVectors * lanes)
      multiply_rows<T, kRowVectors>(m, rows, blocks + r, x, y + r);
    for (; r < rows; r += lanes) multiply_rows<T, 1>(m, rows, blocks + r, x, y + r);
    return;
  }
  for (Index r = 0; r < rows; ++r)
    for (Index k = 0; k < width; k += lanes) {
      Vector<T> sum = load(y + r * width + k);
      for (Index c = 0; c < m; ++c) sum += load(blocks + (c * rows + r) * width + k) * load(x + c * width + k);
      store(y + r * width + k, sum);
    }
}

// `Columns` columns of one block, `Vectors` vectors of their rows.
template <class T, int Columns, int Vectors>
inline void add_products_of(Index steps, Index rows, const T* y, const T* x, Index stride, T* block) {
  constexpr int lanes = VectorOf<T>::kLanes;
  Vector<T> sums[Columns][Vectors];
  for (int c = 0; c < Columns; ++c)
    for (int v = 0; v < Vectors; ++v) sums[c][v] = load(block + c * rows + v * lanes);
  for (Index t = 0; t < steps; ++t)
    for (int c = 0; c < Columns; ++c)
      for (int v = 0; v < Vectors; ++v) sums[c][v] += load(y + t * stride + v * lanes) * x[t * stride + c];
  for (int c = 0; c < Columns; ++c)
    for (int v = 0; v < Vectors; ++v) store(block + c * rows + v * lanes, sums[c][v]);
}

template <class T, int Columns>
void add_products_of_columns(Index steps, Index rows, const T* y, const T* x, Index stride, T* block) {
  constexpr Index lanes = VectorOf<T>::kLanes, wide = kProductVectors * lanes;
  Index r = 0;
  for (; r + wide <= rows; r += wide)
    add_products_of<T, Columns, kProductVectors>(steps, rows, y + r, x, stride, block + r);
  for (; r < rows; r += lanes) add_products_of<T, Columns, 1>(steps, rows, y + r, x, stride, block + r);
}

template <class T>
void add_products(Index steps, Index m, Index rows, Index width, const T* y, const T* x, Index stride, T* blocks) {
  constexpr Index lanes = VectorOf<T>::kLanes;
  if (width == 1) {
    Index c = 0;
    for (; c + kProductColumns <= m; c += kProductColumns)
      add_products_of_columns<T, kProductColumns>(steps, rows, y, x + c, stride, blocks + c * rows);
    for (; c < m; ++c) add_products_of_columns<T, 1>(steps, rows, y, x + c, stride, blocks + c * rows);
    return;
  }
  for (Index c = 0; c < m; ++c)
    for (Index r = 0; r < rows; ++r)
      for (Index k = 0; k < width; k += lanes) {
        T* entry = blocks + (c * rows + r) * width + k;
        Vector<T> sum = load(entry);
        for (Index t = 0; t < steps; ++t)
          sum += load(y + t * stride + r * width + k) * load(x + t * stride + c * width + k);
        store(entry, sum);
      }
}

template <class T>
constexpr BlockKernels<T> kTable = {VectorOf<T>::kLanes, multiply_add<T>, add_products<T>};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const BlockKernels<float> blocks_float;
extern const BlockKernels<double> blocks_double;
constexpr BlockKernels<float> blocks_float = kTable<float>;
constexpr BlockKernels<double> blocks_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
