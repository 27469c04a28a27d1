// Dense linear algebra for one instruction set; CMake compiles this file once for each.
//
// The product keeps a tile of kTileRows x panel_width sums in registers and walks k once, broadcasting A against a
// packed panel of B. Each sum is a plain chain over k, so a row's result does not depend on the rows beside it.
#include "cpu/vector.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

template <class T>
constexpr Index kPanel = kTileVectors * VectorOf<T>::kLanes;

template <class T>
void pack(Index k, Index n, const T* b, Index row_stride, Index column_stride, T* packed) {
  constexpr Index width = kPanel<T>;
  for (Index j0 = 0; j0 < n; j0 += width) {
    const Index columns = n - j0 < width ? n - j0 : width;
    for (Index i = 0; i < k; ++i, packed += width) {
      const T* row = b + i * row_stride + j0 * column_stride;
      for (Index j = 0; j < columns; ++j) packed[j] = row[j * column_stride];
      for (Index j = columns; j < width; ++j) packed[j] = T(0);
    }
  }
}

// C [Rows, columns <= panel] of one panel.
template <class T, int Rows>
void multiply_tile(Index columns, Index k, const T* a, Index a_row, Index a_column, const T* panel, T* c, Index c_row,
                   bool accumulate) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = VectorOf<T>::kLanes;
  Vector sum[Rows][kTileVectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Vector{};
  for (Index i = 0; i < k; ++i, a += a_column, panel += kPanel<T>) {
    Vector b[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) b[v] = load(panel + v * lanes);
    for (int r = 0; r < Rows; ++r) {
      const T scalar = a[r * a_row];
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] += scalar * b[v];
    }
  }
  if (columns == kPanel<T>) {
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < kTileVectors; ++v) {
        T* target = c + r * c_row + v * lanes;
        store(target, accumulate ? load(target) + sum[r][v] : sum[r][v]);
      }
    return;
  }
  for (int r = 0; r < Rows; ++r) {
    T row[kPanel<T>];
    for (int v = 0; v < kTileVectors; ++v) store(row + v * lanes, sum[r][v]);
    T* target = c + r * c_row;
    for (Index j = 0; j < columns; ++j) target[j] = accumulate ? target[j] + row[j] : row[j];
  }
}

template <class T, int Rows>
void multiply_rows(Index rows, Index columns, Index k, const T* a, Index a_row, Index a_column, const T* panel, T* c,
                   Index c_row, bool accumulate) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      multiply_tile<T, Rows>(columns, k, a, a_row, a_column, panel, c, c_row, accumulate);
    else
      multiply_rows<T, Rows - 1>(rows, columns, k, a, a_row, a_column, panel, c, c_row, accumulate);
  }
}

template <class T>
void multiply(Index m, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed, T* c, Index c_row,
              bool accumulate) {
  for (Index j0 = 0; j0 < n; j0 += kPanel<T>) {
    const Index columns = n - j0 < kPanel<T> ? n - j0 : kPanel<T>;
    const T* panel = packed + j0 * k;
    for (Index i0 = 0; i0 < m; i0 += kTileRows) {
      const Index rows = m - i0 < kTileRows ? m - i0 : Index{kTileRows};
      multiply_rows<T, kTileRows>(rows, columns, k, a + i0 * a_row, a_row, a_column, panel, c + i0 * c_row + j0, c_row,
                                  accumulate);
    }
  }
}

template <class T>
T dot(Index n, const T* x, const T* y) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = VectorOf<T>::kLanes, chains = 4;
  Vector sum[chains] = {};
  Index i = 0;
  for (; i + chains * lanes <= n; i += chains * lanes)
    for (int c = 0; c < chains; ++c) sum[c] += load(x + i + c * lanes) * load(y + i + c * lanes);
  for (; i + lanes <= n; i += lanes) sum[0] += load(x + i) * load(y + i);
  const Vector total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  T result = T(0);
  for (int l = 0; l < lanes; ++l) result += total[l];
  for (; i < n; ++i) result += x[i] * y[i];
  return result;
}

template <class T>
void axpy(Index n, T alpha, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] += alpha * x[i];
}

template <class T>
void scale(Index n, T alpha, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] = alpha * x[i];
}

template <class T>
void multiply_add(Index n, const T* a, const T* b, T* c) {
  for (Index i = 0; i < n; ++i) c[i] += a[i] * b[i];
}

template <class T, int Vectors>
void multiply_add_block(Index at, int count, const T* const* a, const T* const* b, bool accumulate, T* c) {
  constexpr int lanes = VectorOf<T>::kLanes;
  typename VectorOf<T>::type sum[Vectors] = {};
  if (accumulate)
    for (int v = 0; v < Vectors; ++v) sum[v] = load(c + at + v * lanes);
  for (int k = 0; k < count; ++k)
    for (int v = 0; v < Vectors; ++v) sum[v] += load(a[k] + at + v * lanes) * load(b[k] + at + v * lanes);
  for (int v = 0; v < Vectors; ++v) store(c + at + v * lanes, sum[v]);
}

template <class T>
void multiply_add_many(Index n, int count, const T* const* a, const T* const* b, bool accumulate, T* c) {
  constexpr Index lanes = VectorOf<T>::kLanes;
  constexpr int vectors = 4;
  Index at = 0;
  for (; at + vectors * lanes <= n; at += vectors * lanes)
    multiply_add_block<T, vectors>(at, count, a, b, accumulate, c);
  for (; at + lanes <= n; at += lanes) multiply_add_block<T, 1>(at, count, a, b, accumulate, c);
  if (at == n) return;
  typename VectorOf<T>::type sum = {};
  if (accumulate) sum = load_first(c + at, n - at);
  for (int k = 0; k < count; ++k) sum += load_first(a[k] + at, n - at) * load_first(b[k] + at, n - at);
  store_first(c + at, sum, n - at);
}

template <class T>
constexpr LinearKernels<T> kTable = {kPanel<T>, pack<T>,  multiply<T>,     dot<T>,
                                     axpy<T>,   scale<T>, multiply_add<T>, multiply_add_many<T>};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const LinearKernels<float> linear_float;
extern const LinearKernels<double> linear_double;
constexpr LinearKernels<float> linear_float = kTable<float>;
constexpr LinearKernels<double> linear_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
